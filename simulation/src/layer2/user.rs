//! Users: they ask any manager, as the API would for them, and write down what they were told.

use super::manager::Life;
use super::runtime::{sleep, within};
use super::world::{Phase, World};
use crate::history::{Ask, Mark, Operation, Told};
use crate::rng::SeededRand;
use model::{
    Availability, ContainerSpec, FailureAction, Meta, Mode, Node, ResourceRequirements, Resources, RestartPolicy,
    Service, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};
use seams::RandExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Check, Conflict, Kind, ObjectId, ProposeError, StoreClient as _, Transaction};

/// Users look for the same few names, so that they meet.
pub(super) const NAMES: [&str; 5] = ["web", "api", "db", "job", "cron"];
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
            world.desk.lock().history.add(name, operation);
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
                let meta = Meta::default();
                tx.create(Service { id, meta, spec, spec_version: 1, previous_spec: None, update_status: None });
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
            spec.mode = Mode::Replicated { replicas: self.rand.between(0, REPLICAS_MAX) };
        }
        if self.rand.chance(400) {
            let task = Arc::make_mut(&mut spec.task);
            task.container.image = format!("app:{}", self.rand.below(5));
        }
        let seen = mark_of(&old);
        let updated = self
            .at(world, |life| async move {
                let mut tx = Transaction::new(life.wall());
                tx.update(Service {
                    previous_spec: Some(old.spec.clone()),
                    spec,
                    spec_version: old.spec_version + 1,
                    update_status: None,
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
            failure_action: if self.rand.chance(500) { FailureAction::Pause } else { FailureAction::Continue },
            order: if self.rand.chance(300) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
            ..UpdateConfig::default()
        };
        let reserved = Resources { nano_cpus: 500_000_000, memory_bytes: 64 << 20 };
        let task = TaskSpec {
            container: ContainerSpec { image: "app:0".into(), ..ContainerSpec::default() },
            resources: self
                .rand
                .chance(300)
                .then_some(ResourceRequirements { limits: None, reservations: Some(reserved) }),
            restart: Some(restart),
            ..TaskSpec::default()
        };
        ServiceSpec {
            name: name.parse().expect("the names are good"),
            labels: BTreeMap::from([("mark".into(), mark.to_string())]),
            task: Arc::new(task),
            mode: Mode::Replicated { replicas: self.rand.between(0, REPLICAS_MAX) },
            update: Some(update),
            rollback: None,
            endpoint: None,
        }
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
        Some(Err(ProposeError::NoLeader { .. } | ProposeError::NotManager | ProposeError::TooLarge(_))) => None,
    }
}
