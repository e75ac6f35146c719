//! The driver: the loops on a store that other people write to, too.
use async_trait::async_trait;
use model::*;
use seams::{Clock, Tasks};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::*;
use tokio::time::{sleep, timeout};

struct TestClock(tokio::time::Instant);

impl Clock for TestClock {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(1_000_000) + self.0.elapsed()
    }
}

/// A store whose proposals can be made to fail.
struct Flaky {
    inner: LocalStore,
    proposals: AtomicU32,
    /// Outcomes for the next proposals; `Unknown` ones are applied, as it may happen.
    script: Mutex<Vec<ProposeError>>,
    reads_refused: AtomicU32,
    largest: AtomicU64,
}

impl Flaky {
    fn new() -> Arc<Flaky> {
        Arc::new(Flaky {
            inner: LocalStore::default(),
            proposals: AtomicU32::new(0),
            script: Mutex::new(Vec::new()),
            reads_refused: AtomicU32::new(0),
            largest: AtomicU64::new(0),
        })
    }
}

#[async_trait]
impl StoreClient for Flaky {
    fn local(&self) -> Snapshot {
        self.inner.local()
    }
    async fn current(&self) -> Result<Snapshot, ReadError> {
        let refused = self.reads_refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match refused {
            Ok(_) => Err(ReadError::NoLeader { waited: Duration::ZERO }),
            Err(_) => self.inner.current().await,
        }
    }
    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        sleep(Duration::from_millis(2)).await; // about what a quorum takes
        self.proposals.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(transaction.changes.len() as u64, Ordering::Relaxed);
        let planned = self.script.lock().unwrap().pop();
        match planned {
            None => self.inner.propose(transaction).await,
            Some(error @ ProposeError::Unknown { .. }) => {
                let _applied_all_the_same = self.inner.propose(transaction).await;
                Err(error)
            }
            Some(error) => Err(error),
        }
    }
    fn changes(&self) -> Changes {
        self.inner.changes()
    }
}

struct Cluster {
    client: Arc<Flaky>,
    clock: Arc<TestClock>,
    tasks: Tasks,
}

impl Cluster {
    async fn start(nodes: usize) -> Cluster {
        let client = Flaky::new();
        for i in 0..nodes {
            let node = Node {
                id: format!("{i:025}").parse().unwrap(),
                meta: Meta::default(),
                spec: NodeSpec::default(),
                description: Some(NodeDescription::default()),
                status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
                manager: None,
            };
            client.inner.propose(Transaction::new(Timestamp(1)).create(node).clone()).await.unwrap();
        }
        let cluster = Cluster { client, clock: Arc::new(TestClock(tokio::time::Instant::now())), tasks: Tasks::new() };
        cluster.lead();
        cluster
    }

    fn lead(&self) {
        let (client, clock, tasks) = (self.client.clone(), self.clock.clone(), self.tasks.clone());
        self.tasks.spawn_to_end("driver", async move {
            let stopped = async move { tasks.stopped().await };
            swarmlite_control::driver::run(client, clock, stopped).await;
        });
    }

    async fn create(&self, name: &str, replicas: u64) -> ServiceId {
        let id: ServiceId = format!("{name:x<25}").parse().unwrap();
        let service = Service {
            id: id.clone(),
            meta: Meta::default(),
            spec: ServiceSpec {
                name: name.parse().unwrap(),
                labels: BTreeMap::new(),
                task: Arc::new(TaskSpec::default()),
                mode: Mode::Replicated { replicas },
                update: None,
                rollback: None,
                endpoint: None,
                cron: None,
                backoff: Default::default(),
            },
            spec_version: 1,
            previous_spec: None,
            update_status: None,
            progress: Default::default(),
        };
        let mut transaction = Transaction::new(Timestamp(1));
        transaction.create(service);
        self.client.inner.propose(transaction).await.unwrap();
        id
    }

    fn assigned(&self, id: &ServiceId) -> usize {
        let snapshot = self.client.local();
        snapshot.tasks_of_service(id).filter(|t| t.is_active() && t.node_id.is_some()).count()
    }

    async fn until(&self, what: &str, mut f: impl FnMut(&Cluster) -> bool) {
        let mut changes = self.client.changes();
        let reached = timeout(Duration::from_secs(60), async {
            while !f(self) {
                changes.next().await;
            }
        });
        assert!(reached.await.is_ok(), "{what} did not come to be");
    }

    fn fail_next(&self, error: &ProposeError, times: usize) {
        self.client.script.lock().unwrap().extend(vec![error.clone(); times]);
    }
}

#[tokio::test(start_paused = true)]
async fn from_a_service_to_its_assignments_nothing_waits_for_a_timer() {
    let cluster = Cluster::start(3).await;
    sleep(Duration::from_secs(1)).await;
    let start = tokio::time::Instant::now();
    let id = cluster.create("web", 100).await;
    cluster.until("100 assignments", |c| c.assigned(&id) == 100).await;
    assert!(start.elapsed() <= Duration::from_millis(5), "{:?}: one proposal", start.elapsed());
    sleep(Duration::from_secs(600)).await;
    assert_eq!(cluster.client.proposals.load(Ordering::Relaxed), 1, "and then it is quiet");
    assert!(cluster.tasks.shutdown(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn services_that_come_together_share_commits() {
    let cluster = Cluster::start(3).await;
    let mut ids = Vec::new();
    for i in 0..50 {
        ids.push(cluster.create(&format!("s{i}"), 2).await);
    }
    cluster.until("all assigned", |c| ids.iter().all(|id| c.assigned(id) == 2)).await;
    assert!(cluster.client.proposals.load(Ordering::Relaxed) <= 3);
    assert_eq!(cluster.client.largest.load(Ordering::Relaxed), 100);
}

#[tokio::test(start_paused = true)]
async fn refused_and_unknown_proposals_are_looked_at_again_and_nothing_is_made_twice() {
    let conflict = ProposeError::Conflict(Conflict::Missing(ObjectId::Service("x".repeat(25).parse().unwrap())));
    let unknown = ProposeError::Unknown { reason: "the leader was lost".into() };
    let no_leader = ProposeError::NoLeader { waited: Duration::from_secs(10) };
    let too_large = ProposeError::TooLarge(TransactionTooLarge { changes: 1, bytes: 1 });
    for error in [conflict, unknown, no_leader, too_large] {
        let cluster = Cluster::start(3).await;
        sleep(Duration::from_secs(1)).await;
        cluster.fail_next(&error, 5);
        let id = cluster.create("web", 7).await;
        cluster.until("7 assignments", |c| c.assigned(&id) == 7).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.client.local().tasks_of_service(&id).count(), 7, "{error}");
        assert!(cluster.client.script.lock().unwrap().is_empty(), "{error}");
        assert!(cluster.client.proposals.load(Ordering::Relaxed) < 12, "{error}: no busy loop");
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_a_leader_to_read_from_and_takes_up_what_was_there_before() {
    let cluster = Cluster::start(3).await;
    assert!(cluster.tasks.shutdown(Duration::from_secs(1)).await);
    let id = cluster.create("web", 4).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.assigned(&id), 0, "nobody leads");
    cluster.client.reads_refused.store(5, Ordering::Relaxed);
    let next = Cluster { client: cluster.client.clone(), clock: cluster.clock.clone(), tasks: Tasks::new() };
    next.lead();
    next.until("4 assignments", |c| c.assigned(&id) == 4).await;
}

#[tokio::test(start_paused = true)]
async fn two_drivers_at_once_make_nothing_twice() {
    let cluster = Cluster::start(3).await;
    cluster.lead();
    let mut ids = Vec::new();
    for i in 0..20 {
        ids.push(cluster.create(&format!("s{i}"), 5).await);
    }
    cluster.until("all assigned", |c| ids.iter().all(|id| c.assigned(id) == 5)).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.client.local().tasks().count(), 100);
    assert!(cluster.tasks.shutdown(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_restart_delay_is_kept_by_a_timer() {
    let cluster = Cluster::start(1).await;
    let id = cluster.create("web", 1).await;
    cluster.until("an assignment", |c| c.assigned(&id) == 1).await;
    let mut task = cluster.client.local().tasks_of_service(&id).next().unwrap().as_ref().clone();
    task.status.state = TaskState::Failed;
    let failed = tokio::time::Instant::now();
    cluster.client.inner.propose(Transaction::new(Timestamp(1)).update(task).clone()).await.unwrap();
    let runs =
        |c: &Cluster| c.client.local().tasks_of_service(&id).any(|t| t.is_active() && t.desired == TaskState::Running);
    cluster.until("a restart", runs).await;
    let waited = failed.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_millis(5_200), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_the_node_is_no_manager_any_more() {
    let cluster = Cluster::start(1).await;
    cluster.fail_next(&ProposeError::NotManager, 1);
    let client = cluster.client.clone();
    cluster.create("web", 1).await;
    let end = swarmlite_control::driver::run(client, cluster.clock.clone(), std::future::pending());
    cluster.tasks.stop();
    cluster.fail_next(&ProposeError::NotManager, 1);
    assert!(timeout(Duration::from_secs(5), end).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_term_in_which_it_was_started() {
    let cluster = Cluster::start(1).await;
    cluster.tasks.stop();
    for unknown_first in [false, true] {
        let end = swarmlite_control::driver::run(cluster.client.clone(), cluster.clock.clone(), std::future::pending());
        let before = cluster.client.local().index();
        cluster.fail_next(&ProposeError::Deposed { term: 3 }, 1);
        if unknown_first {
            // What became of that proposal it must not wait for: the barrier is refused.
            cluster.fail_next(&ProposeError::Unknown { reason: "the leadership was lost".into() }, 1);
        }
        cluster.create(if unknown_first { "a" } else { "b" }, 1).await;
        assert!(timeout(Duration::from_secs(5), end).await.is_ok(), "it goes on as a leader that is none");
        let applied = cluster.client.local().index() - before;
        assert_eq!(applied, if unknown_first { 2 } else { 1 }, "the service, and what was proposed before the end");
    }
}
