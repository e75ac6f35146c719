//! The agent through its public surface: a model manager above, the embedded engine below, virtual time.

mod common;

use common::{World, label_of, node_id, task, task_id, wanted};
use engine::embedded::Call;
use engine::{ContainerPhase, Engine as _, EngineError, NewContainer};
use model::{ContainerSpec, Healthcheck, PortConfig, Protocol, PublishMode, RaftTicks, Role, Task, TaskState};
use rpc::proto::logs::subscription_message::Body;
use rpc::proto::logs::{LogOptions, Subscription};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_agent::{AgentCanaries, AgentConfig, Position};
use tokio::time::Instant;

const IN_ORDER: [TaskState; 6] = [
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Ready,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Shutdown,
];

fn assert_in_order(states: &[TaskState]) {
    assert!(states.windows(2).all(|w| w[0] < w[1]), "{states:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_comes_to_run_under_docker_swarms_name_and_labels() {
    let world = World::started(1).await;
    let mut new = task(1, "web:1");
    let spec = Arc::make_mut(&mut new.spec);
    spec.container_mut().unwrap().labels = [("mine".to_owned(), "1".to_owned())].into();
    new.host_ports = vec![PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port: 8080,
        mode: PublishMode::Host,
    }];
    world.manager().assign(1, vec![new]);
    world.until_state(1, TaskState::Running).await;

    let containers = world.engine.containers();
    let [container] = &containers[..] else { panic!("{containers:?}") };
    let name = format!("web.1.{}", task_id(1));
    assert_eq!(container.name, name);
    let labels: Vec<(&str, &str)> = container.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("com.docker.swarm.node.id", node_id(1).as_str()),
            ("com.docker.swarm.service.id", format!("s{:024}", 1).as_str()),
            ("com.docker.swarm.service.name", "web"),
            ("com.docker.swarm.task", ""),
            ("com.docker.swarm.task.id", task_id(1).as_str()),
            ("com.docker.swarm.task.name", name.as_str()),
            ("com.swarmlite.node", node_id(1).as_str()),
            ("mine", "1"),
        ]
    );
    let status = world.manager().status(&task_id(1));
    assert_eq!((status.message.as_str(), status.err.as_str()), ("started", ""));
    let told = status.container.unwrap();
    assert_eq!((told.id, told.pid, told.exit_code), (container.id.clone(), container.pid, None));
    assert_eq!(status.ports.len(), 1);
    assert_in_order(&world.manager().states(&task_id(1)));
    // The agent's own view says the same.
    let tasks = world.agent.as_ref().unwrap().tasks();
    assert_eq!((tasks.len(), tasks[0].status.state), (1, TaskState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_should_only_be_ready_is_prepared_and_waits() {
    let world = World::started(1).await;
    world.manager().assign(1, vec![wanted(task(1, "web"), TaskState::Ready)]);
    world.until_state(1, TaskState::Ready).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!((world.running().len(), world.engine.containers().len()), (0, 1));
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    assert_eq!(world.engine.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_keeps_the_container_and_removing_removes_it() {
    let world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web"), task(2, "stubborn"), task(3, "web")]);
    for n in 1..=3 {
        world.until_state(n, TaskState::Running).await;
    }
    let down = |n, image: &str| wanted(task(n, image), TaskState::Shutdown);
    world.manager().assign(1, vec![down(1, "web"), down(2, "stubborn"), wanted(task(3, "web"), TaskState::Remove)]);
    for n in 1..=3 {
        world.until_state(n, TaskState::Shutdown).await;
    }
    world.until("the third is gone", |w| w.engine.containers().len() == 2).await;
    let codes: Vec<_> = world.engine.containers().iter().map(|c| (c.phase, c.exit_code)).collect();
    assert_eq!(codes, [(ContainerPhase::Exited, Some(0)), (ContainerPhase::Exited, Some(137))]);
    assert_eq!(world.manager().status(&task_id(2)).container.unwrap().exit_code, Some(137));
    assert_eq!(world.manager().states(&task_id(1)).last(), IN_ORDER.last());
    // Dead containers go with their tasks.
    world.manager().assign(1, vec![]);
    world.until("everything is gone", |w| w.engine.containers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_leaves_the_set_is_stopped_and_removed_at_any_stage() {
    let world = World::started(1).await;
    let slow = || task(2, "slow:600000");
    world.manager().assign(1, vec![task(1, "web"), slow(), wanted(task(3, "web"), TaskState::Ready)]);
    world.until_state(1, TaskState::Running).await;
    world.until_state(2, TaskState::Preparing).await;
    world.until_state(3, TaskState::Ready).await;
    let from = Instant::now();
    world.manager().assign(1, vec![]);
    world
        .until("everything is gone", |w| {
            w.engine.containers().is_empty() && w.agent.as_ref().unwrap().tasks().is_empty()
        })
        .await;
    // The pull of ten minutes was given up.
    world.until_state(2, TaskState::Shutdown).await;
    assert!(from.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn how_tasks_end_and_what_is_said_of_it() {
    let with_health = |n, image: &str| {
        let mut task = task(n, image);
        let healthcheck = Some(Healthcheck { test: vec!["CMD".into(), "x".into()], ..Healthcheck::default() });
        Arc::make_mut(&mut task.spec).container_mut().unwrap().healthcheck = healthcheck;
        task
    };
    let table: Vec<(Task, TaskState, &str, &str)> = vec![
        (task(1, "exit:0"), TaskState::Complete, "finished", ""),
        (task(2, "exit:1"), TaskState::Failed, "started", "task: non-zero exit (1)"),
        (task(3, "exit:7:0"), TaskState::Failed, "starting", "task: non-zero exit (7)"),
        (task(4, "fail:pull"), TaskState::Rejected, "preparing", "No such image: fail:pull"),
        (
            task(5, "fail:create"),
            TaskState::Rejected,
            "preparing",
            "invalid mount config for type \"bind\": bind source path does not exist",
        ),
        (
            task(6, "fail:start"),
            TaskState::Failed,
            "starting",
            "starting container failed: OCI runtime create failed: exec: \"app\": executable file not found in $PATH: unknown",
        ),
        (with_health(7, "web"), TaskState::Running, "started", ""),
        (
            with_health(8, "fail:health"),
            TaskState::Failed,
            "starting",
            "task: non-zero exit (0): dockerexec: unhealthy container",
        ),
    ];
    let world = World::started(1).await;
    world.manager().assign(1, table.iter().map(|(task, ..)| task.clone()).collect());
    for (n, (task, state, message, err)) in (1..).zip(&table) {
        world.until_state(n, *state).await;
        let status = world.manager().status(&task.id);
        assert_eq!((status.message.as_str(), status.err.as_str()), (*message, *err), "{}", task.spec.origin());
        assert_in_order(&world.manager().states(&task.id));
    }
    // Healthy is later than started: it was `Starting` for the second that its health check takes.
    let starts = world.engine.starts();
    let started = starts.iter().find(|s| s.name.contains("web.7.")).unwrap().at;
    assert!(world.manager().status(&task_id(7)).at.0 >= u64::try_from(started.as_nanos()).unwrap() + 1_000_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_dies_or_vanishes_fails_its_task() {
    let world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web"), task(2, "web")]);
    world.until_state(1, TaskState::Running).await;
    world.until_state(2, TaskState::Running).await;
    let from = Instant::now();
    world.engine.faults().kill(&task(1, "web").name(), 9);
    world.engine.faults().vanish(&task(2, "web").name());
    world.until_state(1, TaskState::Failed).await;
    world.until_state(2, TaskState::Failed).await;
    assert!(from.elapsed() < Duration::from_secs(1), "events tell it at once");
    assert_eq!(world.manager().status(&task_id(1)).err, "task: non-zero exit (9)");
    assert_eq!(world.manager().status(&task_id(2)).err, format!("No such container: {}", task(2, "web").name()));
    // Nothing is started again: that is for the orchestrator, with a new task.
    assert_eq!(world.engine.starts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_event_is_made_up_for() {
    let world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    // Whatever the start has told by now must not count.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.engine.faults().lose_events(1);
    world.engine.faults().kill(&task(1, "web").name(), 9);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.manager().status(&task_id(1)).state, TaskState::Running);
    world.until_state(1, TaskState::Failed).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_adopts_its_containers_without_any_manager() {
    let mut world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web"), task(2, "web"), wanted(task(3, "web"), TaskState::Shutdown)]);
    world.until_state(1, TaskState::Running).await;
    world.until_state(2, TaskState::Running).await;
    world.until_state(3, TaskState::Shutdown).await;
    world.stop().await;
    assert_eq!(world.running().len(), 2, "stopping the agent leaves containers running");
    // While it is away, one container ends.
    world.engine.faults().kill(&task(2, "web").name(), 5);
    world.manager().set_alive(false);
    world.manager().told.lock().statuses.clear();
    world.start().await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.running(), [task(1, "web").name()]);
    assert_eq!(world.engine.starts().len(), 2, "nothing was started again");
    // What happened meanwhile is told when a manager is back, and the stream goes on from where it was.
    world.manager().set_alive(true);
    world.until_state(2, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(2)).err, "task: non-zero exit (5)");
    assert_eq!(world.manager().told.lock().asked_with.last(), Some(&Some(Position { term: 1, index: 1 })));
    assert_eq!(world.engine.starts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_lost_its_disk_adopts_all_the_same_and_removes_nothing_before_it_knows() {
    let mut world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    // The manager knows that it runs, so the set says so.
    let known = Task { status: world.manager().status(&task_id(1)), ..task(1, "web") };
    world.stop().await;
    world.disk.files.lock().clear();
    world.manager().set_alive(false);
    world.start().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.running().len(), 1);
    world.manager().assign(1, vec![known]);
    world.manager().set_alive(true);
    world.until("the task is known", |w| w.agent.as_ref().unwrap().tasks().len() == 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((world.running().len(), world.engine.starts().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn the_canary_that_adopts_nothing_breaks_a_healthy_task() {
    let mut world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    world.stop().await;
    world.config.canaries = AgentCanaries { adopt_nothing: true, ..AgentCanaries::default() };
    world.start().await;
    world.until_state(1, TaskState::Failed).await;
    assert_eq!(world.running().len(), 1, "its container still runs");
}

async fn run_container(world: &World, name: &str, labels: Vec<(String, String)>) -> String {
    let spec = ContainerSpec { image: "web".into(), ..ContainerSpec::default() };
    let new = NewContainer { name: name.into(), spec, labels: labels.into_iter().collect(), ..NewContainer::default() };
    let id = world.engine.create(&new).await.unwrap();
    world.engine.start(&id).await.unwrap();
    id
}

#[tokio::test(start_paused = true)]
async fn orphans_are_removed_and_foreign_containers_are_never_touched() {
    let mut world = World::new(1);
    let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    let swarm =
        |n: u8| vec![label("com.docker.swarm.task", ""), label("com.docker.swarm.task.id", task_id(n).as_str())];
    run_container(&world, "users", vec![]).await;
    run_container(&world, "real-swarm", swarm(8)).await;
    run_container(&world, "other-node", [swarm(8), vec![label_of(2)]].concat()).await;
    run_container(&world, "users-with-our-label", vec![label_of(1)]).await;
    run_container(&world, "orphan", [swarm(9), vec![label_of(1)]].concat()).await;
    world.manager().set_alive(false);
    world.start().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.engine.containers().len(), 5, "nothing is removed before a manager confirmed the set");
    world.manager().assign(1, vec![task(1, "web")]);
    world.manager().set_alive(true);
    world.until_state(1, TaskState::Running).await;
    world.until("the orphan is gone", |w| w.engine.containers().len() == 5).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mine = task(1, "web").name();
    let mut left = vec!["other-node", "real-swarm", "users", "users-with-our-label", mine.as_str()];
    left.sort_unstable();
    assert_eq!(world.running(), left);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_on_one_engine_keep_out_of_each_others_way() {
    let mut world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    let other = World::new(1);
    let config = AgentConfig { hostname: Some("second".into()), ..AgentConfig::new(node_id(2), "/other/state".into()) };
    // The second node's agent uses the first one's engine and the second manager.
    world.link = Arc::clone(&other.link);
    let second = world.agent(config).await;
    other.manager().assign(1, vec![task(2, "web")]);
    other.until_state(2, TaskState::Running).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.running().len(), 2);
    let hostnames = |w: &World| w.manager().told.lock().descriptions.last().map(|d| d.hostname.clone());
    assert_eq!((hostnames(&world), hostnames(&other)), (Some("embedded".into()), Some("second".into())));
    other.manager().assign(1, vec![]);
    world.until("the second's is gone", |w| w.running().len() == 1).await;
    assert!(second.stop(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn managers_out_of_sight_change_nothing_and_the_next_one_is_found_within_a_second() {
    let world = World::started(2).await;
    for manager in &world.managers {
        manager.assign(1, vec![task(1, "web"), task(2, "web")]);
    }
    world.until_state(2, TaskState::Running).await;
    world.manager().set_alive(false);
    let from = Instant::now();
    world.until("the second manager has the session", |w| w.managers[1].told.lock().heartbeats > 0).await;
    assert!(from.elapsed() < Duration::from_secs(1), "{:?}", from.elapsed());

    world.managers[1].set_alive(false);
    let mut info = world.agent.as_ref().unwrap().session();
    info.wait_for(|i| !i.connected).await.unwrap();
    world.engine.faults().kill(&task(2, "web").name(), 1);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.running(), [task(1, "web").name()]);
    world.managers[1].set_alive(true);
    let from = Instant::now();
    world.until("the failure is told", |w| w.managers[1].status(&task_id(2)).state == TaskState::Failed).await;
    assert!(from.elapsed() < Duration::from_secs(5), "{:?}", from.elapsed());
    assert_eq!(world.engine.starts().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_session_tells_the_node_about_the_cluster_and_hears_heartbeats_and_a_goodbye() {
    let mut world = World::started(1).await;
    let mut info = world.agent.as_ref().unwrap().session();
    let info = info.wait_for(|i| i.connected).await.unwrap().clone();
    assert_eq!(info.session_id, "m0-0");
    assert_eq!(info.managers, [("m0".to_owned(), "10.0.0.1:2377".to_owned())]);
    assert_eq!((info.desired_role, info.heartbeat_period), (Some(Role::Worker), Duration::from_millis(500)));
    assert_eq!(info.gossip_keys.len(), 1, "a key that is no key is left out");
    assert_eq!(info.root_certificate_pem, "PEM");
    assert_eq!(info.raft_ticks, Some(RaftTicks { heartbeat: 2, election: 30 }));
    assert_eq!(world.link.learned.lock().first(), Some(&info));
    let heartbeats = |w: &World| w.manager().told.lock().heartbeats;
    let before = heartbeats(&world);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((19..=21).contains(&(heartbeats(&world) - before)), "one each half second");
    assert_eq!(world.manager().told.lock().descriptions[0].engine.version, "embedded");
    world.stop().await;
    assert_eq!(world.manager().told.lock().goodbyes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_behind_changes_nothing_and_is_left() {
    let world = World::started(2).await;
    world.manager().told.lock().position = Position { term: 3, index: 10 };
    world.manager().assign(3, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    // The second manager has not heard of the task; in a higher term, but with an older log.
    world.managers[1].told.lock().position = Position { term: 4, index: 5 };
    world.manager().set_alive(false);
    world.until("the stale manager is left", |w| w.link.failures.lock().iter().any(|f| f.contains("behind"))).await;
    assert_eq!((world.running().len(), world.engine.starts().len()), (1, 1));
    // It catches up.
    world.managers[1].told.lock().position.index = 20;
    world.managers[1].assign(4, vec![]);
    world.until("the task is gone", |w| w.engine.containers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn the_canary_that_accepts_stale_assignments_takes_a_task_away() {
    let mut world = World::new(2);
    world.config.canaries = AgentCanaries { accept_stale_assignments: true, ..AgentCanaries::default() };
    world.start().await;
    world.manager().told.lock().position = Position { term: 3, index: 10 };
    world.manager().assign(3, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    world.managers[1].told.lock().position = Position { term: 2, index: 5 };
    world.manager().set_alive(false);
    world.until("the task is gone", |w| w.engine.containers().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn increments_are_taken_and_a_gap_asks_for_everything() {
    use rpc::proto::dispatcher::{AssignmentsMessage, assignments_message::Kind};
    let world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    let at = |term, index| Some(Position { term, index }.into());
    let put = |n| vec![rmp_serde::to_vec_named(&task(n, "web")).unwrap()];
    let kind = Kind::Incremental.into();
    let good = AssignmentsMessage {
        position: at(1, 2),
        follows: at(1, 1),
        put: put(2),
        kind,
        ..AssignmentsMessage::default()
    };
    world.manager().send(good);
    world.until_state(2, TaskState::Running).await;
    // The manager's own state knows all three; the increment skips one.
    {
        let mut told = world.manager().told.lock();
        told.position = Position { term: 1, index: 4 };
        told.tasks = (1..=4).map(|n| (task_id(n), task(n, "web"))).collect();
    }
    let gap = AssignmentsMessage {
        position: at(1, 4),
        follows: at(1, 3),
        put: put(4),
        kind,
        ..AssignmentsMessage::default()
    };
    world.manager().send(gap);
    world.until_state(3, TaskState::Running).await;
    world.until_state(4, TaskState::Running).await;
    assert_eq!(world.manager().told.lock().asked_with.last(), Some(&None));
    assert_eq!(world.engine.starts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn statuses_are_sent_until_they_are_acknowledged() {
    let world = World::started(1).await;
    world.manager().told.lock().refuse_reports = 8;
    world.manager().assign(1, vec![task(1, "exit:3:100")]);
    world.until_state(1, TaskState::Failed).await;
    assert_in_order(&world.manager().states(&task_id(1)));
    let reports = world.manager().told.lock().reports;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.manager().told.lock().reports, reports, "what is acknowledged is not sent again");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_is_never_taken_holds_up_no_other() {
    let world = World::started(1).await;
    world.manager().told.lock().never_take = Some(task_id(3));
    world.manager().assign(1, (1..=9).map(|n| task(n, "web")).collect());
    for n in (1..=9).filter(|n| *n != 3) {
        world.until_state(n, TaskState::Running).await;
    }
    assert_eq!(world.running().len(), 9);
    assert_eq!(world.link.failures.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_restarts_costs_no_task_unless_its_containers_die_with_it() {
    let world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    world.engine.faults().stop_engine(false);
    tokio::time::sleep(Duration::from_secs(30)).await;
    world.engine.faults().start_engine();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(world.manager().status(&task_id(1)).state, TaskState::Running);
    assert_eq!(world.engine.starts().len(), 1);
    // A task assigned while the engine is away says why it waits.
    world.engine.faults().stop_engine(true);
    world.manager().assign(1, vec![task(1, "web"), task(2, "web")]);
    world
        .until("it says why", |w| w.manager().status(&task_id(2)).err.starts_with("cannot reach the container engine"))
        .await;
    world.engine.faults().start_engine();
    world.until_state(2, TaskState::Running).await;
    assert_eq!(world.manager().status(&task_id(2)).err, "");
    world.until_state(1, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(1)).err, "task: non-zero exit (137)");
}

#[tokio::test(start_paused = true)]
async fn failures_of_the_engine_on_the_way_up_are_survived() {
    let world = World::started(1).await;
    let faults = world.engine.faults();
    let boom = || EngineError::Failed("boom".into());
    for call in [Call::Pull, Call::Create] {
        faults.fail_next(call, 1, boom());
    }
    for call in [Call::Create, Call::Start] {
        faults.lose_answer_next(call, 1);
    }
    faults.hang_next(Call::Inspect, 1);
    faults.fail_next(Call::List, 1, boom());
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    assert_eq!((world.engine.containers().len(), world.engine.starts().len()), (1, 1));
    assert_in_order(&world.manager().states(&task_id(1)));
    // And on the way down.
    for call in [Call::Stop, Call::Remove, Call::Inspect] {
        faults.fail_next(call, 2, boom());
    }
    faults.lose_answer_next(Call::Remove, 1);
    world.manager().assign(1, vec![]);
    world
        .until("it is gone", |w| w.engine.containers().is_empty() && w.agent.as_ref().unwrap().tasks().is_empty())
        .await;
    // An engine that goes on failing makes the task fail, so that another node gets a chance.
    faults.fail_next(Call::Create, 100, boom());
    world.manager().assign(1, vec![task(2, "web")]);
    world.until_state(2, TaskState::Rejected).await;
    assert_eq!(world.manager().status(&task_id(2)).err, "boom");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_no_task() {
    let world = World::started(1).await;
    *world.disk.broken.lock() = true;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_state_file_says_what_to_do() {
    let world = World::new(1);
    world.disk.files.lock().insert("/agent/state".into(), bytes::Bytes::from_static(b"\xc1\xc1"));
    let engine = Arc::new(world.engine.clone());
    let seams = world.seams.clone();
    let started =
        swarmlite_agent::Agent::start(world.config.clone(), seams, engine, world.link.clone(), &world.tasks).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("/agent/state is damaged") && error.contains("remove it and start again"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn output_is_published_for_whoever_subscribed() {
    let world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "lines:450")]);
    world.until_state(1, TaskState::Running).await;
    let open = |id: &str, n, follow, tail| {
        let options = Some(LogOptions { stdout: true, stderr: true, follow, tail, ..LogOptions::default() });
        Body::Open(Subscription {
            id: id.into(),
            task_id: task_id(n).to_string(),
            node_id: node_id(1).to_string(),
            options,
        })
    };
    let of = |w: &World, id: &str| {
        let told = w.manager().told.lock();
        let batches: Vec<_> =
            told.published.iter().filter(|p| p.subscription_id == id).filter_map(|p| p.batch.clone()).collect();
        let lines: Vec<_> =
            batches.iter().flat_map(|b| &b.lines).map(|l| String::from_utf8_lossy(&l.data).into_owned()).collect();
        (lines, batches.last().is_some_and(|b| b.end), batches.last().map(|b| b.error.clone()).unwrap_or_default())
    };
    world.manager().subscribe(open("all", 1, false, -1));
    world.until("all is there", |w| of(w, "all").1).await;
    let (lines, _, error) = of(&world, "all");
    assert_eq!((lines.len(), lines[449].as_str(), error.as_str()), (450, "lines:450: line 450\n", ""));

    world.manager().subscribe(open("tail", 1, false, 2));
    world.until("the tail is there", |w| of(w, "tail").1).await;
    assert_eq!(of(&world, "tail").0, ["lines:450: line 449\n", "lines:450: line 450\n"]);

    world.manager().subscribe(open("follow", 1, true, 0));
    world.manager().subscribe(open("closed", 1, true, 1));
    world.until("the closed one began", |w| !of(w, "closed").0.is_empty()).await;
    world.manager().subscribe(Body::Close("closed".into()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.engine.faults().kill(&task(1, "").name(), 4);
    world.until("the end is there", |w| of(w, "follow").1).await;
    assert_eq!(of(&world, "follow").0, ["ended with code 4\n"]);
    assert!(!of(&world, "closed").1 && of(&world, "closed").0.len() == 1);

    world.manager().subscribe(open("silent", 1, true, 0));
    let began = |w: &World| w.manager().told.lock().published.iter().any(|p| p.subscription_id == "silent");
    world.until("it is known that somebody answers", began).await;

    world.manager().subscribe(open("none", 9, true, -1));
    world.until("there is none", |w| of(w, "none").1).await;
    assert_eq!(of(&world, "none").2, format!("task {} is not on this node", task_id(9)));
}

#[tokio::test(start_paused = true)]
async fn leaving_removes_everything_of_this_node_and_nothing_else() {
    let mut world = World::started(1).await;
    run_container(&world, "users", vec![]).await;
    world.manager().assign(1, vec![task(1, "web"), task(2, "exit:1")]);
    world.until_state(1, TaskState::Running).await;
    world.until_state(2, TaskState::Failed).await;
    world.stop().await;
    swarmlite_agent::remove_everything(&world.config, &world.seams, &world.engine).await.unwrap();
    assert_eq!(world.running(), ["users"]);
    assert_eq!((world.engine.containers().len(), world.disk.files.lock().len()), (1, 0));
}
