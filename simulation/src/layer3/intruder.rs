//! Somebody who has copied nodes' keys, old ones too, and tries them at every door (S25–S27): all calls of the authorisation
//! table and some that are not in it, in the name of workers, of managers, of nodes that were demoted or removed since, and
//! with claims about somebody else in the metadata.

use super::machine::Machine;
use super::net::{SimNet, UdpFaults};
use super::user::{Desk, Phase};
use crate::event;
use crate::rng::SeededRand;
use ca::Identity;
use invariants::{Call, Door, Violation, check_call, check_claims};
use model::Role;
use parking_lot::Mutex;
use rpc::access::TABLE;
use rpc::{ChannelTimings, Channels, Who};
use seams::{RandExt as _, Seams, Tasks};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

/// Identities kept; the oldest goes first.
const KEPT: usize = 10;
/// For one call.
const PATIENCE: Duration = Duration::from_secs(2);
/// Calls without a row.
const UNLISTED: [&str; 4] = [
    "/swarmlite.cluster.v1.Cluster/propose",
    "/swarmlite.raft.v1.Raft/",
    "/grpc.health.v1.Health/Check",
    "/swarmkit.ca.NodeCA/IssueNodeCertificate",
];
/// What SwarmKit's proxy would have believed, and other ways to claim to be somebody.
const CLAIMS: [&str; 4] =
    ["tls-cert-organizational-unit", "x-forwarded-node-id", "remote_addr", "x-forwarded-client-cert"];

/// The intruder.
pub(super) struct Intruder {
    pub rand: SeededRand,
    pub ip: IpAddr,
    /// All machines; the first so many were managers in the beginning.
    pub machines: Vec<Arc<Machine>>,
    pub desk: Arc<Mutex<Desk>>,
    pub found: Arc<Mutex<Vec<Violation>>>,
}

/// A stolen identity.
struct Stolen {
    identity: Arc<Identity>,
    channels: Channels,
}

/// What one try is.
struct Try<'a> {
    path: &'static str,
    door: Door,
    stolen: &'a Stolen,
    addr: String,
}

// === impl Intruder ===

impl Intruder {
    /// Tries doors until the run is over.
    pub(super) async fn work(self) -> turmoil::Result {
        let tasks = Tasks::new();
        let mut stolen: Vec<Stolen> = Vec::new();
        while self.desk.lock().phase == Phase::Founding {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        while self.desk.lock().phase <= Phase::Calm {
            if stolen.is_empty() || self.rand.chance(150) {
                self.steal(&mut stolen, &tasks);
            }
            if let (Some(with), Some(machine)) = (self.rand.pick(&stolen), self.rand.pick(&self.machines)) {
                self.try_door(with, machine).await;
            }
            tokio::time::sleep(self.rand.millis(50, 400)).await;
        }
        tasks.shutdown(Duration::from_secs(1)).await;
        Ok(())
    }

    /// Copies the key and the certificate of some node as they are now.
    fn steal(&self, stolen: &mut Vec<Stolen>, tasks: &Tasks) {
        // The last one is the outcast, if there is one: its old keys are the most interesting.
        let machine = if self.rand.chance(400) { self.machines.last() } else { self.rand.pick(&self.machines) };
        let Some(machine) = machine else { return };
        let Some(identity) = machine.node().and_then(|n| n.watch_identity()) else { return };
        if stolen.iter().any(|s| Arc::ptr_eq(&s.identity, &identity)) {
            return;
        }
        let rand = Arc::new(SeededRand::new(self.rand.below(u64::MAX), "intruder's calls"));
        let net = SimNet::new(self.ip, rand.clone(), Arc::new(Mutex::new(UdpFaults::default())), tasks.clone());
        let disk = Arc::new(machine.disk.clone());
        let seams = Seams { clock: machine.clock.clone(), rand, net: Arc::new(net), disk };
        let (_, watch) = watch::channel(Some(identity.clone()));
        event!("intruder", "has the keys of {} as {:?}", machine.name, identity.role);
        if stolen.len() == KEPT {
            stolen.remove(0);
        }
        stolen.push(Stolen { identity, channels: Channels::new(seams, watch, ChannelTimings::default()) });
    }

    async fn try_door(&self, stolen: &Stolen, machine: &Machine) {
        let rows: Vec<(&'static str, Door)> = TABLE
            .iter()
            .map(|row| (row.path, door(row.who)))
            .chain(UNLISTED.map(|path| (path, Door::Unlisted)))
            .filter(|(path, door)| harmless(path, *door, stolen.identity.role))
            .collect();
        let Some((path, door)) = self.rand.pick(&rows).copied() else { return };
        let one = Try { path, door, stolen, addr: format!("{}:2377", machine.ip) };
        // What the manager has applied before it is asked, it must act on.
        let state = || machine.node().and_then(|n| n.watch_manager()).map(|m| m.store.local());
        let Some(before) = state() else { return };
        let Some(alone) = one.call(false).await else { return };
        let claimed = one.call(true).await;
        // Who was promoted meanwhile was let in with every right: wrong is what is wrong by both states.
        let Some(after) = state() else { return };
        let mut wrong = Vec::new();
        for admitted in [Some(alone), claimed].into_iter().flatten() {
            let call = one.outcome(admitted);
            let by_both = !check_call(&after, &call).is_empty();
            wrong.extend(check_call(&before, &call).into_iter().filter(|_| by_both));
        }
        // Only when nothing changed in between do the two answers have to be the same.
        if let Some(claimed) = claimed.filter(|_| after.index() == before.index()) {
            wrong.extend(check_claims(&one.outcome(claimed), alone, claimed));
        }
        if !wrong.is_empty() {
            let id = &stolen.identity.node_id;
            event!("intruder", "{path} of {} as {id}: let in {alone}", machine.name);
            self.found.lock().extend(wrong);
        }
    }
}

fn door(who: Who) -> Door {
    match who {
        Who::Anonymous => Door::Anybody,
        Who::Member => Door::Members,
        Who::Manager => Door::Managers,
        Who::RaftPeer => Door::Raft,
    }
}

/// The intruder wants to know which doors open, and must not change what it looks at: with a manager's certificate an empty
/// `Leave` would take that manager out of the group, and an opened session would end the node's own.
fn harmless(path: &str, door: Door, role: Role) -> bool {
    let disturbs = path.ends_with("/Session") || path.ends_with("/Leave") && role == Role::Manager;
    door != Door::Anybody && !disturbs
}

// === impl Try ===

impl Try<'_> {
    /// Whether the call was let in; `None` when nobody can say (no connection, no answer).
    async fn call(&self, with_claims: bool) -> Option<bool> {
        let channel = self.stolen.channels.manager(&self.addr).ok()?;
        let status = tokio::time::timeout(PATIENCE, ask(channel, self.path, with_claims)).await.ok()?;
        match status {
            Ok(()) => Some(true),
            Err(status) if status.code() == Code::PermissionDenied => Some(false),
            Err(status) if rpc::not_sent(&status) => None,
            // The connection broke, or the manager stopped: it said nothing.
            Err(status)
                if matches!(status.code(), Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal) =>
            {
                None
            }
            Err(_) => Some(true),
        }
    }

    fn outcome(&self, admitted: bool) -> Call {
        let identity = &self.stolen.identity;
        Call {
            caller: identity.node_id.clone(),
            certificate: identity.role,
            issued_from: identity.state_index(),
            door: self.door,
            path: self.path.to_owned(),
            admitted,
        }
    }
}

/// An empty message, whatever the call takes.
async fn ask(channel: Channel, path: &'static str, with_claims: bool) -> Result<(), tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| tonic::Status::from_error(Box::new(e)))?;
    let mut request = Request::new(());
    if with_claims {
        for claim in CLAIMS {
            request.metadata_mut().insert(claim, tonic::metadata::MetadataValue::from_static("swarm-manager"));
        }
    }
    grpc.unary::<(), (), _>(request, PathAndQuery::from_static(path), ProstCodec::default()).await.map(drop)
}
