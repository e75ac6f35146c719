//! Commands that a manager runs in the containers of a node's tasks.

mod common;

use common::{Asked, World, node_id, task, task_id};
use engine::{Engine as _, Execs as _, NewContainer, NewExec};
use model::{ContainerSpec, LogDriver, NodeTls, TaskState};
use rpc::proto::exec::agent_message::Body;
use rpc::proto::exec::call::What;
use rpc::proto::exec::{Create, InputEnd, Inspect, Look, ManagerMessage, Resize, Size, Start, manager_message};
use rpc::proto::logs::{LogOptions, Subscription, subscription_message};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_agent::{NODE_LABEL, TASK_LABEL};

fn create(container: &str, words: &[&str]) -> What {
    What::Create(Create {
        container_id: container.into(),
        command: words.iter().map(|w| (*w).to_owned()).collect(),
        attach_stdin: true,
        attach_stdout: true,
        ..Create::default()
    })
}

fn start(exec: &str) -> What {
    What::Start(Start { exec_id: exec.into(), tty: true, ..Start::default() })
}

fn input(bytes: &[u8]) -> ManagerMessage {
    ManagerMessage { body: Some(manager_message::Body::Input(bytes.to_vec())) }
}

async fn answer(world: &World, what: What) -> Body {
    let mut asked = world.manager().ask(what).await;
    asked.said.recv().await.expect("an answer")
}

async fn created(world: &World, container: &str, words: &[&str]) -> String {
    match answer(world, create(container, words)).await {
        Body::Created(id) => id,
        other => panic!("unexpected {other:?}"),
    }
}

fn refused(body: &Body) -> (u32, &str) {
    match body {
        Body::Failure(failure) => (failure.status, &failure.message),
        other => panic!("unexpected {other:?}"),
    }
}

/// A world whose first task runs, and the id of its container.
async fn running() -> (World, String) {
    let world = World::started(1).await;
    world.manager().assign(1, vec![task(1, "web")]);
    world.until_state(1, TaskState::Running).await;
    let container = world.manager().status(&task_id(1)).container.expect("it runs").id;
    (world, container)
}

#[tokio::test(start_paused = true)]
async fn a_command_is_made_run_and_looked_at() {
    let (world, container) = running().await;
    let exec = created(&world, &container, &["cat"]).await;
    let Asked { input: to, mut said } = world.manager().ask(start(&exec)).await;
    assert!(matches!(said.recv().await, Some(Body::Started(_))));
    let mut output = Vec::new();
    for n in 0..200_u8 {
        // More than any buffer holds: a slow reader slows the command down.
        to.send(input(&[n; 1000])).await.expect("it listens");
        while output.len() < usize::from(n) * 1000 {
            match said.recv().await {
                Some(Body::Output(bytes)) => output.extend(bytes),
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    let Body::State(state) = answer(&world, What::Look(Look { exec_id: exec.clone() })).await else {
        panic!("no state")
    };
    assert_eq!((state.running, state.exit_code, state.container_id.as_str()), (true, None, container.as_str()));
    let resize = What::Resize(Resize { exec_id: exec.clone(), size: Some(Size { height: 3, width: 4 }) });
    assert!(matches!(answer(&world, resize).await, Body::Resized(_)));
    to.send(ManagerMessage { body: Some(manager_message::Body::InputEnd(InputEnd {})) }).await.expect("it listens");
    let mut ended = false;
    while let Some(body) = said.recv().await {
        match body {
            Body::Output(bytes) => output.extend(bytes),
            other => ended = matches!(other, Body::End(_)),
        }
    }
    assert!(ended && output.len() == 200_000 && output.chunks(1000).zip(0..).all(|(c, n)| c == [n; 1000]));
    let Body::State(state) = answer(&world, What::Look(Look { exec_id: exec })).await else { panic!("no state") };
    assert_eq!((state.running, state.exit_code), (false, Some(0)));
    let Body::Container(json) = answer(&world, What::Inspect(Inspect { container_id: container.clone() })).await else {
        panic!("no description")
    };
    assert!(String::from_utf8_lossy(&json).contains(&container));
}

#[tokio::test(start_paused = true)]
async fn attack_07_containers_that_are_not_of_this_nodes_tasks_are_not_there() {
    let (world, own) = running().await;
    let run = async |name: &str, labels: &[(&str, String)]| {
        let new = NewContainer {
            name: name.into(),
            spec: ContainerSpec { image: "web".into(), ..ContainerSpec::default() },
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
            ..NewContainer::default()
        };
        let id = world.engine.create(&new).await.unwrap();
        world.engine.start(&id).await.unwrap();
        id
    };
    let task_label = "com.docker.swarm.task.id";
    let users = run("users", &[]).await;
    let (t1, t7) = (task_id(1).to_string(), task_id(7).to_string());
    let neighbours =
        run("neighbours", &[(NODE_LABEL, node_id(2).to_string()), (TASK_LABEL, String::new()), (task_label, t1)]).await;
    let forgotten = run("forgotten", &[(NODE_LABEL, node_id(1).to_string()), (task_label, t7)]).await;
    for container in [&users, &neighbours, &forgotten, &"0".repeat(64)] {
        let none = (404, format!("No such container: {container}"));
        for what in [create(container, &["true"]), What::Inspect(Inspect { container_id: container.clone() })] {
            let answer = answer(&world, what).await;
            assert_eq!(refused(&answer), (none.0, none.1.as_str()));
        }
    }
    // Nor is a command that somebody else has made in one.
    let exec = NewExec { command: vec!["cat".into()], ..NewExec::default() };
    for container in [&users, &neighbours] {
        let foreign = world.engine.exec_create(container, &exec).await.unwrap();
        let size = Some(Size { height: 1, width: 1 });
        for what in [
            start(&foreign),
            What::Look(Look { exec_id: foreign.clone() }),
            What::Resize(Resize { exec_id: foreign.clone(), size }),
        ] {
            let answer = answer(&world, what).await;
            assert_eq!(refused(&answer), (404, format!("No such exec instance: {foreign}").as_str()));
        }
    }
    created(&world, &own, &["true"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_goes_leaves_the_command_and_frees_its_place() {
    let (world, container) = running().await;
    // More than a node answers at once.
    for _ in 0..100 {
        let exec = created(&world, &container, &["cat"]).await;
        let Asked { input: to, mut said } = world.manager().ask(start(&exec)).await;
        assert!(matches!(said.recv().await, Some(Body::Started(_))));
        drop(to);
        // The agent hears of it, and says nothing more.
        while said.recv().await.is_some() {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_goes_frees_its_place_though_the_command_reads_nothing() {
    let (world, container) = running().await;
    for _ in 0..100 {
        let exec = created(&world, &container, &["stall"]).await;
        let Asked { input: to, mut said } = world.manager().ask(start(&exec)).await;
        assert!(matches!(said.recv().await, Some(Body::Started(_))));
        // More than the command's input holds.
        for _ in 0..4 {
            to.send(input(&[0; 64 << 10])).await.expect("it listens");
        }
        drop(to);
        let ends = async { while said.recv().await.is_some() {} };
        tokio::time::timeout(Duration::from_secs(60), ends).await.expect("the agent notices");
    }
}

#[tokio::test(start_paused = true)]
async fn the_details_of_output_come_with_its_first_line_when_they_are_asked_for() {
    let world = World::started(1).await;
    let mut task = task(1, "lines:300");
    let mut spec = (*task.spec).clone();
    spec.container_mut().unwrap().env = vec!["ZONE=a b".into(), "PASSWORD=hunter2".into()];
    spec.container_mut().unwrap().labels.insert("team".into(), "core".into());
    let options = [("env", "ZONE,NONE"), ("labels", "team")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    spec.log_driver = Some(LogDriver { name: "json-file".into(), options: options.into() });
    task.spec = Arc::new(spec);
    world.manager().assign(1, vec![task]);
    world.until_state(1, TaskState::Running).await;
    let lines = async |id: &str, details: bool| {
        let options = Some(LogOptions { stdout: true, tail: -1, details, ..LogOptions::default() });
        let (task_id, node_id) = (task_id(1).to_string(), node_id(1).to_string());
        world.manager().subscribe(subscription_message::Body::Open(Subscription {
            id: id.into(),
            task_id,
            node_id,
            options,
        }));
        let published = |w: &World| -> Vec<_> {
            let told = w.manager().told.lock();
            told.published.iter().filter(|p| p.subscription_id == id).filter_map(|p| p.batch.clone()).collect()
        };
        world.until("all is there", |w| published(w).last().is_some_and(|b| b.end)).await;
        published(&world).into_iter().flat_map(|b| b.lines).map(|l| l.details).collect::<Vec<_>>()
    };
    let with = lines("with", true).await;
    let expected = [("ZONE", "a b"), ("team", "core")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!((with.len(), &with[0]), (300, &expected));
    assert!(with[1..].iter().all(|d| d.is_empty()));
    assert!(lines("without", false).await.iter().all(|d| d.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_outlives_the_session_and_counts_all_the_same() {
    let (world, container) = running().await;
    let mut open = Vec::new();
    for _ in 0..64 {
        let exec = created(&world, &container, &["cat"]).await;
        let mut asked = world.manager().ask(start(&exec)).await;
        assert!(matches!(asked.said.recv().await, Some(Body::Started(_))));
        open.push(asked);
        if open.len() == 40 {
            // The next session.
            let before = world.manager().told.lock().asked_with.len();
            world.manager().set_alive(false);
            world.until("the session is over", |w| !w.link.failures.lock().is_empty()).await;
            world.manager().set_alive(true);
            world.until("there is another session", |w| w.manager().told.lock().asked_with.len() > before).await;
        }
    }
    let full = answer(&world, What::Inspect(Inspect { container_id: container.clone() })).await;
    assert_eq!(refused(&full), (503, "this node runs 64 commands for managers already; try again later"));
    for Asked { input: to, said } in &mut open {
        to.send(input(b"x")).await.expect("it listens");
        assert!(matches!(said.recv().await, Some(Body::Output(bytes)) if bytes == b"x"));
    }
    open.clear();
    let free = async {
        while let Body::Failure(_) = answer(&world, What::Inspect(Inspect { container_id: container.clone() })).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), free).await.expect("there is room again");
}

#[tokio::test(start_paused = true)]
async fn attack_07_a_terminal_ends_when_another_root_signs() {
    let (world, container) = running().await;
    let signed_by = |root: u8, trusts: &str| NodeTls {
        trust_root_pem: trusts.into(),
        issuer_public_key_der: vec![root],
        ..NodeTls::default()
    };
    world.link.tls.send_replace(Some(signed_by(1, "one")));
    let exec = created(&world, &container, &["cat"]).await;
    let Asked { input: to, mut said } = world.manager().ask(start(&exec)).await;
    assert!(matches!(said.recv().await, Some(Body::Started(_))));
    // The next root is trusted, and does not sign yet.
    world.link.tls.send_replace(Some(signed_by(1, "one and two")));
    to.send(input(b"still here")).await.expect("it listens");
    assert!(matches!(said.recv().await, Some(Body::Output(_))));
    world.link.tls.send_replace(Some(signed_by(2, "one and two")));
    let last = said.recv().await.expect("a word");
    assert_eq!(refused(&last), (503, "another root signs the swarm's certificates now: begin anew"));
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_terminal_is_closed() {
    let (world, container) = running().await;
    let exec = created(&world, &container, &["cat"]).await;
    let Asked { input: to, mut said } = world.manager().ask(start(&exec)).await;
    assert!(matches!(said.recv().await, Some(Body::Started(_))));
    tokio::time::sleep(Duration::from_secs(11 * 3600)).await;
    to.send(input(b"still here")).await.expect("it listens");
    assert!(matches!(said.recv().await, Some(Body::Output(_))));
    let last = tokio::time::timeout(Duration::from_secs(13 * 3600), said.recv()).await.expect("in time");
    assert_eq!(refused(&last.expect("a word")), (408, "nothing has come or gone for 12 h: closed"));
}
