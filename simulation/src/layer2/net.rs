//! The network between managers, and between workers and managers.

use super::manager::Life;
use super::runtime::{sleep, within};
use super::world::World;
use crate::rng::{PerMille, SeededRand};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use raft::{Member, PeerCall, PeerError, PeerTransport};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A machine: managers from 0, workers from [`WORKERS`].
pub(super) type Addr = usize;
/// The first worker's address.
pub(super) const WORKERS: Addr = 100;

/// When a message is lost, keep-alive finds its connection broken after so long.
const BROKEN_AFTER: Duration = Duration::from_secs(4);

/// What the network does to every message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Lost.
    pub(super) loss: PerMille,
    /// Delivered twice (between managers).
    pub(super) duplicate: PerMille,
    /// Delayed for long, so that later ones overtake it.
    pub(super) straggle: PerMille,
    /// The usual delay, at most.
    pub(super) delay_max: Duration,
}

/// The network.
pub(super) struct Net {
    rand: SeededRand,
    weather: Mutex<Weather>,
    /// How many cuts there are from one machine to another.
    cuts: Mutex<BTreeMap<(Addr, Addr), u32>>,
}

/// A call without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallError {
    /// It did not reach anybody.
    NotSent,
    /// It may have.
    Lost,
}

/// The network as one manager's Raft sees it.
pub(super) struct Wire {
    /// From where.
    pub(super) from: Addr,
    /// The world.
    pub(super) world: Weak<World>,
}

// === impl Net ===

impl Net {
    pub(super) fn new(rand: SeededRand, weather: Weather) -> Net {
        Net { rand, weather: Mutex::new(weather), cuts: Mutex::default() }
    }

    /// Changes the weather.
    pub(super) fn set_weather(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }

    /// Cuts the way from one machine to another, once more.
    pub(super) fn cut(&self, from: Addr, to: Addr) {
        *self.cuts.lock().entry((from, to)).or_default() += 1;
    }

    /// Takes one cut away.
    pub(super) fn mend(&self, from: Addr, to: Addr) {
        let mut cuts = self.cuts.lock();
        if let Some(n) = cuts.get_mut(&(from, to)) {
            *n -= 1;
            if *n == 0 {
                cuts.remove(&(from, to));
            }
        }
    }

    /// True when nothing is cut between two machines.
    pub(super) fn is_open(&self, a: Addr, b: Addr) -> bool {
        let cuts = self.cuts.lock();
        !cuts.contains_key(&(a, b)) && !cuts.contains_key(&(b, a))
    }

    /// How long a message takes; `None` when it does not arrive.
    fn fate(&self, from: Addr, to: Addr) -> Option<Duration> {
        if from == to {
            return Some(Duration::from_micros(20));
        }
        let weather = *self.weather.lock();
        if self.cuts.lock().contains_key(&(from, to)) || self.rand.chance(weather.loss) {
            return None;
        }
        let max = u64::try_from(weather.delay_max.as_micros()).unwrap_or(u64::MAX);
        let usual = Duration::from_micros(self.rand.between(max / 10, max));
        let straggles = self.rand.chance(weather.straggle);
        Some(if straggles { usual + self.rand.millis(20, 400) } else { usual })
    }

    /// Another copy of a message, if there is one.
    fn twice(&self, from: Addr, to: Addr) -> Option<Duration> {
        let duplicate = self.weather.lock().duplicate;
        self.rand.chance(duplicate).then(|| self.fate(from, to)).flatten()
    }
}

/// Asks a manager, at most for `limit`. The work is the asked process's own: it dies with it.
pub(super) async fn call<R, Fut>(
    world: &Arc<World>,
    from: Addr,
    to: usize,
    limit: Duration,
    work: impl FnOnce(Arc<Life>) -> Fut + Send,
) -> Result<R, CallError>
where
    R: Send + 'static,
    Fut: Future<Output = R> + Send + 'static,
{
    within(limit, exchange(world, from, to, work)).await.unwrap_or(Err(CallError::Lost))
}

async fn exchange<R, Fut>(
    world: &Arc<World>,
    from: Addr,
    to: usize,
    work: impl FnOnce(Arc<Life>) -> Fut + Send,
) -> Result<R, CallError>
where
    R: Send + 'static,
    Fut: Future<Output = R> + Send + 'static,
{
    let answer = match world.net.fate(from, to) {
        Some(delay) => {
            sleep(delay).await;
            match world.manager(to).life() {
                Some(life) => life.run(work).await.ok_or(CallError::Lost),
                None => Err(CallError::NotSent),
            }
        }
        None => {
            sleep(BROKEN_AFTER).await;
            return Err(CallError::Lost);
        }
    };
    match world.net.fate(to, from) {
        Some(delay) => {
            sleep(delay).await;
            answer
        }
        None => {
            sleep(BROKEN_AFTER).await;
            Err(CallError::Lost)
        }
    }
}

// === impl Wire ===

#[async_trait]
impl PeerTransport for Wire {
    async fn call(&self, target: u64, _member: &Member, call: PeerCall) -> Result<Bytes, PeerError> {
        let unreachable = |why: &str| Err(PeerError::Unreachable(why.into()));
        let Some(world) = self.world.upgrade() else { return unreachable("the world is over") };
        let Some(to) = world.slot_of(target) else { return unreachable("nobody has this id") };
        if let Some(delay) = world.net.twice(self.from, to) {
            let (again, world) = (call.clone(), world.clone());
            world.clone().spawn(async move {
                sleep(delay).await;
                if let Some(life) = world.manager(to).life().filter(|l| l.raft_id == target) {
                    let raft = life.raft.clone();
                    life.group.spawn(async move { drop(raft.handle(again).await) });
                }
            });
        }
        let work = move |life: Arc<Life>| async move {
            if life.raft_id != target {
                return Err(PeerError::Failed("another member lives here".into()));
            }
            life.raft.handle(call).await
        };
        match exchange(&world, self.from, to, work).await {
            Ok(answer) => answer,
            Err(CallError::NotSent) => unreachable("connection refused"),
            Err(CallError::Lost) => Err(PeerError::Failed("connection reset".into())),
        }
    }
}
