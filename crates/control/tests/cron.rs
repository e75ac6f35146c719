//! Jobs with a schedule: every time is run once, whoever leads and whatever the clock does, unless it is left out for a reason.
mod common;
use common::*;
use model::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The world begins at 13:46:40 of a day in January 1970.
const BEGIN: u64 = 1_000_000;

fn cron(schedule: &str) -> CronSpec {
    CronSpec {
        schedule: schedule.parse().unwrap(),
        timezone: TimeZoneName::default(),
        missed_run_window: SECOND * 60,
        concurrency: Concurrency::Forbid,
        history: 100,
    }
}

fn create(world: &mut World, task: TaskSpec, cron: CronSpec) -> ServiceId {
    world.create_service_with("backup", 0, task, |s| {
        s.mode = Mode::ReplicatedJob { max_concurrent: 1, total_completions: 1 };
        s.cron = Some(cron);
    })
}

/// For each run, when its first task was made: seconds after the beginning.
fn runs(world: &World, id: &ServiceId) -> Vec<u64> {
    let mut runs: BTreeMap<u64, u64> = BTreeMap::new();
    for task in world.tasks(id) {
        let at = task.meta.created_at.0 / 1_000_000_000 - BEGIN;
        let first = runs.entry(task.job_iteration.unwrap()).or_insert(at);
        *first = at.min(*first);
    }
    runs.into_values().collect()
}

fn state(world: &World, id: &ServiceId) -> CronState {
    world.service(id).progress.cron.unwrap()
}

#[test]
fn it_does_not_run_when_it_is_made_and_then_at_each_time() {
    let mut world = World::with_nodes(1);
    let id = create(&mut world, image("done/5s"), cron("*/5 * * * *"));
    world.settle();
    assert!(world.tasks(&id).is_empty());
    world.run_for(SECOND * 200 + SECOND * 600);
    assert_eq!(runs(&world, &id), [200, 500, 800], "13:50, 13:55, 14:00");
    assert!(world.tasks(&id).iter().all(|t| t.job_iteration <= Some(2)));
    world.run_for(SECOND * 10);
    world.settle();
    assert_eq!(state(&world, &id).left_out, 0);
    assert_eq!(state(&world, &id).started, Some(2));
}

#[test]
fn the_zone_is_that_of_the_schedule() {
    let mut world = World::with_nodes(1);
    let spec = CronSpec { timezone: "Asia/Kolkata".parse().unwrap(), ..cron("20 19 * * *") };
    let id = create(&mut world, image("done"), spec);
    world.run_for(SECOND * 3600);
    assert_eq!(runs(&world, &id), [200], "19:20 in Kolkata is 13:50 UTC");
}

#[test]
fn a_run_that_is_due_while_the_last_one_goes_on() {
    let every = vec![20, 80, 140, 200, 260, 320, 380, 440, 500, 560, 620];
    // (what happens then, when runs begin, runs that were left out, tasks that ended well, that were stopped, that go on)
    for (concurrency, expected, left_out, counts) in [
        (Concurrency::Forbid, vec![20, 140, 260, 380, 500, 620], 5, (5, 0, 1)),
        (Concurrency::Allow, every.clone(), 0, (10, 0, 1)),
        (Concurrency::Replace, every, 0, (0, 10, 1)),
    ] {
        let mut world = World::with_nodes(1);
        let id = create(&mut world, image("done/70s"), CronSpec { concurrency, ..cron("* * * * *") });
        world.run_for(SECOND * 630);
        assert_eq!((runs(&world, &id), state(&world, &id).left_out), (expected, left_out), "{concurrency:?}");
        let tasks = world.tasks(&id);
        let count = |f: fn(&Task) -> bool| tasks.iter().filter(|t| f(t)).count();
        let ended = count(|t| t.status.state == TaskState::Complete);
        let stopped = count(|t| t.desired == TaskState::Shutdown);
        assert_eq!(
            (ended, stopped, count(Task::is_active)),
            counts,
            "{concurrency:?}: what was stopped stays as history"
        );
    }
}

#[test]
fn runs_that_overlap_have_an_end() {
    let mut world = World::with_nodes(1);
    let spec = CronSpec { concurrency: Concurrency::Allow, ..cron("* * * * *") };
    let id = create(&mut world, image("done/100000s"), spec);
    world.run_for(SECOND * 60 * 40);
    let active = world.tasks(&id).iter().filter(|t| t.is_active()).count();
    assert_eq!(active, limits::CRON_RUNS_MAX);
    assert_eq!(state(&world, &id).left_out, 40 - limits::CRON_RUNS_MAX as u64);
}

#[test]
fn a_time_that_was_missed_is_run_within_its_window_and_left_out_beyond() {
    // (window, for how long nobody leads, when a run begins, runs left out); the time is 200 s after the beginning
    for (window, away, expected, left_out) in [
        (60, 199, vec![200], 0),
        (60, 230, vec![230], 0),
        (60, 260, vec![260], 0),
        (60, 261, vec![], 1),
        (0, 201, vec![], 1),
        (3600, 3700, vec![3700], 0),
        (3600, 3801, vec![], 1),
    ] {
        let mut world = World::with_nodes(1);
        let spec = CronSpec { missed_run_window: Duration::from_secs(window), ..cron("50 13 * * *") };
        let id = create(&mut world, image("done"), spec);
        world.control();
        world.pass(Duration::from_secs(away));
        world.change_leader();
        world.run_for(SECOND * 300);
        assert_eq!((runs(&world, &id), state(&world, &id).left_out), (expected, left_out), "{window} {away}");
    }
    // Many times are missed, and one is within its window.
    let mut world = World::with_nodes(1);
    let id = create(&mut world, image("done"), cron("* * * * *"));
    world.control();
    world.pass(SECOND * 86_400 * 400);
    world.change_leader();
    world.run();
    assert_eq!(runs(&world, &id).len(), 1);
}

#[test]
fn leaders_and_clocks_change_and_no_time_is_run_twice() {
    let mut world = World::with_nodes(2);
    let id = create(&mut world, image("done/2s"), cron("* * * * *"));
    let mut belated = None;
    for step in 0..2_000_u64 {
        world.change_leader();
        if step % 7 == 0 {
            belated = Some(world.plan());
        }
        world.control();
        world.agents();
        if let Some(plan) = belated.take().filter(|p| step % 7 == 3 && !p.is_empty()) {
            assert!(world.apply(&plan).is_err(), "what an old leader still proposes changes nothing");
        }
        match step % 100 {
            50 => world.now = Timestamp(world.now.0 - 45_000_000_000),
            99 => world.pass(SECOND * 44),
            _ => world.pass(Duration::from_millis(700)),
        }
    }
    world.control();
    let runs = runs(&world, &id);
    let elapsed = world.now.0 / 1_000_000_000 - BEGIN;
    // Every minute once, but for those that a clock that was set back had run before.
    let mut minutes: Vec<u64> = runs.iter().map(|at| (at + BEGIN) / 60).collect();
    minutes.dedup();
    assert_eq!(minutes.len(), runs.len(), "no minute has two runs: {runs:?}");
    assert_eq!(state(&world, &id).left_out, 0);
    let expected = (elapsed + BEGIN) / 60 - BEGIN / 60;
    assert_eq!(runs.len() as u64, expected, "{runs:?}");
}

#[test]
fn an_update_changes_the_runs_to_come_and_not_the_one_that_goes_on() {
    let mut world = World::with_nodes(1);
    let id = create(&mut world, image("done/30s"), cron("*/5 * * * *"));
    world.set_image(&id, "done/31s");
    world.run_for(SECOND * 100);
    assert!(world.tasks(&id).is_empty(), "an update is no reason to run");
    world.run_for(SECOND * 110);
    let first = world.tasks(&id)[0].clone();
    assert!(first.is_active());
    world.set_image(&id, "done/32s");
    world.run_for(SECOND * 60);
    assert_eq!(world.snapshot().task(&first.id).unwrap().status.state, TaskState::Complete);
    assert_eq!(world.tasks(&id).len(), 1);
    world.run_for(SECOND * 300);
    let images: Vec<_> = world.tasks(&id).iter().map(|t| t.spec.origin().to_owned()).collect();
    assert_eq!(images, ["done/31s", "done/32s"]);
    // By force it runs now, and the schedule goes on as before.
    world.change_service(&id, |s| Arc::make_mut(&mut s.task).force_update += 1);
    world.run();
    assert_eq!(world.tasks(&id).len(), 3);
    world.run_for(SECOND * 60);
    world.settle();
    assert_eq!(runs(&world, &id), [200, 500, 570]);
}

#[test]
fn another_schedule_begins_when_it_is_set() {
    let mut world = World::with_nodes(1);
    let id = create(&mut world, image("done"), CronSpec { missed_run_window: SECOND * 86_400, ..cron("0 0 1 1 *") });
    world.run_for(SECOND * 3600);
    // 13:50 was before the schedule was.
    world.change_service(&id, |s| s.cron.as_mut().unwrap().schedule = "50 13,15 * * *".parse().unwrap());
    world.run_for(SECOND * 3600);
    assert!(world.tasks(&id).is_empty());
    world.run_for(SECOND * 3600);
    assert_eq!(runs(&world, &id), [7400]);
    // Without a schedule it is a plain job, of which every update is a run.
    world.change_service(&id, |s| s.cron = None);
    world.settle();
    assert_eq!(world.tasks(&id).len(), 2);
    assert_eq!(world.service(&id).progress.cron, None);
}

#[test]
fn as_many_runs_are_remembered_as_the_history_says() {
    for (history, kept) in [(0, 1), (1, 1), (3, 3)] {
        let mut world = World::with_nodes(2);
        let id = create(&mut world, image("done/1s"), CronSpec { history, ..cron("* * * * *") });
        world.run_for(SECOND * 900);
        world.settle();
        assert_eq!(runs(&world, &id).len(), kept, "{history}");
        assert_eq!(state(&world, &id).started, Some(14));
    }
}

#[test]
fn a_global_job_runs_on_the_nodes_that_are_there_when_it_is_time() {
    let mut world = World::with_nodes(3);
    let id = world.create_service_with("sweep", 0, image("done/1s"), |s| {
        s.mode = Mode::GlobalJob;
        s.cron = Some(cron("*/10 * * * *"));
    });
    world.run_for(SECOND * 210);
    assert_eq!(world.tasks(&id).len(), 3);
    let late = world.add_node();
    world.run_for(SECOND * 20);
    assert_eq!(world.tasks(&id).len(), 4, "within the window it is not too late");
    world.run_for(SECOND * 60);
    world.add_node();
    let first = world.node_ids()[0].clone();
    world.set_availability(&first, Availability::Drain);
    world.run_for(SECOND * 60);
    world.settle();
    assert_eq!(world.tasks(&id).len(), 4, "beyond, the next time counts");
    world.node_down(&late);
    world.run_for(SECOND * 500);
    world.settle();
    let of = |run| world.tasks(&id).iter().filter(|t| t.job_iteration == Some(run)).count();
    assert_eq!((of(0), of(1)), (4, 3));
}
