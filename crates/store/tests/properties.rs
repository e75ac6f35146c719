//! The state machine under random logs.

mod sample;

use model::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use swarmlite_store::*;

/// A few objects of each kind, so that transactions meet each other.
fn object() -> impl Strategy<Value = Object> {
    let c = prop::sample::select(vec!['a', 'b', 'd']);
    prop_oneof![
        Just(sample::cluster().into()),
        (c.clone(), any::<bool>(), 0..3_u64).prop_map(|(c, up, since)| {
            let mut node = sample::node();
            node.id = sample::id(c);
            node.spec.availability = Availability::Active;
            node.status.takes_tasks_since = Timestamp(since);
            node.status.state = if up { NodeState::Ready } else { NodeState::Down };
            node.into()
        }),
        (c.clone(), 0..3_u8, any::<bool>(), any::<bool>()).prop_map(|(c, name, global, moves)| {
            let mut service = sample::service();
            service.id = sample::id(c);
            let moving = moves.then(|| Move { task: sample::id('v'), from: sample::id(c) });
            service.progress.rebalance = Some(Rebalance { moving, ..Rebalance::default() });
            if global {
                service.spec.mode = Mode::Global;
            }
            service.spec.name = format!("s{name}").parse().unwrap();
            service.into()
        }),
        granted(),
        (
            prop::sample::select(vec!['a', 'b', 'd', 'e', 'f', 'g']),
            c.clone(),
            prop::option::of(c),
            1..3_u64,
            any::<bool>()
        )
            .prop_map(|(id, service, node, slot, wanted)| {
                let mut task = sample::task();
                task.id = sample::id(id);
                task.service_id = sample::id(service);
                task.node_id = node.map(sample::id);
                task.slot = slot;
                // Every second one has data of a secret.
                if slot == 2 {
                    task.spec = sample::user().spec.task;
                }
                task.desired = if wanted { TaskState::Running } else { TaskState::Shutdown };
                task.status.state = if wanted { TaskState::Pending } else { TaskState::Failed };
                task.into()
            }),
    ]
}

/// Secrets, configs, their data, and a service that uses some of them or none.
fn granted() -> impl Strategy<Value = Object> {
    let c = prop::sample::select(vec!['k', 'i', 'j']);
    prop_oneof![
        (c.clone(), 0..2_u8, 1..4_u64).prop_map(|(c, name, data_version)| {
            let mut secret = sample::secret();
            (secret.id, secret.data_version) = (sample::id(c), data_version);
            secret.spec.name = format!("d{name}").parse().unwrap();
            secret.into()
        }),
        (c.clone(), 0..2_u8).prop_map(|(c, name)| {
            let mut config = sample::config();
            config.id = sample::id(c);
            config.spec.name = format!("d{name}").parse().unwrap();
            config.into()
        }),
        (c.clone(), 1..4_u64, any::<bool>()).prop_map(|(c, version, secret)| {
            let of = if secret { Dependency::Secret(sample::id(c)) } else { Dependency::Config(sample::id(c)) };
            sample::payload(PayloadId { of, version }).into()
        }),
        (c, any::<bool>(), any::<bool>()).prop_map(|(c, secrets, configs)| {
            let mut user = sample::user();
            let container = std::sync::Arc::make_mut(&mut user.spec.task).container_mut().unwrap();
            container.secrets.retain(|_| secrets);
            container.configs.retain(|_| configs);
            container.secrets.iter_mut().for_each(|r| r.secret_id = sample::id(c));
            user.into()
        }),
    ]
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![
        object().prop_map(|o| Check::Unreferenced { id: o.id() }),
        (0..2_u8).prop_map(|n| Check::NameFree { kind: Kind::Secret, name: format!("d{n}") }),
        (0..2_u8).prop_map(|n| Check::NameFree { kind: Kind::Config, name: format!("d{n}") }),
        (object(), 0..12_u64).prop_map(|(o, version)| Check::Unchanged { id: o.id(), version }),
        object().prop_map(|o| Check::Exists { id: o.id() }),
        object().prop_map(|o| Check::Absent { id: o.id() }),
        (0..3_u8).prop_map(|n| Check::NameFree { kind: Kind::Service, name: format!("s{n}") }),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let change = prop_oneof![3 => object().prop_map(Change::Put), 1 => object().prop_map(|o| Change::Remove(o.id()))];
    let checks = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(check(), 1..3)];
    (any::<u32>(), checks, prop::collection::vec(change, 0..5)).prop_map(|(at, checks, changes)| Transaction {
        at: Timestamp(at.into()),
        checks,
        changes,
    })
}

fn log() -> impl Strategy<Value = Vec<Transaction>> {
    prop::collection::vec(transaction(), 1..40)
}

/// The indexes say what the objects say.
fn assert_indexed(s: &Snapshot) {
    let ids =
        |i: &mut dyn Iterator<Item = &std::sync::Arc<Task>>| -> BTreeSet<TaskId> { i.map(|t| t.id.clone()).collect() };
    let naive = |f: &dyn Fn(&Task) -> bool| ids(&mut s.tasks().filter(|t| f(t)));
    for c in ['a', 'b', 'd'] {
        let (service, node): (ServiceId, NodeId) = (sample::id(c), sample::id(c));
        assert_eq!(ids(&mut s.tasks_of_service(&service)), naive(&|t| t.service_id == service));
        assert_eq!(ids(&mut s.tasks_on_node(&node)), naive(&|t| t.node_id.as_ref() == Some(&node)));
    }
    assert_eq!(ids(&mut s.unplaced_tasks()), naive(&|t| t.node_id.is_none() && t.is_active()));
    let with_tasks: BTreeSet<_> = s.services_with_tasks().cloned().collect();
    assert_eq!(with_tasks, s.tasks().map(|t| t.service_id.clone()).collect());
    assert_granted_indexed(s);
    let global: Vec<_> = s.services().filter(|o| o.spec.mode.is_global()).map(|o| &o.id).collect();
    assert_eq!(s.global_services().collect::<Vec<_>>(), global);
    let moving = s.services().filter(|o| o.progress.is_moving());
    assert!(s.moving_services().eq(moving));
    let takers = s.nodes().filter(|n| n.takes_tasks());
    assert_eq!(s.newest_taker(), takers.max_by_key(|n| (n.status.takes_tasks_since, &n.id)));
    for service in s.services() {
        let named = s.service_named(&service.spec.name).expect("a service is found by its name");
        let first = s.services().find(|o| o.spec.name == service.spec.name);
        assert_eq!(Some(named), first);
    }
}

/// The same for secrets, configs and their data.
fn assert_granted_indexed(s: &Snapshot) {
    for c in ['k', 'i', 'j'] {
        for of in [Dependency::Secret(sample::id(c)), Dependency::Config(sample::id(c))] {
            let naming: Vec<_> = s.services_naming(&(&of).into()).collect();
            let naive = s.services().filter(|o| o.spec.task.dependencies().any(|d| d == of));
            assert_eq!(naming, naive.collect::<Vec<_>>());
            let kept: Vec<_> = s.payloads_of(&of).collect();
            assert_eq!(kept, s.payloads().filter(|p| p.id.of == of).collect::<Vec<_>>());
            for version in 1..4 {
                let id = PayloadId { of: of.clone(), version };
                let has = |t: &&std::sync::Arc<Task>| t.is_active() && t.spec.payloads().any(|p| p == id);
                assert_eq!(s.is_given(&id), s.tasks().any(|t| has(&t)));
                assert_eq!(s.payload(&id).is_some(), kept.iter().any(|p| p.id == id));
            }
        }
    }
    let is_current = |id: &PayloadId| match &id.of {
        Dependency::Secret(of) => s.secret(of).is_some_and(|o| o.data_version == id.version),
        Dependency::Config(of) => s.config(of).is_some_and(|o| o.data_version == id.version),
    };
    let outdated: Vec<_> = s.payloads().filter(|p| !is_current(&p.id)).collect();
    assert_eq!(s.outdated_payloads().collect::<Vec<_>>(), outdated);
    for secret in s.secrets() {
        let first = s.secrets().find(|o| o.spec.name == secret.spec.name);
        assert_eq!(s.secret_named(&secret.spec.name), first);
    }
    for config in s.configs() {
        let first = s.configs().find(|o| o.spec.name == config.spec.name);
        assert_eq!(s.config_named(&config.spec.name), first);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn equal_logs_make_equal_states_also_from_a_snapshot_on(log in log(), restart in 0..40_usize) {
        let (a, mut b) = (Store::new(), Store::new());
        for (i, transaction) in log.iter().enumerate() {
            if i == restart {
                let next = Store::new();
                next.restore(&Store::encode(&b.snapshot())).unwrap();
                b = next;
            }
            let index = i as u64 + 1;
            prop_assert_eq!(a.apply(index, transaction), b.apply(index, transaction));
            prop_assert_eq!(Store::encode(&a.snapshot()), Store::encode(&b.snapshot()));
        }
        assert_indexed(&a.snapshot());
        assert_indexed(&b.snapshot());
    }

    #[test]
    fn a_conflict_changes_nothing_and_success_changes_what_it_says(log in log()) {
        let store = Store::new();
        let mut changes = store.changes();
        let mut followed: BTreeMap<ObjectId, Object> = BTreeMap::new();
        for (i, transaction) in log.iter().enumerate() {
            let index = i as u64 + 1;
            let before: Vec<Object> = store.snapshot().objects().collect();
            let outcome = store.apply(index, transaction);
            let after = store.snapshot();
            prop_assert_eq!(after.index(), index);
            let event = changes.try_next();
            if outcome.is_err() {
                prop_assert_eq!(before, after.objects().collect::<Vec<_>>());
                prop_assert!(event.is_none());
                continue;
            }
            for change in &transaction.changes {
                if let Change::Put(o) = change && let Some(found) = after.get(&o.id()) {
                    prop_assert_eq!(found.meta().version, index);
                    prop_assert_eq!(found.meta().updated_at, transaction.at);
                }
            }
            // Whoever follows the stream has the same state.
            if let Some(Event::Commit(commit)) = event {
                prop_assert_eq!(commit.index, index);
                for delta in &commit.deltas {
                    prop_assert_eq!(followed.get(&delta.id()), delta.before.as_ref());
                    match &delta.after {
                        Some(o) => drop(followed.insert(o.id(), o.clone())),
                        None => drop(followed.remove(&delta.id())),
                    }
                }
            }
            let mut state: Vec<Object> = after.objects().collect();
            state.sort_by_key(Object::id);
            prop_assert_eq!(followed.values().cloned().collect::<Vec<_>>(), state);
        }
    }

    #[test]
    fn an_old_snapshot_is_not_touched_by_later_changes(log in log()) {
        let store = Store::new();
        let mut kept = Vec::new();
        for (i, transaction) in log.iter().enumerate() {
            let _either = store.apply(i as u64 + 1, transaction);
            let snapshot = store.snapshot();
            kept.push((Store::encode(&snapshot), snapshot));
        }
        for (encoded, snapshot) in kept {
            prop_assert_eq!(encoded, Store::encode(&snapshot));
        }
    }

    #[test]
    fn a_transaction_survives_its_encoding(transaction in transaction()) {
        prop_assert_eq!(Transaction::decode(&transaction.encode().unwrap()).unwrap(), transaction);
    }

    #[test]
    fn noise_is_refused_and_nothing_worse(noise in prop::collection::vec(any::<u8>(), 0..200), at in 0..4000_usize) {
        let _no_panic = Transaction::decode(&noise);
        let store = Store::new();
        prop_assert!(store.restore(&noise).is_err());
        // A damaged transaction, too, is refused or is a transaction.
        let sample = if noise.len() % 2 == 0 { sample::transaction() } else { sample::transaction_2() };
        let mut bytes = sample.encode().unwrap().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 + noise.first().copied().unwrap_or(0) % 255;
        let _no_panic = Transaction::decode(&bytes);
    }
}

#[test]
fn an_update_with_an_old_version_is_refused_with_docker_s_words() {
    let store = Store::new();
    store.apply(1, Transaction::new(Timestamp(1)).create(sample::service())).unwrap();
    let read = store.snapshot().services().next().unwrap().as_ref().clone();
    assert_eq!(read.meta.version, 1);
    store.apply(2, Transaction::new(Timestamp(2)).update(read.clone())).unwrap();
    let conflict = store.apply(3, Transaction::new(Timestamp(3)).update(read)).unwrap_err();
    assert_eq!(conflict.to_string(), "update out of sequence");
    let taken = Check::NameFree { kind: Kind::Service, name: "web".into() };
    let conflict = store.apply(4, Transaction::new(Timestamp(4)).check(taken)).unwrap_err();
    assert_eq!(conflict.to_string(), "name conflicts with an existing object: service web already exists");
    let meta = store.snapshot().services().next().unwrap().meta.clone();
    assert_eq!(meta, Meta { version: 2, created_at: Timestamp(1), updated_at: Timestamp(2) });
}

#[test]
fn equal_specs_are_kept_once() {
    let mut transaction = Transaction::new(Timestamp(1));
    transaction.create(sample::service());
    for c in ['a', 'b'] {
        let mut task = sample::task();
        task.id = sample::id(c);
        transaction.create(task);
    }
    let store = Store::new();
    store.apply(1, &Transaction::decode(&transaction.encode().unwrap()).unwrap()).unwrap();
    let restored = Store::new();
    restored.restore(&Store::encode(&store.snapshot())).unwrap();
    for snapshot in [store.snapshot(), restored.snapshot()] {
        let service = snapshot.services().next().unwrap();
        assert!(snapshot.tasks().all(|t| std::sync::Arc::ptr_eq(&t.spec, &service.spec.task)));
    }
}

#[test]
fn a_renamed_service_frees_its_name() {
    let store = Store::new();
    store.apply(1, Transaction::new(Timestamp(1)).create(sample::service())).unwrap();
    let mut service = store.snapshot().services().next().unwrap().as_ref().clone();
    service.spec.name = "api".parse().unwrap();
    store.apply(2, Transaction::new(Timestamp(1)).update(service)).unwrap();
    let snapshot = store.snapshot();
    assert!(snapshot.service_named(&"web".parse().unwrap()).is_none());
    assert!(snapshot.service_named(&"api".parse().unwrap()).is_some());
}

#[test]
fn what_does_not_fit_the_log_is_refused_before_it_gets_there() {
    let mut transaction = Transaction::new(Timestamp(1));
    (0..=limits::TRANSACTION_CHANGES_MAX)
        .for_each(|_| transaction.changes.push(Change::Remove(sample::id::<TaskId>('t').into())));
    let error = transaction.encode().unwrap_err();
    assert_eq!(error.changes, limits::TRANSACTION_CHANGES_MAX + 1);
    let mut service = sample::service();
    std::sync::Arc::make_mut(&mut service.spec.task).container_mut().unwrap().env =
        vec!["x".repeat(limits::TRANSACTION_BYTES_MAX)];
    assert!(Transaction::new(Timestamp(1)).create(service).encode().is_err());
}

#[tokio::test]
async fn a_reader_that_lags_or_a_state_that_is_replaced_means_resync() {
    let store = Store::new();
    let (mut prompt, mut slow) = (store.changes(), store.changes());
    for index in 1..=1025 {
        let put = Change::Put(sample::node().into());
        store.apply(index, &Transaction { changes: vec![put], ..Transaction::default() }).unwrap();
        assert!(matches!(prompt.next().await, Event::Commit(c) if c.index == index));
    }
    assert!(matches!(slow.next().await, Event::Resync));
    assert!(matches!(slow.next().await, Event::Commit(_)), "it goes on with what there still is");
    let bytes = Store::encode(&store.snapshot());
    store.restore(&bytes).unwrap();
    assert!(matches!(prompt.next().await, Event::Resync));
    assert!(prompt.try_next().is_none());
    drop(store);
    assert!(matches!(prompt.next().await, Event::Closed));
}

#[test]
fn the_largest_config_fits_one_transaction() {
    let data = Data::of_config(vec![0xff; limits::CONFIG_BYTES_END - 1]).unwrap();
    let mut transaction = Transaction::new(Timestamp(1));
    transaction.create(sample::config());
    transaction.create(Payload { data, ..sample::payload(sample::config().payload_id()) });
    let encoded = transaction.encode().unwrap();
    assert!(encoded.len() < limits::CONFIG_BYTES_END + 1000, "data is stored as bytes, not as a list of numbers");
    assert_eq!(Transaction::decode(&encoded).unwrap(), transaction);
}

/// Two clients at once: one removes a secret that nobody uses, the other makes a service that uses it. Whoever is second fails.
#[test]
fn what_comes_to_be_used_cannot_be_removed_and_what_is_removed_cannot_come_to_be_used() {
    let secret: ObjectId = (&sample::secret().id).into();
    let base = || {
        let store = Store::new();
        let mut tx = Transaction::new(Timestamp(1));
        tx.create(sample::secret()).create(sample::config());
        store.apply(1, &tx).unwrap();
        store
    };
    let mut remove = Transaction::new(Timestamp(2));
    remove.check(Check::Unreferenced { id: secret.clone() }).remove(secret.clone(), 1);
    let mut make = Transaction::new(Timestamp(2));
    make.check(Check::Exists { id: secret.clone() }).create(sample::user());

    let store = base();
    store.apply(2, &make).unwrap();
    let conflict = store.apply(3, &remove).unwrap_err();
    assert_eq!(conflict, Conflict::Referenced { id: secret.clone(), by: sample::id('u') });
    assert!(store.snapshot().get(&secret).is_some());

    let store = base();
    store.apply(2, &remove).unwrap();
    assert_eq!(store.apply(3, &make).unwrap_err(), Conflict::Missing(secret));
    assert!(store.snapshot().services().next().is_none());
}
