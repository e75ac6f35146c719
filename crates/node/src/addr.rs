//! Addresses as users write them (`ip`, `ip:port`, `interface`, `interface:port`) and what they mean on this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The control port, as Docker's.
pub const CONTROL_PORT: u16 = 2377;
/// The gossip port, as Docker's.
pub const GOSSIP_PORT: u16 = 7946;
/// The data path's port, as Docker's.
pub const DATA_PATH_PORT: u16 = 4789;

/// The longest host name (RFC 1035, section 2.3.4).
const HOST_NAME_BYTES_MAX: usize = 253;

/// The addresses of this machine; a seam, because the simulation's machines have others.
pub trait Interfaces: Send + Sync + 'static {
    /// Every address that is up, with its interface's name, loopback included, in a fixed order.
    fn addresses(&self) -> Vec<(String, IpAddr)>;
}

/// An address that cannot be used, with Docker's words where it has some (its clients add what to do).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Neither an address nor an interface.
    #[error(
        "must specify a listening address or interface: `{0}` is neither an IP address nor an interface of this machine"
    )]
    NotFound(String),
    /// A port that is none.
    #[error("invalid port in `{0}`: must be a number from 1 to 65535")]
    Port(String),
    /// More than one address to choose from.
    #[error("could not choose an IP address to advertise since this system has multiple addresses{0}")]
    Ambiguous(String),
    /// No address at all.
    #[error("could not find the system's IP address")]
    NoAddress,
    /// The data path has one port in the whole swarm, so an address of it has none (moby daemon/cluster/listen_addr.go).
    #[error(
        "data path address must be a non-zero IP address or a network interface (without a port number), not `{0}`"
    )]
    DataPath(String),
    /// An advertised address must be one that others can use.
    #[error("advertise address must be a non-zero IP address or network interface (with optional port number)")]
    Unspecified,
}

/// What `text` names on this machine; `default_port` when it has no port.
pub(crate) fn parse(text: &str, default_port: u16, machine: &dyn Interfaces) -> Result<SocketAddr, AddrError> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return if addr.port() == 0 { Err(AddrError::Port(text.into())) } else { Ok(addr) };
    }
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => (host, port),
            _ => return Err(AddrError::Port(text.into())),
        },
        None => (text, default_port),
    };
    let of_interface: Vec<IpAddr> =
        machine.addresses().into_iter().filter(|(name, _)| name == host).map(|(_, ip)| ip).collect();
    // IPv4 first, as Docker does for an interface with both.
    let ip = of_interface.iter().find(|ip| ip.is_ipv4()).or(of_interface.first());
    ip.map(|ip| SocketAddr::new(*ip, port)).ok_or_else(|| AddrError::NotFound(text.into()))
}

/// The address that others should use for a node that listens on `listen`: what the user said, else the listening address
/// if it is a particular one, else the machine's only address.
pub(crate) fn advertise(text: &str, listen: SocketAddr, machine: &dyn Interfaces) -> Result<SocketAddr, AddrError> {
    if !text.is_empty() {
        let addr = parse(text, listen.port(), machine)?;
        return if addr.ip().is_unspecified() { Err(AddrError::Unspecified) } else { Ok(addr) };
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen);
    }
    let mut candidates = machine.addresses();
    // Bridges and virtual pairs that engines make are no way to reach this machine.
    candidates.retain(|(name, ip)| {
        let local = ip.is_loopback() || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let made = ["docker", "br-", "veth", "virbr", "slbr"].iter().any(|prefix| name.starts_with(prefix));
        !local && !made
    });
    if candidates.iter().any(|(_, ip)| ip.is_ipv4()) {
        candidates.retain(|(_, ip)| ip.is_ipv4());
    }
    match candidates.as_slice() {
        [] => Err(AddrError::NoAddress),
        [(_, ip)] => Ok(SocketAddr::new(*ip, listen.port())),
        [(a_name, a), (b_name, b), ..] => {
            let how = if a_name == b_name {
                format!(" on interface {a_name} ({a} and {b})")
            } else {
                format!(" on different interfaces ({a} on {a_name} and {b} on {b_name})")
            };
            Err(AddrError::Ambiguous(how))
        }
    }
}

/// The address that `--data-path-addr` names: an address or an interface, without a port.
pub(crate) fn data_path(text: &str, machine: &dyn Interfaces) -> Result<IpAddr, AddrError> {
    let refused = || AddrError::DataPath(text.into());
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let ip = match bare {
        Ok(ip) => ip,
        // A colon can only begin a port: an interface's name has none.
        Err(_) if text.contains(':') => return Err(refused()),
        Err(_) => parse(text, CONTROL_PORT, machine).map_err(|_| refused())?.ip(),
    };
    if ip.is_unspecified() { Err(refused()) } else { Ok(ip) }
}

/// A host name with its port, when `text` can be one: what names neither an address nor an interface of this machine.
pub(crate) fn host_name(text: &str, default_port: u16) -> Option<(&str, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (text, default_port),
    };
    // RFC 1123, and the underscore that many resolvers bear.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let name = !host.is_empty() && host.len() <= HOST_NAME_BYTES_MAX && host.bytes().all(plain);
    // Digits and dots alone are an address with a mistake in it.
    let meant_as_address = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (name && !meant_as_address).then_some((host, port))
}

/// True when a listening address is the one that clients send when the user said nothing.
pub(crate) fn is_default_listen(text: &str) -> bool {
    text.is_empty() || text == SocketAddr::from((Ipv4Addr::UNSPECIFIED, CONTROL_PORT)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(&'static [(&'static str, &'static str)]);
    impl Interfaces for Machine {
        fn addresses(&self) -> Vec<(String, IpAddr)> {
            self.0.iter().map(|(n, ip)| ((*n).to_owned(), ip.parse().unwrap())).collect()
        }
    }
    const ONE: Machine =
        Machine(&[("lo", "127.0.0.1"), ("eth0", "10.0.0.5"), ("eth0", "fe80::1"), ("docker0", "172.17.0.1")]);
    const TWO: Machine = Machine(&[("eth0", "10.0.0.5"), ("eth1", "192.168.0.9")]);

    #[test]
    fn what_users_write() {
        for (text, expected) in [
            ("10.1.1.1", Ok("10.1.1.1:2377")),
            ("10.1.1.1:99", Ok("10.1.1.1:99")),
            ("eth0", Ok("10.0.0.5:2377")),
            ("eth0:99", Ok("10.0.0.5:99")),
            ("::1", Ok("[::1]:2377")),
            ("eth7", Err(AddrError::NotFound("eth7".into()))),
            ("10.1.1.1:0", Err(AddrError::Port("10.1.1.1:0".into()))),
            ("eth0:x", Err(AddrError::Port("eth0:x".into()))),
        ] {
            assert_eq!(parse(text, CONTROL_PORT, &ONE), expected.map(|a| a.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_data_path_has_an_address_and_no_port() {
        let refused = |text: &str| Err(AddrError::DataPath(text.into()));
        for (text, expected) in [
            ("10.1.1.1", Ok("10.1.1.1".parse().unwrap())),
            ("eth0", Ok("10.0.0.5".parse().unwrap())),
            ("::1", Ok("::1".parse().unwrap())),
            ("[::1]", Ok("::1".parse().unwrap())),
            ("eth7", refused("eth7")),
            ("eth0:4789", refused("eth0:4789")),
            ("10.1.1.1:4789", refused("10.1.1.1:4789")),
            ("0.0.0.0", refused("0.0.0.0")),
            ("::", refused("::")),
        ] {
            assert_eq!(data_path(text, &ONE), expected, "{text}");
        }
    }

    #[test]
    fn what_can_be_a_host_name() {
        let long = "a".repeat(HOST_NAME_BYTES_MAX + 1);
        for (text, expected) in [
            ("m1.example.org", Some(("m1.example.org", 2377))),
            ("m1:99", Some(("m1", 99))),
            ("node_1", Some(("node_1", 2377))),
            ("m1:0", None),
            ("m1:x", None),
            ("m1:99999", None),
            (":2377", None),
            ("", None),
            ("10.0.0.256", None),
            ("http://m1", None),
            ("m 1", None),
            (&long, None),
        ] {
            assert_eq!(host_name(text, CONTROL_PORT), expected, "{text}");
        }
    }

    #[test]
    fn what_is_advertised() {
        let any: SocketAddr = "0.0.0.0:2377".parse().unwrap();
        assert_eq!(advertise("", any, &ONE), Ok("10.0.0.5:2377".parse().unwrap()));
        assert_eq!(advertise("", "127.0.0.3:2377".parse().unwrap(), &TWO), Ok("127.0.0.3:2377".parse().unwrap()));
        assert_eq!(advertise("eth1", any, &TWO), Ok("192.168.0.9:2377".parse().unwrap()));
        assert_eq!(advertise("0.0.0.0", any, &TWO), Err(AddrError::Unspecified));
        assert!(matches!(advertise("", any, &TWO), Err(AddrError::Ambiguous(_))));
        assert_eq!(advertise("", any, &Machine(&[])), Err(AddrError::NoAddress));
    }
}
