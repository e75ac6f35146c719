//! Constraint expressions: what a node must be like (SwarmKit manager/constraint).

use crate::{Node, NodeDescription, Role};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// One condition on a node, `node.labels.disk == ssd` for example.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Constraint {
    /// What is asked of the node.
    key: String,
    /// `==`, or else `!=`.
    equal: bool,
    /// What it is compared with.
    value: String,
    /// As the user wrote it: it is shown again so.
    text: String,
}

/// Text that is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConstraint {
    /// Neither `==` nor `!=`.
    #[error("constraint expected one operator from ==, !=")]
    NoOperator,
    /// The left side.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The right side.
    #[error("value '{0}' is invalid")]
    Value(String),
}

// === impl Constraint ===

impl Constraint {
    /// What is asked of the node, such as `node.labels.disk`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// True for `==`, false for `!=`.
    pub fn is_equal(&self) -> bool {
        self.equal
    }

    /// What it is compared with.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// True when the node is as the constraint asks. A key that nobody knows asks for what no node has, whatever the operator.
    pub fn is_met_by(&self, node: &Node) -> bool {
        match &Subject::of(&self.key) {
            Subject::Ip => self.is_met_by_address(&node.status.addr),
            Subject::Unknown => false,
            subject => self.value.eq_ignore_ascii_case(subject.of_node(node)) == self.equal,
        }
    }

    /// What the node has under the key, for people; `None` when the key means nothing.
    pub fn found_on<'a>(&self, node: &'a Node) -> Option<&'a str> {
        match Subject::of(&self.key) {
            Subject::Unknown => None,
            subject => Some(subject.of_node(node)),
        }
    }

    /// The value is an address or a network; anything else is met by no node.
    fn is_met_by_address(&self, address: &str) -> bool {
        let address: Option<IpAddr> = address.parse().ok().map(canonical);
        if let Ok(wanted) = self.value.parse::<IpAddr>() {
            return (address == Some(canonical(wanted))) == self.equal;
        }
        Network::parse(&self.value).is_some_and(|n| address.is_some_and(|a| n.contains(a)) == self.equal)
    }
}

/// What a key of a constraint or a preference speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    Id,
    Hostname,
    Ip,
    Role,
    Os,
    Arch,
    /// A label that a user gave the node.
    NodeLabel(&'a str),
    /// A label of the node's engine.
    EngineLabel(&'a str),
    Unknown,
}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// Keys are compared without case, the labels in them with it.
    pub(crate) fn of(key: &'a str) -> Subject<'a> {
        if let Some(label) = after(key, "node.labels.") {
            return Subject::NodeLabel(label);
        }
        if let Some(label) = after(key, "engine.labels.") {
            return Subject::EngineLabel(label);
        }
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Subject::Id,
            "node.hostname" => Subject::Hostname,
            "node.ip" => Subject::Ip,
            "node.role" => Subject::Role,
            "node.platform.os" => Subject::Os,
            "node.platform.arch" => Subject::Arch,
            _ => Subject::Unknown,
        }
    }

    /// What the node has there; nothing at all is the empty text.
    pub(crate) fn of_node<'n>(&self, node: &'n Node) -> &'n str {
        let described = |f: fn(&NodeDescription) -> &str| node.description.as_ref().map_or("", f);
        match self {
            Subject::Id => node.id.as_str(),
            Subject::Hostname => described(|d| &d.hostname),
            Subject::Ip => &node.status.addr,
            Subject::Role => match node.spec.role {
                Role::Manager => "manager",
                Role::Worker => "worker",
            },
            Subject::Os => described(|d| &d.platform.os),
            Subject::Arch => described(|d| &d.platform.architecture),
            Subject::NodeLabel(label) => node.spec.labels.get(*label).map_or("", String::as_str),
            Subject::EngineLabel(label) => {
                let labels = node.description.as_ref().map(|d| &d.engine.labels);
                labels.and_then(|l| l.get(*label)).map_or("", String::as_str)
            }
            Subject::Unknown => "",
        }
    }
}

/// What follows the prefix, if that is something.
fn after<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, label) = key.split_at_checked(prefix.len())?;
    (head.eq_ignore_ascii_case(prefix) && !label.is_empty()).then_some(label)
}

/// An IPv4 address that came in IPv6's clothes is the IPv4 address.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A network in CIDR form.
struct Network {
    address: IpAddr,
    prefix: u32,
}

// === impl Network ===

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|p| digits && *p <= bits)?;
        Some(Network { address, prefix })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(n), IpAddr::V4(a)) => {
                (n.to_bits() ^ a.to_bits()).checked_shr(32 - self.prefix).is_none_or(|differs| differs == 0)
            }
            (IpAddr::V6(n), IpAddr::V6(a)) => {
                (n.to_bits() ^ a.to_bits()).checked_shr(128 - self.prefix).is_none_or(|differs| differs == 0)
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Constraint {
    type Err = InvalidConstraint;
    fn from_str(text: &str) -> Result<Self, InvalidConstraint> {
        // `==` is looked for first, wherever it is: what is left of it is then no key.
        let (equal, key, value) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((k, v)), _) => (true, k, v),
            (None, Some((k, v))) => (false, k, v),
            (None, None) => return Err(InvalidConstraint::NoOperator),
        };
        let (key, value) = (key.trim(), value.trim());
        let in_key = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let starts = key.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || key.len() < 2 || !key.bytes().all(in_key) {
            return Err(InvalidConstraint::Key(key.into()));
        }
        let in_value =
            |b: u8| b.is_ascii_alphanumeric() || b.is_ascii_whitespace() || b":-_.*()?+[]\\^$|/".contains(&b);
        if value.is_empty() || !value.bytes().all(in_value) {
            return Err(InvalidConstraint::Value(value.into()));
        }
        Ok(Constraint { key: key.into(), equal, value: value.into(), text: text.into() })
    }
}

impl TryFrom<String> for Constraint {
    type Error = InvalidConstraint;
    fn try_from(text: String) -> Result<Self, InvalidConstraint> {
        text.parse()
    }
}

impl From<Constraint> for String {
    fn from(c: Constraint) -> String {
        c.text
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineDescription, Meta, NodeSpec, NodeStatus, Platform};

    fn node() -> Node {
        Node {
            id: "n".repeat(25).parse().unwrap(),
            meta: Meta::default(),
            spec: NodeSpec {
                labels: [("disk".into(), "ssd".into()), ("Zone".into(), "A".into())].into(),
                role: Role::Manager,
                ..NodeSpec::default()
            },
            description: Some(NodeDescription {
                hostname: "Alpha".into(),
                platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
                engine: EngineDescription {
                    labels: [("storage".into(), "zfs".into())].into(),
                    ..EngineDescription::default()
                },
                ..NodeDescription::default()
            }),
            status: NodeStatus { addr: "192.168.7.9".into(), ..NodeStatus::default() },
            manager: None,
        }
    }

    fn met(text: &str, node: &Node) -> bool {
        text.parse::<Constraint>().unwrap().is_met_by(node)
    }

    #[test]
    fn what_a_constraint_asks_of_a_node() {
        let n = node();
        for (text, expected) in [
            ("node.id == nnnnnnnnnnnnnnnnnnnnnnnnn", true),
            ("node.id != nnnnnnnnnnnnnnnnnnnnnnnnn", false),
            ("node.hostname==alpha", true),
            ("NODE.Hostname == ALPHA", true),
            ("node.hostname!=beta", true),
            ("node.role==manager", true),
            ("node.role == Worker", false),
            ("node.role!=worker", true),
            ("node.platform.os==linux", true),
            ("node.platform.arch==x86_64", true),
            ("node.platform.arch==amd64", false), // Docker compares words here, and translates them for images only
            ("node.labels.disk==SSD", true),
            ("node.labels.disk!=ssd", false),
            ("Node.Labels.disk==ssd", true),
            ("node.labels.Disk==ssd", false), // the label itself is compared with case
            ("node.labels.zone==a", false),
            ("node.labels.none==x", false),
            ("node.labels.none!=x", true),
            ("engine.labels.storage==zfs", true),
            ("engine.labels.storage!=zfs", false),
            ("engine.labels.none!=zfs", true),
            // A key that nobody knows.
            ("node.colour==red", false),
            ("node.colour!=red", false),
            ("node.labels.==red", false),
            // Addresses and networks.
            ("node.ip==192.168.7.9", true),
            ("node.ip!=192.168.7.9", false),
            ("node.ip==192.168.7.8", false),
            ("node.ip==192.168.7.0/24", true),
            ("node.ip!=192.168.7.0/24", false),
            ("node.ip==192.168.6.0/24", false),
            ("node.ip==10.1.2.3/0", true),
            ("node.ip==192.168.7.9/32", true),
            ("node.ip==2001:db8::2", false),
            ("node.ip!=2001:db8::/32", true),
            ("node.ip==::ffff:192.168.7.9", true),
            ("node.ip==192.168.7.9/33", false),
            ("node.ip!=192.168.7.9/33", false),
            ("node.ip!=somewhere", false),
        ] {
            assert_eq!(met(text, &n), expected, "{text}");
        }
    }

    #[test]
    fn a_node_that_said_nothing_of_itself_has_nothing() {
        let n = Node { description: None, status: NodeStatus::default(), ..node() };
        for (text, expected) in [
            ("node.hostname==alpha", false),
            ("node.hostname!=alpha", true),
            ("node.platform.os!=linux", true),
            ("engine.labels.storage!=zfs", true),
            ("node.ip!=10.0.0.0/8", true),
            ("node.ip==10.0.0.0/8", false),
        ] {
            assert_eq!(met(text, &n), expected, "{text}");
        }
    }

    #[test]
    fn text_that_is_no_constraint_is_refused_in_docker_s_words() {
        for (text, error) in [
            ("node.role", "constraint expected one operator from ==, !="),
            ("", "constraint expected one operator from ==, !="),
            ("== manager", "key '' is invalid"),
            ("1node==x", "key '1node' is invalid"),
            ("n==x", "key 'n' is invalid"),
            ("no de==x", "key 'no de' is invalid"),
            ("a1!=b1==c", "key 'a1!=b1' is invalid"),
            ("node.role==", "value '' is invalid"),
            ("node.role==a=b", "value 'a=b' is invalid"),
            ("node.role == <manager>", "value '<manager>' is invalid"),
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap_err().to_string(), error, "{text}");
        }
        let kept: Constraint = " node.labels.os ==  ubuntu 22.04 ".parse().unwrap();
        assert_eq!((kept.key(), kept.is_equal(), kept.value()), ("node.labels.os", true, "ubuntu 22.04"));
        assert_eq!(kept.to_string(), " node.labels.os ==  ubuntu 22.04 ", "it is shown as it was written");
    }
}
