//! Ids of commands that run on some node of the swarm.

use model::NodeId;
use std::fmt;
use std::str::FromStr;

/// Characters of an engine's id of a command; Docker's have 64.
const ENGINE_ID_MAX: usize = 128;

/// Where a command runs, and what the engine there calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExecId {
    pub(super) node: NodeId,
    pub(super) exec: String,
}

/// Text that is no such id: perhaps one of the local engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOurs;

// === impl ExecId ===

impl ExecId {
    /// `None` when the engine's id is not like one.
    pub(super) fn new(node: NodeId, exec: String) -> Option<ExecId> {
        let plain = !exec.is_empty() && exec.len() <= ENGINE_ID_MAX && exec.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then_some(ExecId { node, exec })
    }
}

impl FromStr for ExecId {
    type Err = NotOurs;
    fn from_str(text: &str) -> Result<ExecId, NotOurs> {
        let (node, exec) = text.split_once('-').ok_or(NotOurs)?;
        ExecId::new(node.parse().map_err(|_| NotOurs)?, exec.to_owned()).ok_or(NotOurs)
    }
}

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.node, self.exec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_it_is_and_an_engines_own_is_none_of_ours() {
        let text = format!("{}-{}", "n".repeat(25), "0a".repeat(32));
        assert_eq!(text.parse::<ExecId>().map(|id| id.to_string()), Ok(text.clone()));
        for other in [
            String::new(),
            "0a".repeat(32),
            format!("{}-", "n".repeat(25)),
            format!("{}-xyz", "n".repeat(25)),
            format!("{}-{}", "n".repeat(24), "0a".repeat(32)),
            format!("{}-{}", "n".repeat(25), "0a".repeat(100)),
            format!("{}-0a/../..", "n".repeat(25)),
        ] {
            assert_eq!(other.parse::<ExecId>(), Err(NotOurs), "{other}");
        }
    }
}
