//! The record of what happened in the swarm, as this manager has seen it since it started: in the order of the log, each event
//! once, as many as there is room for. Whoever follows events reads them from here, so all see the same ones in the same order.

use super::message::message;
use crate::Swarm;
use bytes::Bytes;
use docker_api::EventMessage;
use model::ClusterId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::{Changes, Commit, Delta, Event, Object, ObjectId, Snapshot};
use tokio::sync::{Notify, watch};

/// Events that are kept (Docker keeps 256); of these, about one MiB.
pub(super) const EVENTS_MAX: usize = 4096;
/// How soon a node that is no manager looks again whether it is one.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long a manager may take to begin.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The record. Clones are one.
#[derive(Clone)]
pub(crate) struct Record(Arc<Shared>);

struct Shared {
    ring: Mutex<Ring>,
    /// The number of the next event.
    grown: watch::Sender<u64>,
    /// Whether changes are recorded.
    follows: watch::Sender<bool>,
    /// That this node has become a manager.
    look: Notify,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Arc<Entry>>,
    /// The number of the next event.
    next: u64,
    /// Rises each time that this node becomes a manager: log indexes are comparable within one only.
    reign: u64,
    cluster: Option<ClusterId>,
    /// No event is told an earlier time than the one before it, so that a client that has seen a time has seen all before.
    latest_unix_ns: u64,
}

/// An event in the record.
pub(super) struct Entry {
    pub(super) message: EventMessage,
    /// The same as a line of JSON.
    pub(super) line: Bytes,
    number: u64,
    reign: u64,
    /// Log index of the commit.
    index: u64,
}

/// Reads the record from some event on.
pub(super) struct Reader {
    record: Record,
    next: u64,
    /// What is older than the request, by number or by log index, is told only if it is wanted.
    replay_end: u64,
    reign: u64,
    index: u64,
    since_unix_ns: Option<u64>,
}

/// What is known of the objects that are told of, at one log index.
#[derive(Default)]
struct Known {
    index: u64,
    objects: BTreeMap<ObjectId, Object>,
}

// === impl Entry ===

impl Entry {
    pub(super) fn at_unix_ns(&self) -> u64 {
        u64::try_from(self.message.time_unix_ns).unwrap_or(0)
    }
}

// === impl Record ===

impl Default for Record {
    fn default() -> Self {
        let (grown, follows) = (watch::Sender::new(0), watch::Sender::new(false));
        Record(Arc::new(Shared { ring: Mutex::default(), grown, follows, look: Notify::new() }))
    }
}

impl Record {
    /// Records what the store's changes mean, for as long as this node is a manager, and again when it is one again.
    pub(crate) async fn keep(self, swarm: Arc<dyn Swarm>) {
        loop {
            if let Ok(store) = swarm.store() {
                // The changes from before the snapshot: none is missed between the two.
                let changes = store.changes();
                let snapshot = store.local();
                // Its changes end only when nobody holds the store any more.
                drop(store);
                let known = Known::of(&snapshot);
                self.begin(&snapshot, &known);
                drop(snapshot);
                self.follow(&*swarm, changes, known).await;
                self.0.follows.send_replace(false);
            }
            tokio::select! {
                biased;
                () = self.0.look.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// A reader from a request that is made now, at a state with this log index (`None` on a node that is no manager, which has
    /// nothing to replay).
    pub(super) fn reader(&self, index: Option<u64>, since_unix_ns: Option<u64>) -> Reader {
        let since_unix_ns = since_unix_ns.filter(|_| index.is_some());
        let ring = self.0.ring.lock();
        let next = if since_unix_ns.is_some() { ring.first() } else { ring.next };
        Reader {
            record: self.clone(),
            next,
            replay_end: ring.next,
            reign: ring.reign,
            index: index.unwrap_or(0),
            since_unix_ns,
        }
    }

    fn begin(&self, snapshot: &Snapshot, known: &Known) {
        let mut ring = self.0.ring.lock();
        let cluster = snapshot.cluster().map(|c| c.id.clone());
        if ring.cluster != cluster {
            // What happened in another swarm is no news in this one.
            ring.events.clear();
            (ring.cluster, ring.latest_unix_ns) = (cluster, 0);
        }
        ring.reign += 1;
        // As if the changes that made these objects had been seen: so times are the same as on managers that have seen them.
        ring.latest_unix_ns = known.latest_unix_ns().max(ring.latest_unix_ns);
        drop(ring);
        self.0.follows.send_replace(true);
    }

    /// Waits until a manager's changes are recorded, which would otherwise begin a moment after it has become one: whoever is
    /// about to make a change, or to wait for one, makes sure that it is seen.
    pub(crate) async fn begun(&self) {
        let mut follows = self.0.follows.subscribe();
        if *follows.borrow_and_update() {
            return;
        }
        self.0.look.notify_one();
        // After that long it is not one any more.
        let _ = tokio::time::timeout(BEGIN_TIMEOUT, follows.wait_for(|follows| *follows)).await;
    }

    /// Until there are no more changes.
    async fn follow(&self, swarm: &dyn Swarm, mut changes: Changes, mut known: Known) {
        loop {
            match changes.next().await {
                Event::Commit(commit) if commit.index <= known.index => {}
                Event::Commit(commit) => {
                    known.apply(&commit);
                    self.add(commit.index, commit.at.0, &commit.deltas);
                }
                // Commits were missed: what they came to is told, if not each step.
                Event::Resync => {
                    let Ok(store) = swarm.store() else { return };
                    let now = Known::of(&store.local());
                    drop(store);
                    let deltas = known.difference(&now);
                    let at = now.latest_unix_ns();
                    known = now;
                    self.add(known.index, at, &deltas);
                }
                Event::Closed => return,
            }
        }
    }

    fn add(&self, index: u64, at_unix_ns: u64, deltas: &[Delta]) {
        let next = {
            let mut ring = self.0.ring.lock();
            for delta in deltas {
                ring.add(index, at_unix_ns, delta);
            }
            ring.next
        };
        self.0.grown.send_if_modified(|seen| std::mem::replace(seen, next) != next);
    }
}

// === impl Ring ===

impl Ring {
    /// The number of the oldest event that is kept.
    fn first(&self) -> u64 {
        self.events.front().map_or(self.next, |e| e.number)
    }

    fn add(&mut self, index: u64, at_unix_ns: u64, delta: &Delta) {
        let at = at_unix_ns.max(self.latest_unix_ns);
        let Some(message) = message(delta, at) else { return };
        self.latest_unix_ns = at;
        let mut line = serde_json::to_vec(&message).expect("an event is a map with string keys, which always encodes");
        line.push(b'\n');
        let (number, reign) = (self.next, self.reign);
        self.events.push_back(Arc::new(Entry { message, line: line.into(), number, reign, index }));
        self.next += 1;
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// The first event from this number on.
    fn from(&self, number: u64) -> Option<Arc<Entry>> {
        let skip = number.saturating_sub(self.first());
        self.events.get(usize::try_from(skip).ok()?).cloned()
    }
}

// === impl Reader ===

impl Reader {
    /// The next event from before the request; `None` when there are no more.
    pub(super) fn next_replayed(&mut self) -> Option<Arc<Entry>> {
        while self.next < self.replay_end {
            let entry = self.record.0.ring.lock().from(self.next)?;
            if entry.number >= self.replay_end {
                return None;
            }
            self.next = entry.number + 1;
            if self.is_wanted(&entry) {
                return Some(entry);
            }
        }
        None
    }

    /// The next event. A reader that is slower than the record is long goes on with the oldest that is there.
    pub(super) async fn next(&mut self) -> Arc<Entry> {
        let mut grown = self.record.0.grown.subscribe();
        loop {
            grown.borrow_and_update();
            let entry = self.record.0.ring.lock().from(self.next);
            match entry {
                Some(entry) => {
                    self.next = entry.number + 1;
                    if self.is_wanted(&entry) {
                        return entry;
                    }
                }
                // The sender lives as long as the record, of which this reader has a clone.
                None => drop(grown.changed().await),
            }
        }
    }

    fn is_wanted(&self, entry: &Entry) -> bool {
        let from_before = entry.number < self.replay_end || (entry.reign == self.reign && entry.index <= self.index);
        !from_before || self.since_unix_ns.is_some_and(|since| entry.at_unix_ns() >= since)
    }
}

// === impl Known ===

impl Known {
    fn of(snapshot: &Snapshot) -> Known {
        let services = snapshot.services().cloned().map(Object::Service);
        let nodes = snapshot.nodes().cloned().map(Object::Node);
        let secrets = snapshot.secrets().cloned().map(Object::Secret);
        let configs = snapshot.configs().cloned().map(Object::Config);
        let objects = services.chain(nodes).chain(secrets).chain(configs).map(|o| (o.id(), o)).collect();
        Known { index: snapshot.index(), objects }
    }

    fn apply(&mut self, commit: &Commit) {
        self.index = commit.index;
        for delta in &commit.deltas {
            match &delta.after {
                Some(Object::Cluster(_) | Object::Task(_) | Object::Payload(_)) => {}
                Some(after) => drop(self.objects.insert(after.id(), after.clone())),
                None => drop(self.objects.remove(&delta.id())),
            }
        }
    }

    /// When the newest of the objects was changed.
    fn latest_unix_ns(&self) -> u64 {
        self.objects.values().map(|o| o.meta().updated_at.0).max().unwrap_or(0)
    }

    /// What has changed, in the order of the log as far as it is known: removals last.
    fn difference(&self, now: &Known) -> Vec<Delta> {
        let mut changed: Vec<Delta> = now
            .objects
            .iter()
            .map(|(id, after)| Delta { before: self.objects.get(id).cloned(), after: Some(after.clone()) })
            .filter(|d| version(&d.before) != version(&d.after))
            .collect();
        changed.sort_by_key(|d| version(&d.after));
        let gone = self.objects.iter().filter(|(id, _)| !now.objects.contains_key(id));
        changed.extend(gone.map(|(_, before)| Delta { before: Some(before.clone()), after: None }));
        changed
    }
}

fn version(object: &Option<Object>) -> Option<u64> {
    object.as_ref().map(|o| o.meta().version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Config, ConfigSpec, Meta, Timestamp};

    fn config(n: u64, version: u64, at: u64) -> Object {
        let meta = Meta { version, created_at: Timestamp(1), updated_at: Timestamp(at) };
        let name = format!("c{n}").parse().expect("a name");
        let spec = ConfigSpec { name, labels: BTreeMap::new(), templating: None };
        let id = format!("{n:025}").parse().expect("an id");
        Object::Config(Arc::new(Config { id, meta, spec, data_version: 1 }))
    }

    fn created(n: u64) -> Delta {
        Delta { before: None, after: Some(config(n, n, n)) }
    }

    /// What a reader that asks at this state is told at once: what happened to what, and when.
    fn told(record: &Record, index: u64, since: Option<u64>) -> Vec<(String, u64)> {
        let mut reader = record.reader(Some(index), since);
        let mut all = Vec::new();
        while let Some(entry) = reader.next_replayed() {
            let name = &entry.message.actor.attributes["name"];
            all.push((format!("{} {name}", entry.message.action), entry.at_unix_ns()));
        }
        all
    }

    fn named(all: &[(&str, u64)]) -> Vec<(String, u64)> {
        all.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect()
    }

    #[test]
    fn what_happened_since_a_time_is_told_once_and_in_the_order_of_the_log() {
        let record = Record::default();
        // The clocks of two managers: the second change is made by one that is behind.
        for (index, at) in [(5, 100), (6, 90), (7, 120)] {
            record.add(index, at, &[created(index)]);
        }
        let (five, six, seven) = (("create c5", 100), ("create c6", 100), ("create c7", 120));
        for (since, expected) in [
            (None, &[][..]),
            (Some(0), &[five, six, seven]),
            (Some(100), &[five, six, seven]),
            (Some(101), &[seven]),
            (Some(120), &[seven]),
            (Some(121), &[]),
        ] {
            assert_eq!(told(&record, 7, since), named(expected), "{since:?}");
        }
        assert!(told(&Record::default(), 7, Some(0)).is_empty());
    }

    #[tokio::test]
    async fn what_comes_is_told_whatever_its_clock_says_and_what_was_before_is_not() {
        let record = Record::default();
        record.add(5, 100, &[created(5)]);
        let mut reader = record.reader(Some(6), Some(1_000));
        // Committed before the request, recorded after it.
        record.add(6, 110, &[created(6)]);
        record.add(7, 120, &[created(7)]);
        assert!(reader.next_replayed().is_none());
        assert_eq!(reader.next().await.index, 7);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_and_a_slow_reader_goes_on_with_the_oldest() {
        let record = Record::default();
        let mut slow = record.reader(Some(0), None);
        let all = u64::try_from(EVENTS_MAX).expect("it fits") + 10;
        for n in 1..=all {
            record.add(n, n, &[created(n)]);
        }
        assert_eq!(record.0.ring.lock().events.len(), EVENTS_MAX);
        assert_eq!(slow.next().await.index, 11);
        assert_eq!(slow.next().await.index, 12);
        assert_eq!(told(&record, all, Some(0)).len(), EVENTS_MAX);
    }

    #[test]
    fn what_a_gap_in_the_changes_came_to_is_told() {
        let of =
            |index, objects: &[Object]| Known { index, objects: objects.iter().map(|o| (o.id(), o.clone())).collect() };
        let before = of(4, &[config(1, 1, 10), config(2, 2, 20), config(3, 3, 30)]);
        let now = of(9, &[config(1, 1, 10), config(2, 8, 80), config(4, 7, 70)]);
        let record = Record::default();
        record.add(now.index, now.latest_unix_ns(), &before.difference(&now));
        let expected = named(&[("create c4", 80), ("update c2", 80), ("remove c3", 80)]);
        assert_eq!(told(&record, 9, Some(0)), expected);
        assert!(now.difference(&now).is_empty());
    }

    #[test]
    fn times_begin_where_the_state_is_and_another_swarm_begins_anew() {
        let mut known = Known::default();
        known.objects.insert(config(1, 1, 500).id(), config(1, 1, 500));
        let record = Record::default();
        record.begin(&Snapshot::default(), &known);
        // A manager that has seen the first change tells this one no earlier either.
        record.add(2, 400, &[created(2)]);
        assert_eq!(told(&record, 2, Some(0)), named(&[("create c2", 500)]));
        record.0.ring.lock().cluster = Some("c".repeat(25).parse().expect("an id"));
        record.begin(&Snapshot::default(), &Known::default());
        assert!(told(&record, 2, Some(0)).is_empty());
    }
}
