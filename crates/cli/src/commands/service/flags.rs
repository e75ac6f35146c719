//! The flags of `service create` and `service update`: from their table to clap, and from clap to their values.

use super::flag_table::{CREATE, EXTENSIONS, Flag, Kind, LISTS, SCALARS, UPDATE};
use crate::error::CliError;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

/// The values of the flags, by name.
#[derive(Debug, Clone)]
pub(crate) struct Flags(ArgMatches);

/// `service create`: the flags, then image, command and arguments.
#[derive(Debug, Clone)]
pub(crate) struct CreateArgs(pub(crate) Flags);

/// `service update`: the flags and the service.
#[derive(Debug, Clone)]
pub(crate) struct UpdateArgs(pub(crate) Flags);

fn scalar((name, short, kind, value, help): &Flag) -> Arg {
    let arg = Arg::new(*name).long(*name).help(*help);
    let arg = match short {
        Some(short) => arg.short(*short),
        None => arg,
    };
    match kind {
        Kind::Switch => arg.action(ArgAction::SetTrue),
        // A number may be negative, and a word may begin with a dash: Docker takes what follows, whatever it is.
        _ => arg.action(ArgAction::Set).value_name(*value).value_parser(kind.parser()).allow_hyphen_values(true),
    }
}

fn list(flag: &Flag) -> Arg {
    scalar(flag).action(ArgAction::Append)
}

/// The two flags of `update` for one of [`LISTS`].
fn list_add_rm(flag: &Flag) -> Vec<Arg> {
    let (name, _, kind, _, help) = flag;
    // To add and to drop capabilities is what the two flags are called already.
    if *kind == Kind::Capability {
        return vec![list(flag)];
    }
    let names: [&'static str; 2] = match *name {
        "constraint" => ["constraint-add", "constraint-rm"],
        "container-label" => ["container-label-add", "container-label-rm"],
        "dns" => ["dns-add", "dns-rm"],
        "dns-option" => ["dns-option-add", "dns-option-rm"],
        "dns-search" => ["dns-search-add", "dns-search-rm"],
        "env" => ["env-add", "env-rm"],
        "group" => ["group-add", "group-rm"],
        "host" => ["host-add", "host-rm"],
        "label" => ["label-add", "label-rm"],
        "mount" => ["mount-add", "mount-rm"],
        "placement-pref" => ["placement-pref-add", "placement-pref-rm"],
        "publish" => ["publish-add", "publish-rm"],
        "sysctl" => ["sysctl-add", "sysctl-rm"],
        "ulimit" => ["ulimit-add", "ulimit-rm"],
        "config" => ["config-add", "config-rm"],
        "secret" => ["secret-add", "secret-rm"],
        "network" => ["network-add", "network-rm"],
        "device" => ["device-add", "device-rm"],
        _ => ["generic-resource-add", "generic-resource-rm"],
    };
    let rm_kind = match kind {
        Kind::Port | Kind::Preference => *kind,
        _ => Kind::Text,
    };
    let help = help.to_lowercase();
    vec![
        list(&(names[0], None, *kind, "list", "")).help(format!("Add or update: {help}")),
        list(&(names[1], None, rm_kind, "list", "")).help(format!("Remove: {help}")),
    ]
}

// === impl CreateArgs ===

impl clap::Args for CreateArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let words = Arg::new("words")
            .required(true)
            .num_args(1..)
            .trailing_var_arg(true)
            .value_name("IMAGE [COMMAND] [ARG...]");
        let env_file = Arg::new("env-file").long("env-file").action(ArgAction::Append).value_name("list");
        command
            .args(CREATE.iter().chain(SCALARS).chain(EXTENSIONS).map(scalar))
            .args(LISTS.iter().map(list))
            .arg(env_file.help("Read in a file of environment variables"))
            .arg(list(&("log-opt", None, Kind::Label, "list", "Logging driver options")))
            .arg(words.help("Image, and what to run in it instead of its own command"))
            .override_usage("swarmlite service create [OPTIONS] IMAGE [COMMAND] [ARG...]")
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for CreateArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<CreateArgs, clap::Error> {
        Ok(CreateArgs(Flags(matches.clone())))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = Flags(matches.clone());
        Ok(())
    }
}

// === impl UpdateArgs ===

impl clap::Args for UpdateArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
            .args(UPDATE.iter().chain(SCALARS).chain(EXTENSIONS).map(scalar))
            .args(LISTS.iter().flat_map(list_add_rm))
            .arg(list(&("log-opt", None, Kind::Label, "list", "Logging driver options")))
            .arg(Arg::new("service").required(true).value_name("SERVICE").help("Service to update"))
            .override_usage("swarmlite service update [OPTIONS] SERVICE")
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for UpdateArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<UpdateArgs, clap::Error> {
        Ok(UpdateArgs(Flags(matches.clone())))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0 = Flags(matches.clone());
        Ok(())
    }
}

// === impl Flags ===

impl Flags {
    /// True when the user gave the flag.
    pub(crate) fn given(&self, name: &str) -> bool {
        matches!(self.0.try_contains_id(name), Ok(true)) && self.0.value_source(name) == Some(ValueSource::CommandLine)
    }

    /// True when the user gave the flag with a value that is more than nothing.
    pub(crate) fn given_not_empty(&self, name: &str) -> bool {
        let raw = self.0.try_get_raw(name).ok().flatten();
        self.given(name) && raw.is_some_and(|mut values| values.any(|v| !v.is_empty()))
    }

    /// True when the user gave any of the flags.
    pub(crate) fn any_given(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.given(name))
    }

    /// True when the user gave no flag but these.
    pub(crate) fn only(&self, names: &[&str]) -> bool {
        self.0.ids().all(|id| names.contains(&id.as_str()) || !self.given(id.as_str()))
    }

    /// The value of a flag with one, if the command has it and the user gave it. `T` is what the flag's kind parses to.
    pub(crate) fn one<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        self.0.try_get_one::<T>(name).ok().flatten().cloned()
    }

    /// A text; empty when not given.
    pub(crate) fn text(&self, name: &str) -> String {
        self.one::<String>(name).unwrap_or_default()
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.one::<bool>(name).unwrap_or(false)
    }

    /// A switch, if the user gave it.
    pub(crate) fn switch_given(&self, name: &str) -> Option<bool> {
        self.given(name).then(|| self.switch(name))
    }

    /// The values of a flag that may be given several times, in the order in which they were.
    pub(crate) fn many<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Vec<T> {
        self.0.try_get_many::<T>(name).ok().flatten().map(|values| values.cloned().collect()).unwrap_or_default()
    }

    /// A text that must be one of a few.
    pub(crate) fn choice(&self, name: &str, choices: &[&str]) -> Result<Option<String>, CliError> {
        match self.one::<String>(name) {
            Some(text) if !choices.contains(&text.as_str()) => Err(CliError::Argument {
                value: text,
                flag: format!("--{name}"),
                reason: format!("must be one of {}", choices.join(", ")),
            }),
            choice => Ok(choice),
        }
    }
}
