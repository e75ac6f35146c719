//! Messages that must not show all that they carry: neither a log nor an error prints keys or the data of secrets.

use crate::proto::ca::{GossipKey as JoinersGossipKey, IssueNodeCertificateRequest};
use crate::proto::cluster::ProposeRequest;
use crate::proto::dispatcher::assignments_message::Kind;
use crate::proto::dispatcher::{AssignmentsMessage, GossipKey};
use crate::proto::raft::{AppendRequest, SnapshotChunk};
use std::fmt;

impl fmt::Debug for AssignmentsMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssignmentsMessage")
            .field("position", &self.position)
            .field("kind", &self.kind())
            .field("follows", &self.follows)
            .field("put", &self.put.len())
            .field("remove", &self.remove)
            .field("grant", &self.grant.len())
            .field("revoke", &self.revoke.len())
            .field("more", &self.more)
            .finish()
    }
}

// What is nested in a message whose `Debug` is not derived has none either.
impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str_name())
    }
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for JoinersGossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKey").field("id", &self.id).finish_non_exhaustive()
    }
}

// It has the join token.
impl fmt::Debug for IssueNodeCertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssueNodeCertificateRequest").field("availability", &self.availability).finish_non_exhaustive()
    }
}

// The state, or a change of it, has all secrets, and the root's key.

impl fmt::Debug for ProposeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProposeRequest").field("bytes", &self.transaction.len()).finish()
    }
}

impl fmt::Debug for AppendRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendRequest").field("bytes", &self.body.len()).finish()
    }
}

impl fmt::Debug for SnapshotChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotChunk").field("offset", &self.offset).field("bytes", &self.data.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_printed() {
        let secret = b"hunter2".to_vec();
        let message =
            AssignmentsMessage { grant: vec![secret.clone()], put: vec![secret.clone()], ..Default::default() };
        let shown = format!("{message:?} {:?}", GossipKey { id: 7, key: secret.clone() });
        assert!(!shown.contains(&format!("{secret:?}")) && !shown.contains("104, 117"), "{shown}");
        assert!(shown.contains("grant: 1") && shown.contains("id: 7"), "{shown}");
    }

    #[test]
    fn neither_are_tokens_keys_and_the_state() {
        let secret = b"hunter2".to_vec();
        let shown = [
            format!("{:?}", JoinersGossipKey { id: 7, key: secret.clone() }),
            format!("{:?}", IssueNodeCertificateRequest { token: "hunter2".into(), ..Default::default() }),
            format!("{:?}", ProposeRequest { transaction: secret.clone() }),
            format!("{:?}", AppendRequest { body: secret.clone() }),
            format!("{:?}", SnapshotChunk { data: secret.clone(), header: secret, ..Default::default() }),
        ];
        assert!(shown.iter().all(|s| !s.contains("hunter2") && !s.contains("104, 117")), "{shown:?}");
    }
}
