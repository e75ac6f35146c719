//! `--secret` and `--config`: which one, and as which file in the container.

use super::mount::fields;
use super::uint;
use docker_api::{ConfigReference, FileTarget, SecretReference};

/// Mode of the file unless the flag says otherwise.
const MODE_DEFAULT: u32 = 0o444;

/// Parses `NAME` or `source=NAME,target=FILE,uid=0,gid=0,mode=0444`. The id is not known yet.
pub(crate) fn secret(text: &str) -> Result<SecretReference, String> {
    let (secret_name, file) = reference(text, "secret")?;
    Ok(SecretReference { file: Some(file), secret_name, secret_id: String::new() })
}

/// The same of a config.
pub(crate) fn config(text: &str) -> Result<ConfigReference, String> {
    let (config_name, file) = reference(text, "config")?;
    Ok(ConfigReference { file: Some(file), config_name, ..ConfigReference::default() })
}

fn reference(text: &str, kind: &str) -> Result<(String, FileTarget), String> {
    let mut file = FileTarget { name: String::new(), uid: "0".into(), gid: "0".into(), mode: MODE_DEFAULT };
    let fields = fields(text)?;
    if let [name] = fields.as_slice()
        && !name.contains('=')
    {
        if name.is_empty() {
            return Err("source is required".to_owned());
        }
        file.name.clone_from(name);
        return Ok((name.clone(), file));
    }
    let mut source = String::new();
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "source" | "src" => source = value.to_owned(),
            "target" => file.name = value.to_owned(),
            "uid" => file.uid = value.to_owned(),
            "gid" => file.gid = value.to_owned(),
            "mode" => file.mode = mode(value)?,
            _ => return Err(format!("invalid field in {kind} request: {key}")),
        }
    }
    if source.is_empty() {
        return Err("source is required".to_owned());
    }
    if file.name.is_empty() {
        file.name.clone_from(&source);
    }
    Ok((source, file))
}

/// A number as Go reads one with a prefix: `0444` and `0o444` are octal, `444` is not.
fn mode(text: &str) -> Result<u32, String> {
    let range = || format!("strconv.ParseUint: parsing {text:?}: value out of range");
    let number = uint(text).and_then(|n| u32::try_from(n).map_err(|_| range()));
    number.map_err(|e| format!("invalid mode specified: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_become_the_json_that_docker_sends() {
        for (text, name, file) in [
            ("db", "db", json!({"Name": "db", "UID": "0", "GID": "0", "Mode": 0o444})),
            ("source=db", "db", json!({"Name": "db", "UID": "0", "GID": "0", "Mode": 0o444})),
            (
                "src=db,target=/a/b,uid=33,gid=44,mode=0400",
                "db",
                json!({"Name": "/a/b", "UID": "33", "GID": "44", "Mode": 0o400}),
            ),
            ("Source=db,MODE=0o440", "db", json!({"Name": "db", "UID": "0", "GID": "0", "Mode": 0o440})),
            // Docker reads it so, too: a mode without a leading zero is decimal.
            ("source=db,mode=444", "db", json!({"Name": "db", "UID": "0", "GID": "0", "Mode": 444})),
            ("source=db,mode=0", "db", json!({"Name": "db", "UID": "0", "GID": "0", "Mode": 0})),
        ] {
            let (s, c) = (secret(text).unwrap(), config(text).unwrap());
            assert_eq!(serde_json::to_value(&s).unwrap(), json!({"SecretName": name, "SecretID": "", "File": file}));
            assert_eq!(serde_json::to_value(&c).unwrap(), json!({"ConfigName": name, "ConfigID": "", "File": file}));
        }
    }

    #[test]
    fn bad_references_are_refused_in_dockers_words() {
        for (text, want) in [
            ("", "source is required"),
            ("target=x", "source is required"),
            ("source=a,b", "invalid field 'b' must be a key=value pair"),
            ("source=a,=b", "invalid field '=b' must be a key=value pair"),
            ("source=a,size=3", "invalid field in secret request: size"),
            ("source=a,mode=rw", "invalid mode specified: strconv.ParseUint: parsing \"rw\": invalid syntax"),
            ("source=a,mode=-1", "invalid mode specified: strconv.ParseUint: parsing \"-1\": invalid syntax"),
            ("source=a,mode=0888", "invalid mode specified: strconv.ParseUint: parsing \"0888\": invalid syntax"),
            (
                "source=a,mode=99999999999",
                "invalid mode specified: strconv.ParseUint: parsing \"99999999999\": value out of range",
            ),
        ] {
            assert_eq!(secret(text).unwrap_err(), want, "{text}");
        }
        assert_eq!(config("source=a,size=3").unwrap_err(), "invalid field in config request: size");
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(text in "[a-z=,\"0-9xob+-]{0,30}") {
            let _ = (secret(&text), config(&text));
        }
    }
}
