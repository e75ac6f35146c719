//! `--network` and `--dns-search`.

use super::mount::fields;
use docker_api::NetworkAttachmentConfig;

/// Longest name of a domain (RFC 1035).
const DOMAIN_CHARS_MAX: usize = 255;

/// Parses `NAME`, or `name=NAME,alias=A,alias=B,driver-opt=KEY=VALUE`. Names are not resolved yet.
pub(crate) fn network(text: &str) -> Result<NetworkAttachmentConfig, String> {
    if !is_long(text) {
        return Ok(NetworkAttachmentConfig { target: text.to_owned(), ..NetworkAttachmentConfig::default() });
    }
    let mut network = NetworkAttachmentConfig::default();
    for field in fields(text)? {
        let lower = field.to_ascii_lowercase();
        let (key, value) = lower.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        let value = value.trim();
        match key.trim() {
            "name" => network.target = value.to_owned(),
            "alias" => network.aliases.push(value.to_owned()),
            "driver-opt" => {
                let (key, value) = value.split_once('=').ok_or("invalid key value pair format in driver options")?;
                network.driver_opts.insert(key.trim().to_owned(), value.trim().to_owned());
            }
            // Known to Docker, but only `docker run` does something with them.
            "ip" | "ip6" | "link-local-ip" | "mac-address" | "gw-priority" => {
                return Err(format!("{} is for containers: a service's tasks cannot share an address", key.trim()));
            }
            key => return Err(format!("invalid field key {key}")),
        }
    }
    if network.target.is_empty() { Err("network name/id is not specified".to_owned()) } else { Ok(network) }
}

/// True for a text with `word=word` in it, which is how Docker tells the long form.
fn is_long(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices('=').any(|(at, _)| text[..at].ends_with(word) && text[at + 1..].starts_with(word))
}

/// A domain to search in; `.` for none.
pub(crate) fn dns_search(text: &str) -> Result<String, String> {
    let domain = text.trim();
    if domain == "." {
        return Ok(domain.to_owned());
    }
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let good = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    if domain.len() <= DOMAIN_CHARS_MAX && domain.split('.').all(good) {
        Ok(domain.to_owned())
    } else {
        Err(format!("{text} is not a valid domain"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn networks_become_the_json_that_docker_sends() {
        for (text, want) in [
            ("n1", json!({"Target": "n1"})),
            ("n1,a", json!({"Target": "n1,a"})),
            (
                "name=n1,alias=a,alias=B,driver-opt=K=v",
                json!({"Target": "n1", "Aliases": ["a", "b"], "DriverOpts": {"k": "v"}}),
            ),
            ("NAME=n1", json!({"Target": "n1"})),
        ] {
            assert_eq!(serde_json::to_value(network(text).unwrap()).unwrap(), want, "{text}");
        }
        for (text, want) in [
            ("name=n1,foo=b", "invalid field key foo"),
            ("alias=b", "network name/id is not specified"),
            ("name=n1,driver-opt=k", "invalid key value pair format in driver options"),
            ("name=n1,ip=1.2.3.4", "ip is for containers: a service's tasks cannot share an address"),
        ] {
            assert_eq!(network(text).unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn a_domain_is_a_domain() {
        assert_eq!(dns_search("."), Ok(".".to_owned()));
        assert_eq!(dns_search("x.example.com."), Ok("x.example.com".to_owned()));
        for bad in ["", "a b", "-a", "a_b", "a..b"] {
            assert_eq!(dns_search(bad), Err(format!("{bad} is not a valid domain")));
        }
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(text in "\\PC{0,30}", field in "[a-z=,.\"é-]{0,30}") {
            let _ = (network(&text), network(&field), dns_search(&text), dns_search(&field));
        }
    }
}
