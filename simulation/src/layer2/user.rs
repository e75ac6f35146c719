//! Users: they ask any manager, as the API would for them, and write down what they were told.

use super::manager::Life;
use super::runtime::{sleep, within};
use super::world::{Phase, World};
use crate::history::{Ask, Mark, Operation, Told};
use crate::rng::SeededRand;
use model::{
    Availability, Concurrency, ContainerSpec, CronSpec, FailureAction, JobRun, Meta, Mode, Node, Placement, Preference,
    Progress, Rebalance, ResourceRequirements, Resources, RestartPolicy, Service, ServiceSpec, TaskSpec, Timestamp,
    UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};
use seams::RandExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Check, Conflict, Kind, ObjectId, ProposeError, StoreClient as _, Transaction};

/// Users look for the same few names, so that they meet.
pub(super) const NAMES: [&str; 5] = ["web", "api", "db", "job", "cron"];
/// Its failed updates are rolled back, and with them the mark that the last user left: what users are told of it is not judged.
const ROLLED_BACK: &str = "db";
/// The label of nodes that some services ask for, and the values that it has.
pub(super) const LABEL: &str = "disk";
pub(super) const LABEL_VALUES: [&str; 2] = ["ssd", "hdd"];
/// Replicas of a service at most.
const REPLICAS_MAX: u64 = 4;
/// How long a user waits.
const PATIENCE: Duration = Duration::from_secs(6);

/// One user.
pub(super) struct User {
    pub(super) name: String,
    pub(super) rand: SeededRand,
}

// === impl User ===

impl User {
    /// Works until the storm is over; then reads everything once more.
    pub(super) async fn work(self: Arc<Self>, world: Arc<World>) {
        while world.phase() == Phase::Storm {
            let names: Vec<&str> = NAMES.into_iter().filter(|n| world.desk.lock().history.has_room(n)).collect();
            if self.rand.chance(60) {
                self.change_node(&world).await;
            } else if self.rand.chance(30) {
                self.rebalance(&world).await;
            } else if let Some(name) = self.rand.pick(&names) {
                self.act(&world, name).await;
            }
            sleep(self.pause()).await;
        }
        world.desk.lock().idle += 1;
    }

    /// Most of the time a short thought; now and then a long one.
    fn pause(&self) -> Duration {
        if self.rand.chance(200) { self.rand.millis(300, 1500) } else { self.rand.millis(10, 200) }
    }

    async fn act(&self, world: &Arc<World>, name: &'static str) {
        match self.rand.below(10) {
            0..=2 => self.create(world, name).await,
            3..=6 => self.update(world, name).await,
            7 => self.remove(world, name).await,
            _ => drop(self.read(world, name).await),
        }
    }

    /// Does something in a manager's process; `None` when it does not run, `Some(None)` when nobody answers.
    async fn at<R, Fut>(&self, world: &Arc<World>, work: impl FnOnce(Arc<Life>) -> Fut + Send) -> Option<Option<R>>
    where
        R: Send + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        let life = self.rand.pick(&world.managers)?.life()?;
        Some(within(PATIENCE, life.run(work)).await.flatten())
    }

    fn note(&self, world: &World, name: &str, ask: Ask, told: Option<Told>, called: Duration) {
        world.event(&self.name, format_args!("{name}: {ask:?} -> {told:?}"));
        if let Some(told) = told {
            let operation = Operation { client: self.name.clone(), ask, told, called, answered: world.elapsed() };
            if name != ROLLED_BACK {
                world.desk.lock().history.add(name, operation);
            }
        }
    }

    /// Reads a service as of now.
    pub(super) async fn read(&self, world: &Arc<World>, name: &'static str) -> Option<Service> {
        let called = world.elapsed();
        let read = self
            .at(world, |life| async move {
                let snapshot = life.client.current().await.ok()?;
                Some(snapshot.service_named(&name.parse().ok()?).map(|s| Service::clone(s)))
            })
            .await;
        let found = read.flatten().flatten()?;
        let told = found.as_ref().map_or(Told::Absent, |s| Told::Saw(mark_of(s)));
        self.note(world, name, Ask::Read, Some(told), called);
        found
    }

    async fn create(&self, world: &Arc<World>, name: &'static str) {
        let (mark, called) = (world.mark(), world.elapsed());
        let spec = self.spec(name, mark);
        let id: model::ServiceId = self.rand.id25().parse().expect("id25 makes ids");
        let created = self
            .at(world, |life| async move {
                let mut tx = Transaction::new(life.wall());
                tx.check(Check::NameFree { kind: Kind::Service, name: name.to_owned() });
                let (meta, job) = (Meta::default(), spec.mode.is_job().then(|| first_run(life.wall())));
                tx.create(Service {
                    id,
                    meta,
                    spec,
                    spec_version: 1,
                    previous_spec: None,
                    update_status: None,
                    progress: Progress { job, ..Progress::default() },
                });
                life.client.propose(tx).await
            })
            .await;
        self.note(world, name, Ask::Create(mark), created.and_then(told), called);
    }

    async fn update(&self, world: &Arc<World>, name: &'static str) {
        let Some(old) = self.read(world, name).await else { return };
        // Meanwhile somebody else may change it.
        sleep(self.rand.millis(0, 80)).await;
        let (new, called) = (world.mark(), world.elapsed());
        let mut spec = old.spec.clone();
        spec.labels.insert("mark".into(), new.to_string());
        if self.rand.chance(600) {
            spec.mode = self.mode(name);
        }
        // A user who wants back what was before says nothing else.
        let back = old.previous_spec.clone().filter(|_| !spec.mode.is_job() && self.rand.chance(150));
        let is_back = back.is_some();
        if let Some(previous) = back {
            spec = ServiceSpec { labels: spec.labels, ..previous };
        } else if self.rand.chance(400) {
            let task = Arc::make_mut(&mut spec.task);
            task.container_mut().unwrap().image = format!("app:{}", self.rand.below(5));
        }
        let seen = mark_of(&old);
        let updated = self
            .at(world, |life| async move {
                let mut tx = Transaction::new(life.wall());
                let (now, spec_version) = (life.wall(), old.spec_version + 1);
                let next = |run: JobRun| JobRun { iteration: run.iteration + 1, last_execution: now };
                tx.update(Service {
                    previous_spec: Some(old.spec.clone()),
                    spec,
                    spec_version,
                    update_status: is_back.then(|| rolled_back(spec_version, now)),
                    progress: Progress { job: old.progress.job.map(next), ..old.progress.clone() },
                    ..old
                });
                life.client.propose(tx).await
            })
            .await;
        // The one that it read is gone; there may be another of that name by now.
        let told = match updated.and_then(told) {
            Some(Told::Absent) => Some(Told::Refused),
            told => told,
        };
        self.note(world, name, Ask::Update { seen, new }, told, called);
    }

    /// Asks for all replicated services to be spread anew, as the API does.
    async fn rebalance(&self, world: &Arc<World>) {
        let asked = self
            .at(world, |life| async move {
                let snapshot = life.client.current().await.ok()?;
                let mut tx = Transaction::new(life.wall());
                for service in snapshot.services().filter(|s| matches!(s.spec.mode, Mode::Replicated { .. })) {
                    let mut service = Service::clone(service);
                    let moving = service.progress.rebalance.and_then(|r| r.moving);
                    service.progress.rebalance = Some(Rebalance { asked_at: tx.at, moving, ..Rebalance::default() });
                    tx.update(service);
                }
                if tx.is_empty() { Some(0) } else { life.client.propose(tx).await.ok() }
            })
            .await;
        world.event(&self.name, format_args!("spreads all services anew -> {:?}", asked.flatten().flatten()));
    }

    async fn remove(&self, world: &Arc<World>, name: &'static str) {
        let called = world.elapsed();
        let removed = self
            .at(world, |life| async move {
                // As the API: what is not there now is not there.
                let Ok(snapshot) = life.client.current().await else {
                    return Err(ProposeError::NotManager);
                };
                let found = name.parse().ok().and_then(|n| snapshot.service_named(&n));
                let Some(found) = found else { return Ok(0) };
                let id: ObjectId = (&found.id).into();
                let mut tx = Transaction::new(life.wall());
                tx.check(Check::Exists { id: id.clone() });
                tx.changes.push(Change::Remove(id));
                life.client.propose(tx).await
            })
            .await;
        let told = match removed {
            Some(Some(Ok(0))) => Some(Told::Absent),
            removed => removed.and_then(told),
        };
        self.note(world, name, Ask::Remove, told, called);
    }

    async fn change_node(&self, world: &Arc<World>) {
        let Some(worker) = self.rand.pick(&world.workers).map(|w| w.id.clone()) else { return };
        if self.rand.chance(400) {
            let value = *self.rand.pick(&LABEL_VALUES).expect("there are some");
            return self.set_label(world, worker, value).await;
        }
        let availability = *self
            .rand
            .pick(&[Availability::Active, Availability::Active, Availability::Pause, Availability::Drain])
            .expect("there are some");
        self.set_node(world, worker, availability).await;
    }

    /// Changes a node's availability; true when it is known to be so.
    pub(super) async fn set_node(&self, world: &Arc<World>, id: model::NodeId, to: Availability) -> bool {
        let changed = self
            .at(world, |life| async move {
                let snapshot = life.client.current().await.ok()?;
                let mut node = Node::clone(snapshot.node(&id)?);
                if node.spec.availability != to {
                    node.spec.availability = to;
                    let mut tx = Transaction::new(life.wall());
                    tx.update(node);
                    life.client.propose(tx).await.ok()?;
                }
                Some(id)
            })
            .await;
        let done = changed.flatten().flatten();
        done.iter().for_each(|id| world.event(&self.name, format_args!("node {} is {to:?}", world.name_of(id))));
        done.is_some()
    }

    /// Gives a node another value of the label that services ask for.
    async fn set_label(&self, world: &Arc<World>, id: model::NodeId, value: &'static str) {
        let changed = self
            .at(world, |life| async move {
                let snapshot = life.client.current().await.ok()?;
                let mut node = Node::clone(snapshot.node(&id)?);
                if node.spec.labels.insert(LABEL.into(), value.into()).as_deref() != Some(value) {
                    let mut tx = Transaction::new(life.wall());
                    tx.update(node);
                    life.client.propose(tx).await.ok()?;
                }
                Some(id)
            })
            .await;
        let done = changed.flatten().flatten();
        done.iter().for_each(|id| world.event(&self.name, format_args!("node {} has {value}", world.name_of(id))));
    }

    /// A service keeps its mode; each name has its own.
    fn mode(&self, name: &str) -> Mode {
        match name {
            "api" => Mode::Global,
            "job" => Mode::ReplicatedJob {
                max_concurrent: self.rand.between(0, 2),
                total_completions: self.rand.between(0, REPLICAS_MAX),
            },
            "cron" => Mode::GlobalJob,
            _ => Mode::Replicated { replicas: self.rand.between(0, REPLICAS_MAX) },
        }
    }

    fn placement(&self) -> Option<Placement> {
        let constraint = |value: &&str| format!("node.labels.{LABEL}=={value}").parse().expect("it is a constraint");
        let asks = self.rand.pick(&LABEL_VALUES).filter(|_| self.rand.chance(300));
        let spread = Preference::Spread(format!("node.labels.{LABEL}"));
        let placement = Placement {
            constraints: asks.map(constraint).into_iter().collect(),
            preferences: if self.rand.chance(300) { vec![spread] } else { Vec::new() },
            max_replicas: if self.rand.chance(200) { self.rand.between(1, 3) } else { 0 },
            ..Placement::default()
        };
        (placement != Placement::default()).then_some(placement)
    }

    fn spec(&self, name: &str, mark: Mark) -> ServiceSpec {
        let restart = RestartPolicy {
            delay: Some(self.rand.millis(0, 1500)),
            max_attempts: self.rand.chance(200).then(|| self.rand.between(1, 3)),
            ..RestartPolicy::default()
        };
        let update = UpdateConfig {
            parallelism: self.rand.below(3),
            delay: self.rand.millis(0, 300),
            monitor: Some(self.rand.millis(0, 500)),
            failure_action: match self.rand.below(2) {
                _ if name == ROLLED_BACK => FailureAction::Rollback,
                0 => FailureAction::Pause,
                _ => FailureAction::Continue,
            },
            order: if self.rand.chance(300) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
            ..UpdateConfig::default()
        };
        let reserved = Resources { nano_cpus: 500_000_000, memory_bytes: 64 << 20 };
        let task = TaskSpec {
            runtime: ContainerSpec { image: "app:0".into(), ..ContainerSpec::default() }.into(),
            resources: self.rand.chance(300).then_some(ResourceRequirements {
                limits: None,
                reservations: Some(reserved),
                ..ResourceRequirements::default()
            }),
            restart: Some(restart),
            placement: self.placement(),
            ..TaskSpec::default()
        };
        let mode = self.mode(name);
        // With a schedule, or without.
        let cron = (name == "cron" && self.rand.chance(500)).then(|| CronSpec {
            schedule: "* * * * *".parse().expect("it is a schedule"),
            timezone: "UTC".parse().expect("it is a time zone"),
            missed_run_window: Duration::from_secs(30),
            concurrency: *self
                .rand
                .pick(&[Concurrency::Forbid, Concurrency::Allow, Concurrency::Replace])
                .expect("there are some"),
            history: 2,
        });
        ServiceSpec {
            name: name.parse().expect("the names are good"),
            labels: BTreeMap::from([("mark".into(), mark.to_string())]),
            task: Arc::new(task),
            update: (!mode.is_job()).then_some(update),
            mode,
            rollback: None,
            endpoint: None,
            cron,
            backoff: Default::default(),
        }
    }
}

/// The API gives a new job its first run.
fn first_run(now: Timestamp) -> JobRun {
    JobRun { iteration: 0, last_execution: now }
}

/// What the API writes when a user asks for what was before.
fn rolled_back(spec_version: u64, now: Timestamp) -> UpdateStatus {
    UpdateStatus {
        state: UpdateState::RollbackStarted,
        started_at: now,
        completed_at: None,
        message: "manually requested rollback".into(),
        spec_version,
    }
}

fn mark_of(service: &Service) -> Mark {
    service.spec.labels.get("mark").and_then(|m| m.parse().ok()).unwrap_or_default()
}

/// What an answer means; `None` when it was certainly not done.
fn told(answer: Option<Result<u64, ProposeError>>) -> Option<Told> {
    match answer {
        None | Some(Err(ProposeError::Unknown { .. })) => Some(Told::Unknown),
        Some(Ok(_)) => Some(Told::Done),
        Some(Err(ProposeError::Conflict(Conflict::Missing(_)))) => Some(Told::Absent),
        Some(Err(ProposeError::Conflict(_))) => Some(Told::Refused),
        Some(Err(
            ProposeError::NoLeader { .. }
            | ProposeError::NotManager
            | ProposeError::Deposed { .. }
            | ProposeError::TooLarge(_),
        )) => None,
    }
}
