//! What openraft is told about us.

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use openraft_rt::{AsyncRuntime, OptionalSend};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// A member of the Raft group, as the log records it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {
    /// `host:port` at which other managers reach it.
    pub addr: String,
    /// The cluster node id in its certificate, which the transport verifies.
    pub node_id: String,
}

/// openraft's type parameters, for one runtime.
pub(crate) struct TypeConfig<RT>(PhantomData<fn() -> RT>);

/// An opaque command.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

/// What the state machine answered to a command (empty for entries that carry none).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Response(pub(crate) Bytes);

pub(crate) type NodeId = u64;
/// One leader for each term, as in the Raft paper.
pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>;
type Payload = openraft::EntryPayload<Command, NodeId, Member>;
pub(crate) type LogId<RT> = LogIdOf<TypeConfig<RT>>;
pub(crate) type Vote<RT> = VoteOf<TypeConfig<RT>>;
pub(crate) type Entry<RT> = EntryOf<TypeConfig<RT>>;
pub(crate) type SnapshotMeta<RT> = SnapshotMetaOf<TypeConfig<RT>>;
pub(crate) type Snapshot<RT> = SnapshotOf<TypeConfig<RT>, Bytes>;
pub(crate) type StoredMembership<RT> = StoredMembershipOf<TypeConfig<RT>>;

// === impl TypeConfig ===

impl<RT: AsyncRuntime> RaftTypeConfig for TypeConfig<RT> {
    type D = Command;
    type R = Response;
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = Payload;
    type Entry = openraft::Entry<<LeaderId as openraft::vote::RaftLeaderId>::Committed, Payload>;
    type AsyncRuntime = RT;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

// Written out, because deriving would ask the runtime for the same traits.
impl<RT> fmt::Debug for TypeConfig<RT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypeConfig")
    }
}
impl<RT> Clone for TypeConfig<RT> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<RT> Copy for TypeConfig<RT> {}
impl<RT> Default for TypeConfig<RT> {
    fn default() -> Self {
        TypeConfig(PhantomData)
    }
}
impl<RT> PartialEq for TypeConfig<RT> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<RT> Eq for TypeConfig<RT> {}
impl<RT> PartialOrd for TypeConfig<RT> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<RT> Ord for TypeConfig<RT> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

// === impl Command ===

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A command may hold a secret: only its size may reach a log.
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl Serialize for Command {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_byte_buf(ByteBuf).map(|b| Command(b.into()))
    }
}

// === impl Response ===

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Response {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_byte_buf(ByteBuf).map(|b| Response(b.into()))
    }
}

/// Reads MessagePack's binary type; serde's own `Vec<u8>` would expect a sequence of numbers.
struct ByteBuf;

impl serde::de::Visitor<'_> for ByteBuf {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, v: &[u8]) -> Result<Vec<u8>, E> {
        Ok(v.to_vec())
    }

    fn visit_byte_buf<E: serde::de::Error>(self, v: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(v)
    }
}

/// Encodes what crosses between managers or reaches the disk: MessagePack with field names, so that fields can be added.
pub(crate) fn encode<T: Serialize>(value: &T) -> std::io::Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))
}

/// Decodes [`encode`]'s bytes; the error says what was being read.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(what: &str, bytes: &[u8]) -> std::io::Result<T> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    // A reader recurses, and its stack has an end. Our deepest message has about fifteen levels.
    reader.set_max_depth(64);
    T::deserialize(&mut reader).map_err(|e| {
        let text = format!("cannot decode {what} ({} bytes): {e}", bytes.len());
        std::io::Error::new(std::io::ErrorKind::InvalidData, text)
    })
}
