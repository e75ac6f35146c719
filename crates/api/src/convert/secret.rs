//! Secrets, configs, and what services have of them: both ways.

use super::{time, version};
use docker_api::{Driver, Failure, SecretOrConfig, SecretOrConfigSpec};
use model::{
    Config, ConfigReference, ConfigTarget, ContainerSpec, Data, FileMode, FileTarget, Given, Meta, Secret,
    SecretReference, Templating,
};
use std::collections::BTreeMap;

/// Docker's word for Go's text/template.
const GOLANG: &str = "golang";

/// A secret. Its data is nowhere near.
pub(crate) fn secret(s: &Secret) -> SecretOrConfig {
    let spec = spec(s.spec.name.as_str(), &s.spec.labels, s.spec.templating);
    object(s.id.as_str(), &s.meta, spec)
}

/// A config with its data.
pub(crate) fn config(c: &Config, data: Option<&Data>) -> SecretOrConfig {
    let mut spec = spec(c.spec.name.as_str(), &c.spec.labels, c.spec.templating);
    spec.data = docker_api::Data(data.map(|d| d.expose().to_vec()).unwrap_or_default());
    object(c.id.as_str(), &c.meta, spec)
}

fn object(id: &str, meta: &Meta, spec: SecretOrConfigSpec) -> SecretOrConfig {
    SecretOrConfig {
        id: id.to_owned(),
        version: version(meta.version),
        created_at: time(meta.created_at),
        updated_at: time(meta.updated_at),
        spec,
    }
}

fn spec(name: &str, labels: &BTreeMap<String, String>, templating: Option<Templating>) -> SecretOrConfigSpec {
    let driver = |t| match t {
        Templating::Golang => Driver { name: GOLANG.into(), ..Driver::default() },
    };
    SecretOrConfigSpec {
        name: name.to_owned(),
        labels: labels.clone(),
        templating: templating.map(driver),
        ..SecretOrConfigSpec::default()
    }
}

/// How data is filled in: not at all, or as the only driver there is does it.
pub(crate) fn templating(sent: Option<&Driver>) -> Result<Option<Templating>, Failure> {
    match sent {
        None => Ok(None),
        Some(d) if !d.options.is_empty() => Err(Failure::bad_request(
            "Templating.Options is not supported by this release of Swarmlite: golang has no options; leave it out",
        )),
        Some(d) => match d.name.as_str() {
            "" => Ok(None),
            GOLANG => Ok(Some(Templating::Golang)),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(Failure::invalid(format_args!("unrecognized template driver {shown:?}: use {GOLANG}")))
            }
        },
    }
}

/// What a container is to be given, into its spec. Whether it is there is not looked at here.
pub(super) fn references_in(
    secrets: Vec<docker_api::SecretReference>,
    configs: Vec<docker_api::ConfigReference>,
    to: &mut ContainerSpec,
) -> Result<(), Failure> {
    to.secrets = secrets.into_iter().map(secret_reference).collect::<Result<_, _>>()?;
    to.configs = configs.into_iter().map(config_reference).collect::<Result<_, _>>()?;
    to.check_targets().map_err(Failure::invalid)
}

fn secret_reference(r: docker_api::SecretReference) -> Result<SecretReference, Failure> {
    if r.secret_id.is_empty() || r.secret_name.is_empty() {
        return Err(Failure::invalid("malformed secret reference"));
    }
    let Some(file) = r.file else {
        return Err(Failure::invalid("malformed secret reference, no target provided"));
    };
    let target = file_target("secret", &r.secret_name, file)?;
    let (secret_id, secret_name) = known("secret", &r.secret_id, &r.secret_name)?;
    Ok(SecretReference { secret_id, secret_name, target, given: Given::default() })
}

fn config_reference(r: docker_api::ConfigReference) -> Result<ConfigReference, Failure> {
    if r.config_id.is_empty() || r.config_name.is_empty() {
        return Err(Failure::invalid("malformed config reference"));
    }
    let target = match (r.file, r.runtime) {
        (None, None) => return Err(Failure::bad_request("either File or Runtime should be set")),
        (Some(_), Some(_)) => return Err(Failure::bad_request("cannot specify both File and Runtime")),
        (None, Some(_)) => ConfigTarget::Runtime,
        (Some(file), None) => ConfigTarget::File(file_target("config", &r.config_name, file)?),
    };
    let (config_id, config_name) = known("config", &r.config_id, &r.config_name)?;
    Ok(ConfigReference { config_id, config_name, target, given: Given::default() })
}

/// What can be no id or no name is nothing that there is.
fn known<I: std::str::FromStr, N: std::str::FromStr>(kind: &str, id: &str, name: &str) -> Result<(I, N), Failure> {
    let both = id.parse().ok().zip(name.parse().ok());
    both.ok_or_else(|| Failure::references_not_found(kind, &[name.chars().take(128).collect()]))
}

fn file_target(kind: &str, of: &str, file: docker_api::FileTarget) -> Result<FileTarget, Failure> {
    if file.name.is_empty() {
        return Err(Failure::invalid(format_args!(
            "malformed file {kind} reference, invalid target file name provided"
        )));
    }
    let number = |what: &str, text: &str| match text {
        // Docker's clients always say 0.
        "" => Ok(0),
        _ => text.parse().map_err(|_| {
            let (of, text): (String, String) = (of.chars().take(128).collect(), text.chars().take(64).collect());
            Failure::invalid(format_args!("invalid {what} {text:?} of {kind} '{of}': it must be a number"))
        }),
    };
    Ok(FileTarget {
        path: file.name.parse().map_err(Failure::invalid)?,
        uid: number("UID", &file.uid)?,
        gid: number("GID", &file.gid)?,
        mode: FileMode::try_from(file.mode).map_err(Failure::invalid)?,
    })
}

/// The secrets of a container.
pub(super) fn secrets_out(c: &ContainerSpec) -> Vec<docker_api::SecretReference> {
    let reference = |r: &SecretReference| docker_api::SecretReference {
        file: Some(file_out(&r.target)),
        secret_id: r.secret_id.to_string(),
        secret_name: r.secret_name.to_string(),
    };
    c.secrets.iter().map(reference).collect()
}

/// The configs of a container.
pub(super) fn configs_out(c: &ContainerSpec) -> Vec<docker_api::ConfigReference> {
    let reference = |r: &ConfigReference| docker_api::ConfigReference {
        file: match &r.target {
            ConfigTarget::File(file) => Some(file_out(file)),
            ConfigTarget::Runtime => None,
        },
        runtime: (r.target == ConfigTarget::Runtime).then(|| serde_json::json!({})),
        config_id: r.config_id.to_string(),
        config_name: r.config_name.to_string(),
    };
    c.configs.iter().map(reference).collect()
}

fn file_out(f: &FileTarget) -> docker_api::FileTarget {
    docker_api::FileTarget {
        name: f.path.to_string(),
        uid: f.uid.to_string(),
        gid: f.gid.to_string(),
        mode: f.mode.bits(),
    }
}
