//! Messages that must not show all that they carry: neither a log nor an error prints keys or the data of secrets.

use crate::proto::ca::{GossipKey as JoinersGossipKey, IssueNodeCertificateRequest};
use crate::proto::cluster::ProposeRequest;
use crate::proto::dispatcher::assignments_message::Kind;
use crate::proto::dispatcher::{AssignmentsMessage, GossipKey};
use crate::proto::exec::{AgentMessage, Create, ManagerMessage, agent_message, manager_message};
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

// What is typed into a terminal, and what it shows, is nobody else's business.

impl fmt::Debug for Create {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Create").field("container_id", &self.container_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for ManagerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManagerMessage").field(&self.body).finish()
    }
}

impl fmt::Debug for manager_message::Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use manager_message::Body;
        match self {
            Body::NodeId(node) => write!(f, "NodeId({node})"),
            Body::Call(call) => write!(f, "Call({})", call.id),
            Body::Input(bytes) => write!(f, "Input({} bytes)", bytes.len()),
            Body::InputEnd(_) => f.write_str("InputEnd"),
        }
    }
}

impl fmt::Debug for AgentMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AgentMessage").field(&self.body).finish()
    }
}

impl fmt::Debug for agent_message::Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use agent_message::Body;
        match self {
            Body::CallId(id) => write!(f, "CallId({id})"),
            Body::Failure(failure) => write!(f, "{failure:?}"),
            Body::Container(json) => write!(f, "Container({} bytes)", json.len()),
            Body::Created(id) => write!(f, "Created({id})"),
            Body::Started(_) => f.write_str("Started"),
            Body::State(state) => write!(f, "State(running {}, {:?})", state.running, state.exit_code),
            Body::Resized(_) => f.write_str("Resized"),
            Body::Output(bytes) => write!(f, "Output({} bytes)", bytes.len()),
            Body::End(_) => f.write_str("End"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nor_is_what_goes_through_a_terminal() {
        let secret = b"hunter2".to_vec();
        let env = vec!["PASSWORD=hunter2".to_owned()];
        let shown = [
            format!("{:?}", Create { env, command: vec!["hunter2".into()], ..Default::default() }),
            format!("{:?}", ManagerMessage { body: Some(manager_message::Body::Input(secret.clone())) }),
            format!("{:?}", AgentMessage { body: Some(agent_message::Body::Output(secret.clone())) }),
            format!("{:?}", AgentMessage { body: Some(agent_message::Body::Container(secret)) }),
        ];
        assert!(shown.iter().all(|s| !s.contains("hunter2") && !s.contains("104, 117")), "{shown:?}");
    }

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
