//! Security options of a container, both ways.

use docker_api::{AppArmorOptions, Data, Failure, SeLinuxContext, SeccompOptions};
use model::{AppArmor, Privileges, SeLinux, Seccomp};

/// What a user sends. Credentials for Windows were refused before.
pub(super) fn privileges_in(p: docker_api::Privileges) -> Result<Privileges, Failure> {
    Ok(Privileges {
        selinux: p.selinux_context.map(|s| SeLinux {
            disable: s.disable,
            user: s.user,
            role: s.role,
            kind: s.kind,
            level: s.level,
        }),
        seccomp: p.seccomp.map(seccomp).transpose()?,
        apparmor: p.apparmor.map(|a| apparmor(&a)).transpose()?,
        no_new_privileges: p.no_new_privileges,
    })
}

fn seccomp(s: SeccompOptions) -> Result<Seccomp, Failure> {
    let plain = match s.mode.as_str() {
        "" | "default" => Seccomp::Default,
        "unconfined" => Seccomp::Unconfined,
        "custom" => return custom_seccomp(s.profile),
        other => {
            let shown: String = other.chars().take(64).collect();
            return Err(Failure::bad_request(format_args!(
                "invalid Privileges.Seccomp: unknown mode {shown:?}: use default, unconfined or custom"
            )));
        }
    };
    if !s.profile.0.is_empty() {
        return Err(Failure::bad_request(
            "invalid Privileges.Seccomp: a profile is for the mode custom only: leave it out, or say custom",
        ));
    }
    Ok(plain)
}

/// The engine would refuse what is no JSON, on the node, where nobody sees it.
fn custom_seccomp(profile: Data) -> Result<Seccomp, Failure> {
    let is_object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&profile.0).is_ok();
    match String::from_utf8(profile.0) {
        Ok(profile) if is_object => Ok(Seccomp::Custom(profile)),
        _ => Err(Failure::bad_request(
            "invalid Privileges.Seccomp: the mode custom needs a profile: a JSON object in the engine's format, in base64",
        )),
    }
}

fn apparmor(a: &AppArmorOptions) -> Result<AppArmor, Failure> {
    match a.mode.as_str() {
        "" | "default" => Ok(AppArmor::Default),
        "disabled" => Ok(AppArmor::Disabled),
        other => {
            let shown: String = other.chars().take(64).collect();
            Err(Failure::bad_request(format_args!(
                "invalid Privileges.AppArmor: unknown mode {shown:?}: use default or disabled"
            )))
        }
    }
}

/// What a service has.
pub(super) fn privileges_out(p: &Privileges) -> docker_api::Privileges {
    docker_api::Privileges {
        credential_spec: None,
        selinux_context: p.selinux.as_ref().map(|s| SeLinuxContext {
            disable: s.disable,
            user: s.user.clone(),
            role: s.role.clone(),
            kind: s.kind.clone(),
            level: s.level.clone(),
        }),
        seccomp: p.seccomp.as_ref().map(|s| match s {
            Seccomp::Default => SeccompOptions { mode: "default".into(), ..SeccompOptions::default() },
            Seccomp::Unconfined => SeccompOptions { mode: "unconfined".into(), ..SeccompOptions::default() },
            Seccomp::Custom(profile) => {
                SeccompOptions { mode: "custom".into(), profile: Data(profile.clone().into_bytes()) }
            }
        }),
        apparmor: p.apparmor.map(|a| AppArmorOptions {
            mode: match a {
                AppArmor::Default => "default".into(),
                AppArmor::Disabled => "disabled".into(),
            },
        }),
        no_new_privileges: p.no_new_privileges,
    }
}
