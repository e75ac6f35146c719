//! `--publish`: published ports, in the short and in the long form.

use docker_api::PortConfig;
use std::ops::RangeInclusive;

/// The ports that one flag publishes: a range gives several.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ports(pub(crate) Vec<PortConfig>);

/// Parses `8080:80`, `8080-8082:80-82/udp`, `80`, or `published=8080,target=80,protocol=tcp,mode=host`.
pub(crate) fn port(text: &str) -> Result<Ports, String> {
    if text.contains('=') { long(text) } else { short(text) }
}

fn long(text: &str) -> Result<Ports, String> {
    let (mut target, mut published) = (None, None);
    let (mut protocol, mut mode) = ("tcp".to_owned(), "ingress".to_owned());
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field: {field}"))?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_ascii_lowercase());
        match key.as_str() {
            "protocol" => protocol = known_protocol(&value)?,
            "mode" if value == "ingress" || value == "host" => mode = value,
            "mode" => return Err(format!("invalid publish mode value ({value}): must be either 'ingress' or 'host'")),
            "target" => {
                target = Some(
                    range(&value).map_err(|_| format!("invalid target port ({value}): value must be an integer"))?,
                )
            }
            "published" => {
                published = Some(
                    range(&value).map_err(|_| format!("invalid published port ({value}): value must be an integer"))?,
                );
            }
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    let target = target.ok_or_else(|| format!("invalid port publish, target is required: {text}"))?;
    pair(published, target, &protocol, &mode)
        .ok_or_else(|| format!("invalid port range in {text}: published and target must be of equal length"))
}

fn short(text: &str) -> Result<Ports, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = known_protocol(&protocol.to_ascii_lowercase())?;
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, target)) => (Some(published), target),
        None => (None, ports),
    };
    if published.is_some_and(|p| p.contains(':') || p.parse::<std::net::IpAddr>().is_ok()) {
        return Err(format!(
            "hostip is not supported: a service's port is published on every address of a node: {text}"
        ));
    }
    let target = range(target).map_err(|()| format!("invalid containerPort: {target}"))?;
    let published = match published {
        None | Some("") => None,
        Some(published) => Some(range(published).map_err(|()| format!("invalid hostPort: {published}"))?),
    };
    pair(published, target, &protocol, "ingress")
        .ok_or_else(|| format!("invalid ranges specified for container and host Ports: {text}"))
}

fn known_protocol(protocol: &str) -> Result<String, String> {
    match protocol {
        "tcp" | "udp" | "sctp" => Ok(protocol.to_owned()),
        _ => Err(format!("invalid protocol value {protocol}: must be tcp, udp or sctp")),
    }
}

fn range(text: &str) -> Result<RangeInclusive<u32>, ()> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|n| digits && *n > 0).map(u32::from).ok_or(())
    };
    let (first, last) = (port(first)?, port(last)?);
    if first <= last { Ok(first..=last) } else { Err(()) }
}

fn pair(
    published: Option<RangeInclusive<u32>>,
    target: RangeInclusive<u32>,
    protocol: &str,
    mode: &str,
) -> Option<Ports> {
    let targets: Vec<u32> = target.collect();
    let published: Vec<u32> = match published {
        None => vec![0; targets.len()],
        Some(range) => range.collect(),
    };
    (published.len() == targets.len()).then(|| {
        let ports = published.into_iter().zip(targets).map(|(published_port, target_port)| PortConfig {
            protocol: protocol.to_owned(),
            target_port,
            published_port,
            publish_mode: mode.to_owned(),
            ..PortConfig::default()
        });
        Ports(ports.collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let show = |p: &PortConfig| format!("{}:{}/{} {}", p.published_port, p.target_port, p.protocol, p.publish_mode);
        port(text).map(|ports| ports.0.iter().map(show).collect())
    }

    #[test]
    fn both_forms_publish_the_same_ports() {
        for (text, want) in [
            ("8080:80", vec!["8080:80/tcp ingress"]),
            ("53:53/udp", vec!["53:53/udp ingress"]),
            ("80", vec!["0:80/tcp ingress"]),
            ("8080-8081:80-81", vec!["8080:80/tcp ingress", "8081:81/tcp ingress"]),
            ("published=8080,target=80,mode=host", vec!["8080:80/tcp host"]),
            ("target=80,protocol=UDP", vec!["0:80/udp ingress"]),
        ] {
            assert_eq!(shown(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn bad_ports_are_refused_in_dockers_words() {
        assert_eq!(shown("foo").unwrap_err(), "invalid containerPort: foo");
        assert_eq!(shown("80:x").unwrap_err(), "invalid containerPort: x");
        for bad in [
            "",
            ":",
            "0:80",
            "1:70000",
            "80:80/foo",
            "1-2:3",
            "9-1:1-9",
            "127.0.0.1:80:80",
            "published=80",
            "target=x",
            "target=1,mode=x",
            "x=1",
            "target=1,x",
        ] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
