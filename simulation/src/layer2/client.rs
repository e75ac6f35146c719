//! The store as everybody on a manager sees it. The node crate's `RaftStore` with the simulated network and clock: a proposal
//! travels to the leader in one hop, and what was sent and not answered is unknown.

use super::manager::Life;
use super::net::{Addr, CallError, call};
use super::runtime::{Rt, now, sleep};
use super::world::World;
use crate::layer3::Bug;
use async_trait::async_trait;
use bytes::Bytes;
use node::decode_conflict;
use openraft_rt::Instant as _;
use openraft_rt_sim::SimInstant;
use raft::Raft;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::{Changes, ProposeError, ReadError, Snapshot, Store, StoreClient, Transaction};

/// How long a write or a read waits for a leader. Half of the node crate's, so that a run sees more of them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for a leader.
const RETRY: Duration = Duration::from_millis(25);
/// For one question to one leader.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// [`StoreClient`] of one manager's process.
pub(super) struct SimStore {
    world: Weak<World>,
    slot: Addr,
    raft: Raft<Rt>,
    store: Arc<Store>,
}

/// A question without an answer that settles it.
enum Asked {
    Answer(u64),
    Again,
    Lost(String),
}

// === impl SimStore ===

impl SimStore {
    pub(super) fn new(world: Weak<World>, slot: Addr, raft: Raft<Rt>, store: Arc<Store>) -> SimStore {
        SimStore { world, slot, raft, store }
    }

    fn world(&self) -> Arc<World> {
        self.world.upgrade().expect("the world outlives what happens in it")
    }

    async fn ask(&self, leader: u64, bytes: Bytes, left: Duration) -> Result<Asked, ProposeError> {
        let world = self.world();
        if leader == self.raft.raft_id() {
            return settle(self.raft.propose(bytes, left).await);
        }
        let Some(slot) = world.slot_of(leader) else { return Ok(Asked::Again) };
        let work = move |life: Arc<Life>| async move { life.raft.propose(bytes, left).await };
        match call(&world, self.slot, slot, left, work).await {
            Ok(outcome) => settle(outcome),
            Err(CallError::NotSent) => Ok(Asked::Again),
            Err(CallError::Lost) => Ok(Asked::Lost("the leader did not answer".into())),
        }
    }

    async fn read_index(&self) -> Option<u64> {
        let leader = self.raft.view().leader?;
        if leader == self.raft.raft_id() {
            return self.raft.read_index(ASK_TIMEOUT).await.ok();
        }
        let world = self.world();
        let slot = world.slot_of(leader)?;
        let work = |life: Arc<Life>| async move { life.raft.read_index(ASK_TIMEOUT).await.ok() };
        call(&world, self.slot, slot, ASK_TIMEOUT, work).await.ok().flatten()
    }
}

#[async_trait]
impl StoreClient for SimStore {
    fn local(&self) -> Snapshot {
        self.store.snapshot()
    }

    async fn current(&self) -> Result<Snapshot, ReadError> {
        let begun = now();
        loop {
            if let Some(index) = self.read_index().await {
                return match self.raft.wait_applied(index, PATIENCE).await {
                    Ok(()) => Ok(self.store.snapshot()),
                    Err(raft::WaitError::Timeout { .. }) => Err(ReadError::NoLeader { waited: begun.elapsed() }),
                    Err(raft::WaitError::Stopped(_)) => Err(ReadError::NotManager),
                };
            }
            if self.raft.view().stopped.is_some() {
                return Err(ReadError::NotManager);
            }
            if begun.elapsed() >= PATIENCE {
                return Err(ReadError::NoLeader { waited: begun.elapsed() });
            }
            sleep(RETRY).await;
        }
    }

    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        let bytes = transaction.encode()?;
        let begun = now();
        loop {
            let view = self.raft.view();
            let asked = match view.leader {
                Some(leader) => self.ask(leader, bytes.clone(), left(begun)).await?,
                None => Asked::Again,
            };
            match asked {
                Asked::Answer(index) => {
                    self.world().acknowledged(index, &bytes);
                    // Being late here does not unmake the commit.
                    let _applied = self.raft.wait_applied(index, left(begun)).await;
                    return Ok(index);
                }
                Asked::Lost(reason) => return Err(ProposeError::Unknown { reason }),
                Asked::Again if view.stopped.is_some() => return Err(ProposeError::NotManager),
                Asked::Again => {}
            }
            if begun.elapsed() >= PATIENCE {
                return Err(ProposeError::NoLeader { waited: begun.elapsed() });
            }
            sleep(RETRY).await;
        }
    }

    fn changes(&self) -> Changes {
        self.store.changes()
    }
}

/// The store as one term's leader sees it: the node crate's `LeaderStore`.
pub(super) struct SimLeaderStore {
    store: Arc<SimStore>,
    term: u64,
}

impl SimLeaderStore {
    pub(super) fn new(store: Arc<SimStore>, term: u64) -> SimLeaderStore {
        SimLeaderStore { store, term }
    }
}

#[async_trait]
impl StoreClient for SimLeaderStore {
    fn local(&self) -> Snapshot {
        self.store.local()
    }

    async fn current(&self) -> Result<Snapshot, ReadError> {
        self.store.current().await
    }

    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        let bytes = transaction.encode()?;
        let world = self.store.world();
        world.decides(self.term, &bytes);
        if world.bug == Some(Bug::PlansTravel) {
            return self.store.propose(transaction).await;
        }
        let outcome = self.store.raft.propose_in(self.term, bytes.clone(), PATIENCE).await;
        if matches!(outcome, Err(raft::ProposeError::NotLeader { .. })) {
            return Err(ProposeError::Deposed { term: self.term });
        }
        match settle(outcome)? {
            Asked::Answer(index) => {
                world.acknowledged(index, &bytes);
                Ok(index)
            }
            Asked::Lost(reason) => Err(ProposeError::Unknown { reason }),
            Asked::Again => Err(ProposeError::NoLeader { waited: Duration::ZERO }),
        }
    }

    fn changes(&self) -> Changes {
        self.store.changes()
    }
}

fn settle(outcome: Result<raft::Applied, raft::ProposeError>) -> Result<Asked, ProposeError> {
    match outcome {
        Ok(applied) if applied.response.is_empty() => Ok(Asked::Answer(applied.index)),
        Ok(applied) => match decode_conflict(&applied.response) {
            Some(conflict) => Err(conflict.into()),
            None => Err(ProposeError::Unknown { reason: "the answer cannot be read".into() }),
        },
        Err(raft::ProposeError::NotLeader { .. } | raft::ProposeError::NotNow { .. }) => Ok(Asked::Again),
        Err(raft::ProposeError::Unknown { reason }) => Ok(Asked::Lost(reason)),
        Err(raft::ProposeError::Stopped(_)) => Ok(Asked::Again),
        Err(raft::ProposeError::TooLarge { bytes }) => Err(store::TransactionTooLarge { changes: 0, bytes }.into()),
    }
}

fn left(begun: SimInstant) -> Duration {
    PATIENCE.saturating_sub(begun.elapsed()).max(Duration::from_millis(100))
}
