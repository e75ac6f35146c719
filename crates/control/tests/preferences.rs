//! Placement preferences: tasks are spread over the values of labels, level by level.
mod common;
use common::*;
use model::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn spread(mut task: TaskSpec, over: &[&str]) -> TaskSpec {
    let placement = task.placement.get_or_insert_default();
    placement.preferences = over.iter().map(|key| Preference::Spread((*key).into())).collect();
    task
}

/// A world with a node for each of these labels; each is `key=value key=value`.
fn world(nodes: &[&str]) -> (World, Vec<NodeId>) {
    let mut world = World::with_nodes(nodes.len());
    let ids = world.node_ids();
    for (id, labels) in ids.iter().zip(nodes) {
        world.change_node(id, |n| {
            for (key, value) in labels.split_whitespace().filter_map(|l| l.split_once('=')) {
                n.spec.labels.insert(key.into(), value.into());
            }
        });
    }
    (world, ids)
}

fn on_each(world: &World, service: &ServiceId, nodes: &[NodeId]) -> Vec<usize> {
    let wanted = world.wanted(service);
    nodes.iter().map(|n| wanted.iter().filter(|t| t.node_id.as_ref() == Some(n)).count()).collect()
}

#[test]
fn where_tasks_land() {
    const ZONES: &[&str] = &["zone=a", "zone=b", "zone=b", "zone=b"];
    const RACKS: &[&str] = &["zone=a rack=1", "zone=a rack=2", "zone=a rack=2", "zone=b rack=1"];
    // (nodes, preferences, replicas, tasks on each node)
    type Case = (&'static [&'static str], &'static [&'static str], u64, &'static [usize]);
    let table: &[Case] = &[
        (ZONES, &["node.labels.zone"], 6, &[3, 1, 1, 1]),
        (ZONES, &[], 8, &[2, 2, 2, 2]),
        // A node without the label is one more value.
        (&["zone=a", "zone=b", "", ""], &["node.labels.zone"], 6, &[2, 2, 1, 1]),
        // Two levels.
        (RACKS, &["node.labels.zone", "node.labels.rack"], 8, &[2, 1, 1, 4]),
        (RACKS, &["node.labels.rack", "node.labels.zone"], 8, &[2, 2, 2, 2]),
        // Docker knows labels only, and passes over anything else.
        (RACKS, &["node.hostname", "node.labels.zone"], 6, &[1, 1, 1, 3]),
        (ZONES, &["Node.Labels.zone"], 2, &[1, 1, 0, 0]),
    ];
    for (nodes, over, replicas, expected) in table {
        let (mut world, ids) = world(nodes);
        let id = world.create_service("web", *replicas, spread(image("nginx"), over));
        world.settle();
        assert_eq!(on_each(&world, &id, &ids), *expected, "{nodes:?} {over:?}");
    }
}

#[test]
fn a_branch_that_is_full_leaves_the_rest_to_the_others() {
    let (mut world, ids) = world(&["zone=a", "zone=b"]);
    world.change_node(&ids[0], |n| n.description.as_mut().unwrap().resources.nano_cpus = 1_000_000_000);
    let asks = with_reservation(image("nginx"), 1_000_000_000, 0);
    let id = world.create_service("web", 4, spread(asks, &["node.labels.zone"]));
    world.settle();
    assert_eq!(on_each(&world, &id, &ids), [1, 3]);
}

#[test]
fn what_runs_on_nodes_that_take_nothing_counts_in_its_branch() {
    let (mut world, ids) = world(&["zone=a", "zone=b"]);
    world.set_availability(&ids[1], Availability::Pause);
    let id = world.create_service("web", 3, spread(image("nginx"), &["node.labels.zone"]));
    world.settle();
    world.set_availability(&ids[0], Availability::Pause);
    world.set_availability(&ids[1], Availability::Active);
    let more = world.add_node();
    world.change_node(&more, |n| _ = n.spec.labels.insert("zone".into(), "a".into()));
    world.scale(&id, 6);
    world.settle();
    let ids = [ids[0].clone(), ids[1].clone(), more];
    assert_eq!(on_each(&world, &id, &ids), [3, 3, 0], "zone a has three already");
}

#[test]
fn engine_labels_and_successors_too() {
    let mut world = World::with_nodes(3);
    let ids = world.node_ids();
    for (id, disk) in ids.iter().zip(["ssd", "hdd", "hdd"]) {
        world.change_node(id, |n| {
            let labels = &mut n.description.as_mut().unwrap().engine.labels;
            labels.insert("disk".into(), disk.into());
        });
    }
    let id = world.create_service("web", 4, spread(image("v1"), &["engine.labels.disk"]));
    world.settle();
    assert_eq!(on_each(&world, &id, &ids), [2, 1, 1]);
    world.set_image(&id, "v2");
    world.settle();
    assert_eq!(world.images(&id), ["v2"; 4]);
    assert_eq!(on_each(&world, &id, &ids), [2, 1, 1], "an update spreads them as well");
}

/// The tasks of a service by what their nodes have of these labels.
fn by_values(world: &World, service: &ServiceId, keys: &[&str]) -> BTreeMap<Vec<String>, usize> {
    let snapshot = world.snapshot();
    let value = |node: &Arc<Node>, key: &str| node.spec.labels.get(key).cloned().unwrap_or_default();
    let path = |node: &Arc<Node>| keys.iter().map(|k| value(node, k)).collect::<Vec<_>>();
    let mut counts: BTreeMap<Vec<String>, usize> = snapshot.nodes().map(|n| (path(n), 0)).collect();
    for task in world.wanted(service) {
        let node = task.node_id.as_ref().and_then(|id| snapshot.node(id)).unwrap();
        *counts.get_mut(&path(node)).unwrap() += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// When everything fits, the values of each level differ by one task at most, wherever nodes were added and whatever
    /// was scaled; and so do nodes with equal labels.
    #[test]
    fn every_level_is_even(
        labels in prop::collection::vec((0..3_u8, 0..3_u8), 1..9),
        scales in prop::collection::vec(0..30_u64, 1..4),
        two_levels in any::<bool>(),
    ) {
        let mut world = World::with_nodes(labels.len());
        for (id, (zone, rack)) in world.node_ids().iter().zip(&labels) {
            world.change_node(id, |n| {
                n.spec.labels.insert("zone".into(), zone.to_string());
                // Some nodes have no such label.
                if *rack > 0 {
                    n.spec.labels.insert("rack".into(), rack.to_string());
                }
            });
        }
        let over = if two_levels { &["node.labels.zone", "node.labels.rack"][..] } else { &["node.labels.zone"] };
        let id = world.create_service("web", 0, spread(image("nginx"), over));
        let mut at_most = 0;
        for replicas in scales {
            // Docker does not mind preferences when it scales down, and nothing moves afterwards: so only up.
            at_most = at_most.max(replicas);
            world.scale(&id, at_most);
            world.settle();
            let zones = by_values(&world, &id, &["zone"]);
            let (least, most) = (zones.values().min().unwrap(), zones.values().max().unwrap());
            prop_assert!(most - least <= 1, "{zones:?}");
            if two_levels {
                let racks = by_values(&world, &id, &["zone", "rack"]);
                for zone in zones.keys() {
                    let of_zone = || racks.iter().filter(|(path, _)| path[0] == zone[0]).map(|(_, n)| *n);
                    prop_assert!(of_zone().max().unwrap() - of_zone().min().unwrap() <= 1, "{racks:?}");
                }
            }
            // Within the innermost branch, nodes are even.
            let keys = if two_levels { &["zone", "rack"][..] } else { &["zone"] };
            let snapshot = world.snapshot();
            let mut nodes: BTreeMap<Vec<Option<&String>>, Vec<usize>> = BTreeMap::new();
            for node in snapshot.nodes() {
                let path = keys.iter().map(|k| node.spec.labels.get(*k)).collect();
                nodes.entry(path).or_default().push(on_each(&world, &id, std::slice::from_ref(&node.id))[0]);
            }
            for counts in nodes.values() {
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{nodes:?}");
            }
        }
    }
}
