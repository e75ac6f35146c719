//! Values of flags: from a word on the command line to what the API wants, with Docker's words for what is wrong.

mod external_ca;
mod file_reference;
mod mount;
mod network;
mod port;
mod resource;
mod words;

pub(crate) use external_ca::{ExternalCaFlag, external_ca, external_cas};
pub(crate) use file_reference::{config, secret};
pub(crate) use mount::mount;
pub(crate) use network::{dns_search, network};
pub(crate) use port::{Ports, port};
pub(crate) use resource::{credential_spec, device, generic_resource, generic_resources, gpus, swap_bytes};
pub(crate) use words::words;

use crate::format::size;
use docker_api::{GoDuration, PlacementPreference, SpreadOver, Ulimit};
use std::collections::BTreeMap;

/// A boolean, as Go's `strconv.ParseBool` reads it.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// A number from 0 on, as Go's `strconv.ParseUint` reads it where the base is the text's to say: `0x10` is 16, `010` is 8.
pub(crate) fn uint(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| lower.strip_prefix(prefix).filter(|d| !d.is_empty()).map(|d| (d, radix)));
    let (digits, radix) = prefixed.unwrap_or((&lower, 10));
    // Rust's own parser would take a sign.
    let are_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    let reason = if are_digits { "value out of range" } else { "invalid syntax" };
    let number = if are_digits { u64::from_str_radix(digits, radix).ok() } else { None };
    number.ok_or_else(|| format!("strconv.ParseUint: parsing {text:?}: {reason}"))
}

/// A whole number, as Go's `strconv.ParseInt` reads it.
pub(crate) fn int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
}

/// A number from 0 to 1.
pub(crate) fn ratio(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        Ok(_) => Err("must be between 0 and 1".to_owned()),
        Err(_) => Err(format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
    }
}

/// A duration that is not negative.
pub(crate) fn duration(text: &str) -> Result<GoDuration, String> {
    match text.parse::<GoDuration>() {
        Ok(duration) if duration.0 >= 0 => Ok(duration),
        Ok(_) => Err("duration must not be negative".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// A duration of a health check: Docker wants at least a millisecond, or 0 to inherit.
pub(crate) fn health_duration(text: &str) -> Result<GoDuration, String> {
    match duration(text)? {
        GoDuration(1..1_000_000) => Err("duration must be at least 1ms".to_owned()),
        duration => Ok(duration),
    }
}

/// CPUs, as billionths of one.
pub(crate) fn cpus(text: &str) -> Result<i64, String> {
    let rational = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(rational());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| rational())? };
    let fraction: i64 = format!("{fraction:0<9}").parse().map_err(|_| rational())?;
    whole.checked_mul(1_000_000_000).and_then(|nanos| nanos.checked_add(fraction)).ok_or_else(rational)
}

/// Bytes.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    size::parse(text).map_err(|e| e.to_string())
}

/// `key` or `key=value`. A label may not be without a key.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    if key.contains(char::is_whitespace) {
        return Err(format!("label '{key}' contains whitespaces"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `KEY=value`, or `KEY` for the value it has here (and to unset it when it has none).
pub(crate) fn env(text: &str) -> Result<String, String> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err(format!("invalid environment variable: {text}"));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(std::env::var(name).map(|value| format!("{name}={value}")).unwrap_or_else(|_| name.to_owned()))
}

/// The lines of an `--env-file`.
pub(crate) fn env_file(text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(|line| line.trim_start()).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let name = line.split('=').next().unwrap_or_default();
            if name.contains(char::is_whitespace) {
                return Err(format!("variable '{name}' contains whitespaces"));
            }
            env(line)
        })
        .filter(|line| line.as_ref().map_or(true, |l| l.contains('=')))
        .collect()
}

/// `host:ip`, as the line of `/etc/hosts` that the API wants.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let (name, ip) = text
        .split_once(['=', ':'])
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let address = ip.trim_start_matches('[').trim_end_matches(']');
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {ip:?}"));
    }
    Ok(format!("{address} {name}"))
}

/// An IP address.
pub(crate) fn ip(text: &str) -> Result<String, String> {
    text.trim().parse::<std::net::IpAddr>().map(|ip| ip.to_string()).map_err(|_| format!("{text} is not an ip address"))
}

/// `name=soft[:hard]`.
pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    const NAMES: [&str; 15] = [
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ];
    let bad = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').filter(|(_, limits)| !limits.is_empty()).ok_or_else(bad)?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (int(soft)?, int(hard)?);
    // -1 is no limit.
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// A capability, in the one form in which it can be compared.
pub(crate) fn capability(text: &str) -> Result<String, String> {
    let name = text.trim().to_ascii_uppercase();
    match name.as_str() {
        "" => Err("a capability cannot be empty".to_owned()),
        "ALL" | "RESET" => Ok(name),
        _ if name.starts_with("CAP_") => Ok(name),
        _ => Ok(format!("CAP_{name}")),
    }
}

/// The words of one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// `spread=node.labels.zone`.
pub(crate) fn preference(text: &str) -> Result<PlacementPreference, String> {
    match text.split_once('=') {
        None | Some(("", _)) => Err("placement preference must be of the format \"<strategy>=<arg>\"".to_owned()),
        Some(("spread", descriptor)) => {
            Ok(PlacementPreference { spread: Some(SpreadOver { spread_descriptor: descriptor.to_owned() }) })
        }
        Some((strategy, _)) => Err(format!("unsupported placement preference {strategy} (only spread is supported)")),
    }
}

/// `active`, `pause` or `drain`.
pub(crate) fn availability(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().as_str() {
        known @ ("active" | "pause" | "drain") => Ok(known.to_owned()),
        _ => Err(format!("invalid availability {text:?}, only active, pause and drain are supported")),
    }
}

/// `name=value` of a filter.
pub(crate) fn filter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("bad format of filter (expected name=value)")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// Filters as the API takes them, in a query; nothing when there is none.
pub(crate) fn filters_query(filters: &[(String, String)]) -> Vec<(&'static str, String)> {
    let mut wire: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for (name, value) in filters {
        wire.entry(name).or_default().insert(value, true);
    }
    let wire = serde_json::json!(wire).to_string();
    if filters.is_empty() { Vec::new() } else { vec![("filters", wire)] }
}

/// Adds labels to a map; the last of a key wins.
pub(crate) fn to_map<'a>(pairs: impl IntoIterator<Item = &'a (String, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_docker_reads_them() {
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus(".25"), Ok(250_000_000));
        assert_eq!(cpus("x").unwrap_err(), "failed to parse x as a rational number");
        assert_eq!(cpus("0.0000000001").unwrap_err(), "value is too precise");
        for bad in ["", ".", "-1", "99999999999", "1.2.3"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
        assert_eq!((uint("0"), uint("0x10"), uint("010"), uint("0b11")), (Ok(0), Ok(16), Ok(8), Ok(3)));
        assert_eq!(uint("08").unwrap_err(), "strconv.ParseUint: parsing \"08\": invalid syntax");
        assert_eq!(uint("-1").unwrap_err(), "strconv.ParseUint: parsing \"-1\": invalid syntax");
        assert_eq!(
            uint("99999999999999999999").unwrap_err(),
            "strconv.ParseUint: parsing \"99999999999999999999\": value out of range"
        );
        assert!(health_duration("1us").is_err() && duration("-1s").is_err() && ratio("1.5").is_err());
        assert_eq!(bytes("x").unwrap_err(), "invalid size: 'x'");
    }

    #[test]
    fn pairs_hosts_and_limits_read_as_docker_reads_them() {
        assert_eq!(label("a"), Ok(("a".to_owned(), String::new())));
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(label("=x").is_err() && label("a b=c").is_err());
        assert_eq!(host("db:10.0.0.1"), Ok("10.0.0.1 db".to_owned()));
        assert_eq!(host("db:fe80::1"), Ok("fe80::1 db".to_owned()));
        assert_eq!(host("foo").unwrap_err(), "bad format for add-host: \"foo\"");
        assert!(host("foo:bar").is_err());
        assert_eq!(ulimit("nofile=10:20"), Ok(Ulimit { name: "nofile".into(), soft: 10, hard: 20 }));
        assert!(ulimit("nofile=20:10").is_err() && ulimit("bogus=1").is_err());
        assert_eq!(ulimit("foo").unwrap_err(), "invalid ulimit argument: foo");
        assert_eq!(capability("net_admin"), Ok("CAP_NET_ADMIN".to_owned()));
        assert_eq!(env("A=1"), Ok("A=1".to_owned()));
        assert_eq!(env("=1").unwrap_err(), "invalid environment variable: =1");
        assert_eq!(env_file("# c\n\nA=1\n B=2\n").unwrap(), ["A=1", "B=2"]);
        assert!(env_file("A B=1").is_err());
    }

    #[test]
    fn filters_travel_as_docker_sends_them() {
        let filters = [filter("name=web").unwrap(), filter("name=db").unwrap(), filter("Label=a=b").unwrap()];
        assert_eq!(filters_query(&filters)[0].1, r#"{"label":{"a=b":true},"name":{"db":true,"web":true}}"#);
        assert!(filters_query(&[]).is_empty());
        assert!(filter("foo").is_err());
    }
}
