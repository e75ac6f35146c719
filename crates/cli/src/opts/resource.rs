//! What a task may use: generic resources, swap, devices, GPUs, credentials.

use super::{bytes, int, uint};
use docker_api::{CredentialSpec, DiscreteGenericResource, GenericResource};

/// The most devices of one service: a host has fewer.
const GPUS_MAX: u64 = 1024;

/// `KIND=N`, looked at one by one; [`generic_resources`] looks at all together, as Docker does.
pub(crate) fn generic_resource(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("invalid generic-resource format `{text}` expected `name=value`")),
    }
}

/// The resources that several flags name: counted ones only, each once.
pub(crate) fn generic_resources(texts: &[String]) -> Result<Vec<GenericResource>, String> {
    let cannot =
        |why: String| format!("invalid generic resource specification: could not parse GenericResource: {why}");
    let mut seen: Vec<(&str, Vec<&str>)> = Vec::new();
    for text in texts {
        let parts = text.split_once('=').filter(|(_, value)| !value.contains(['=', ',']));
        let (kind, value) =
            parts.ok_or_else(|| cannot(format!("incorrect term {text}, missing '=' or malformed expression")))?;
        match seen.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, values)) => values.push(value),
            None => seen.push((kind, vec![value])),
        }
    }
    seen.iter().map(|(kind, values)| counted(kind, values).map_err(|e| e.unwrap_or_else(cannot))).collect()
}

/// One counted resource. An error is a whole text, or a reason why the flags cannot be read.
fn counted(kind: &str, values: &[&str]) -> Result<GenericResource, Worded> {
    let counts = || values.iter().filter_map(|v| int(v).ok());
    match (values, counts().next()) {
        ([_], Some(value)) if value < 0 => Err(Worded::Reason(format!("cannot ask for negative resource {kind}"))),
        ([_], Some(value)) => {
            let discrete = DiscreteGenericResource { kind: kind.to_owned(), value };
            Ok(GenericResource { discrete: Some(discrete), ..GenericResource::default() })
        }
        (_, Some(_)) => {
            let all = values.join(" ");
            Err(Worded::Reason(format!("mixed discrete and named resources in expression '{kind}=[{all}]'")))
        }
        (values, None) => {
            let first = values.first().copied().unwrap_or_default();
            Err(Worded::Whole(format!(
                "invalid generic-resource request `{kind}={first}`, Named Generic Resources is not supported for service \
                 create or update"
            )))
        }
    }
}

/// An error's text, or a part of one.
enum Worded {
    Whole(String),
    Reason(String),
}

// === impl Worded ===

impl Worded {
    fn unwrap_or_else(self, around: impl FnOnce(String) -> String) -> String {
        match self {
            Worded::Whole(text) => text,
            Worded::Reason(why) => around(why),
        }
    }
}

/// Bytes of swap; -1 for any amount.
pub(crate) fn swap_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// `config://NAME`, `file://PATH` or `registry://VALUE`; nothing for none. A config's name stands where its id belongs.
pub(crate) fn credential_spec(text: &str) -> Result<CredentialSpec, String> {
    let mut spec = CredentialSpec::default();
    match text.split_once("://") {
        Some(("config", name)) => spec.config = name.to_owned(),
        Some(("file", path)) => spec.file = path.to_owned(),
        Some(("registry", value)) => spec.registry = value.to_owned(),
        _ if text.is_empty() => {}
        _ => {
            return Err(
                "invalid credential spec: value must be prefixed with \"config://\", \"file://\", or \"registry://\""
                    .to_owned(),
            );
        }
    }
    Ok(spec)
}

/// `/dev/x[:/dev/y[:rwm]]`, as it was written: it goes into a label, where a comma parts two of them.
pub(crate) fn device(text: &str) -> Result<String, String> {
    let bad = || format!("bad format for path: {text}: it is /dev/x, /dev/x:/dev/y or /dev/x:/dev/y:rwm");
    let parts: Vec<&str> = text.split(':').collect();
    let modes = |m: &str| !m.is_empty() && m.chars().all(|c| "rwm".contains(c));
    let good = match parts.as_slice() {
        [host] => host.starts_with('/'),
        [host, inside] => host.starts_with('/') && (inside.starts_with('/') || modes(inside)),
        [host, inside, mode] => host.starts_with('/') && inside.starts_with('/') && modes(mode),
        _ => false,
    };
    if good && !text.contains(',') { Ok(text.to_owned()) } else { Err(bad()) }
}

/// `all`, a number, or `device=ID,ID`.
pub(crate) fn gpus(text: &str) -> Result<(), String> {
    let ids = |ids: &str| ids.split(',').all(|id| !id.trim().is_empty());
    let good = text == "all"
        || text.strip_prefix("device=").is_some_and(ids)
        || uint(text).is_ok_and(|n| (1..=GPUS_MAX).contains(&n));
    if good { Ok(()) } else { Err(format!("{text:?} is no request for GPUs: it is all, a number, or device=ID,ID")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resources(texts: &[&str]) -> Result<serde_json::Value, String> {
        let texts = texts.iter().map(|t| generic_resource(t)).collect::<Result<Vec<_>, _>>()?;
        generic_resources(&texts).map(|r| serde_json::to_value(r).unwrap())
    }

    #[test]
    fn generic_resources_become_the_json_that_docker_sends() {
        assert_eq!(
            resources(&["gpu=2", "ssd=1"]),
            Ok(
                json!([{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}, {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 1}}])
            )
        );
        let invalid = "invalid generic resource specification: could not parse GenericResource: ";
        let named = "Named Generic Resources is not supported for service create or update";
        for (texts, want) in [
            (&["x"] as &[&str], "invalid generic-resource format `x` expected `name=value`".to_owned()),
            (&["gpu=UUID1"], format!("invalid generic-resource request `gpu=UUID1`, {named}")),
            (&["gpu="], format!("invalid generic-resource request `gpu=`, {named}")),
            (&["gpu=a", "gpu=b"], format!("invalid generic-resource request `gpu=a`, {named}")),
            (&["gpu=1", "gpu=2"], format!("{invalid}mixed discrete and named resources in expression 'gpu=[1 2]'")),
            (&["gpu=-1"], format!("{invalid}cannot ask for negative resource gpu")),
            (&["gpu=a=b"], format!("{invalid}incorrect term gpu=a=b, missing '=' or malformed expression")),
        ] {
            assert_eq!(resources(texts), Err(want), "{texts:?}");
        }
    }

    #[test]
    fn swap_credentials_devices_and_gpus_are_read() {
        assert_eq!((swap_bytes("-1"), swap_bytes("1g")), (Ok(-1), Ok(1 << 30)));
        assert!(swap_bytes("-2").is_err());
        assert_eq!(credential_spec("config://c").unwrap().config, "c");
        assert_eq!(credential_spec("file://f").unwrap().file, "f");
        assert_eq!(credential_spec("registry://r").unwrap().registry, "r");
        assert_eq!(credential_spec(""), Ok(CredentialSpec::default()));
        assert!(credential_spec("x").unwrap_err().starts_with("invalid credential spec: "));
        for good in ["/dev/x", "/dev/x:/dev/y", "/dev/x:/dev/y:r", "/dev/x:rwm"] {
            assert_eq!(device(good).as_deref(), Ok(good));
        }
        for bad in ["", "dev/x", "/dev/x:y", "/dev/x:/y:z", "/dev/x:/y:r:w", "/dev/x,/dev/y"] {
            assert!(device(bad).is_err(), "{bad}");
        }
        for (text, good) in
            [("all", true), ("2", true), ("device=0,1", true), ("0", false), ("device=", false), ("x", false)]
        {
            assert_eq!(gpus(text).is_ok(), good, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(text in "\\PC{0,30}", near in "(/dev/|gpu=|device=|config://|-)?[a-z0-9=,:/é-]{0,20}") {
            for text in [&text, &near] {
                let _ = (generic_resources(&[text.clone(), near.clone()]), device(text), gpus(text), swap_bytes(text), credential_spec(text));
            }
        }
    }
}
