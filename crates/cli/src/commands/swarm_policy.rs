//! What `swarm update` says of the swarm's own policies. They are labels of the swarm, so that the unmodified Docker CLI's
//! API can set them too; without one, what they are about is closed or off.

use crate::error::CliError;
use crate::opts;
use clap::Args;
use docker_api::GoDuration;
use std::collections::BTreeMap;

const POLICY: &str = "swarmlite.policy.";
const REBALANCE: &str = "swarmlite.rebalance";
const AUTOPILOT: &str = "swarmlite.autopilot";
const AUTOPILOT_AFTER: &str = "swarmlite.autopilot.after";

/// The flags.
#[derive(Args, Debug, Default)]
pub(crate) struct PolicyFlags {
    /// Add or update a label of the swarm ("key=value")
    #[arg(long, value_parser = opts::label, value_name = "list")]
    label_add: Vec<(String, String)>,
    /// Remove a label of the swarm if exists
    #[arg(long, value_name = "list")]
    label_rm: Vec<String>,
    /// What services may ask for beyond Docker Swarm: privileged=allow|deny, devices=PATH,PATH or *, shm-size=BYTES,
    /// gpus=allow|deny; an empty value takes the policy away
    #[arg(long, value_parser = policy, value_name = "key=value")]
    policy: Vec<(String, String)>,
    /// Promote spare managers when a manager is lost ("on", "off")
    #[arg(long, value_name = "string", value_parser = ["on", "off"], hide_possible_values = true)]
    autopilot: Option<String>,
    /// How long a manager must be lost before it is replaced (ns|us|ms|s|m|h) (default 10m)
    #[arg(long, value_name = "duration", value_parser = |text: &str| opts::duration(text).map(|d| (text.to_owned(), d)))]
    autopilot_after: Option<(String, GoDuration)>,
    /// Move tasks by themselves to nodes that joined ("off", "on-join")
    #[arg(long, value_name = "string", value_parser = ["off", "on-join"], hide_possible_values = true)]
    rebalance: Option<String>,
}

/// A policy by its short name, with a value that it can have.
fn policy(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it is a policy and its value, such as privileged=allow")?;
    let bad = |want: &str| Err(format!("invalid value {value:?} for the policy {name}: it must be {want}"));
    let good = match name {
        _ if value.is_empty() => Ok(()),
        "privileged" | "gpus" if !matches!(value, "allow" | "deny") => bad("allow or deny"),
        "devices" if value != "*" && !value.split(',').all(|path| path.trim().starts_with('/')) => {
            bad("paths with a comma between them, or *")
        }
        "shm-size" => opts::bytes(value).map(drop),
        "privileged" | "gpus" | "devices" => Ok(()),
        _ => Err(format!("unknown policy {name:?}: there are privileged, devices, shm-size and gpus")),
    };
    good.map(|()| (name.to_owned(), value.to_owned()))
}

// === impl PolicyFlags ===

impl PolicyFlags {
    /// True when nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.label_add.is_empty()
            && self.label_rm.is_empty()
            && self.policy.is_empty()
            && self.autopilot.is_none()
            && self.autopilot_after.is_none()
            && self.rebalance.is_none()
    }

    /// Changes the labels of a swarm as the flags say.
    pub(crate) fn apply(&self, labels: &mut BTreeMap<String, String>) -> Result<(), CliError> {
        for key in &self.label_rm {
            if labels.remove(key).is_none() {
                return Err(CliError::text(format!("key {key} doesn't exist in swarm's labels")));
            }
        }
        labels.extend(self.label_add.iter().cloned());
        for (name, value) in &self.policy {
            let label = format!("{POLICY}{name}");
            if value.is_empty() { drop(labels.remove(&label)) } else { drop(labels.insert(label, value.clone())) }
        }
        let after = self.autopilot_after.as_ref().map(|(text, _)| text);
        for (label, value) in
            [(AUTOPILOT, self.autopilot.as_ref()), (AUTOPILOT_AFTER, after), (REBALANCE, self.rebalance.as_ref())]
        {
            labels.extend(value.map(|value| (label.to_owned(), value.clone())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Command, FromArgMatches as _};
    use serde_json::json;

    fn labels(args: &[&str], before: serde_json::Value) -> Result<serde_json::Value, String> {
        let command = PolicyFlags::augment_args(Command::new("update"));
        let matches = command.try_get_matches_from([&["update"], args].concat()).map_err(|e| e.to_string())?;
        let flags = PolicyFlags::from_arg_matches(&matches).unwrap();
        let mut labels = serde_json::from_value(before).unwrap();
        flags.apply(&mut labels).map_err(|e| e.to_string())?;
        assert_eq!(flags.is_empty(), args.is_empty());
        Ok(json!(labels))
    }

    #[test]
    fn policies_are_labels_of_the_swarm() {
        assert_eq!(labels(&[], json!({"a": "b"})), Ok(json!({"a": "b"})));
        let all = [
            "--policy",
            "privileged=allow",
            "--policy",
            "devices=/dev/a,/dev/b",
            "--policy",
            "shm-size=1g",
            "--policy",
            "gpus=deny",
            "--autopilot",
            "on",
            "--autopilot-after",
            "5m",
            "--rebalance",
            "on-join",
            "--label-add",
            "x=y",
            "--label-rm",
            "a",
        ];
        assert_eq!(
            labels(&all, json!({"a": "b"})),
            Ok(json!({"swarmlite.policy.privileged": "allow", "swarmlite.policy.devices": "/dev/a,/dev/b",
                "swarmlite.policy.shm-size": "1g", "swarmlite.policy.gpus": "deny", "swarmlite.autopilot": "on",
                "swarmlite.autopilot.after": "5m", "swarmlite.rebalance": "on-join", "x": "y"}))
        );
        assert_eq!(labels(&["--policy", "devices="], json!({"swarmlite.policy.devices": "*"})), Ok(json!({})));
        for (args, want) in [
            (["--policy", "privileged=yes"], "it must be allow or deny"),
            (["--policy", "devices=x"], "paths with a comma between them, or *"),
            (["--policy", "shm-size=x"], "invalid size: 'x'"),
            (["--policy", "foo=x"], "unknown policy \"foo\""),
            (["--policy", "foo"], "a policy and its value"),
            (["--autopilot", "maybe"], "invalid value 'maybe'"),
            (["--autopilot-after", "5"], "missing unit"),
            (["--label-rm", "nope"], "key nope doesn't exist in swarm's labels"),
        ] {
            let error = labels(&args, json!({})).unwrap_err();
            assert!(error.contains(want), "{args:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn noise_is_no_policy_and_never_panics(text in "(privileged|devices|shm-size|gpus)?=?[a-z0-9=,*/é-]{0,20}") {
            if let Ok((name, value)) = policy(&text) {
                proptest::prop_assert_eq!(format!("{name}={value}"), text);
            }
        }
    }
}
