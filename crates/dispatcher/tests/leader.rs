//! The leader's side over a store that refuses what a leader decides whose term is over.

mod common;

use async_trait::async_trait;
use common::*;
use model::{NodeState, TaskState, TaskStatus, Timestamp};
use rpc::proto::cluster::{ReportRequest, TaskStatusReport};
use seams::Clock;
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, LocalStore, ProposeError, ReadError, Snapshot, StoreClient, Transaction};
use swarmlite_dispatcher::{Canary, LeaderReports, ReportError};
use tokio::sync::watch;

struct Wall;

impl Clock for Wall {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(1_000)
    }
}

/// The store as a leader sees it whose term is over.
struct Over(Arc<LocalStore>);

#[async_trait]
impl StoreClient for Over {
    fn local(&self) -> Snapshot {
        self.0.local()
    }
    async fn current(&self) -> Result<Snapshot, ReadError> {
        self.0.current().await
    }
    async fn propose(&self, _: Transaction) -> Result<u64, ProposeError> {
        Err(ProposeError::Deposed { term: 3 })
    }
    fn changes(&self) -> Changes {
        self.0.changes()
    }
}

fn running(task: u64) -> ReportRequest {
    let status = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
    let status = rmp_serde::to_vec_named(&status).expect("plain data encodes");
    let report = TaskStatusReport {
        node_id: id::<model::NodeId>(1).to_string(),
        task_id: id::<model::TaskId>(task).to_string(),
        status,
    };
    ReportRequest { statuses: vec![report], sessions: Vec::new() }
}

/// It hears of no node any more, so it finds them all down; and a status that it took may be older than what its successor has.
/// Each of the two is decided with what a leader remembers, and is its own alone.
#[tokio::test(start_paused = true)]
async fn a_leader_whose_term_is_over_writes_neither_verdicts_nor_statuses() {
    let store = Arc::new(LocalStore::default());
    let mut tx = Transaction::new(Timestamp(1));
    tx.create(cluster());
    tx.create(node(1, NodeState::Ready));
    tx.create(task(9, 1, TaskState::Starting));
    store.propose(tx).await.expect("an empty store takes it");
    let reports = LeaderReports::new(Arc::new(Wall), Canary::default());
    let (_suspects, suspected) = watch::channel([id(1)].into());
    let before = store.local().index();

    let told = async {
        // Long enough for any verdict.
        tokio::time::sleep(Duration::from_secs(120)).await;
        reports.report(running(9)).await
    };
    let told = tokio::select! {
        biased;
        () = reports.lead(Arc::new(Over(store.clone())), suspected.clone()) => panic!("it leads until it is dropped"),
        told = told => told,
    };
    assert!(matches!(&told, Err(ReportError::Unavailable { reason }) if reason.contains("term 3")), "{told:?}");
    assert_eq!(store.local().index(), before, "nothing was written");

    let told = tokio::select! {
        biased;
        () = reports.lead(store.clone(), suspected) => panic!("it leads until it is dropped"),
        told = reports.report(running(9)) => told,
    };
    assert_eq!(told.expect("it leads").refused, 0);
    assert_eq!(store.local().task(&id(9)).expect("it is there").status.state, TaskState::Running);
}
