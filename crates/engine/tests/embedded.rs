//! The embedded engine through the trait, with virtual time.

use futures::StreamExt as _;
use model::{ContainerSpec, Healthcheck, PortConfig, Protocol, PublishMode};
use seams::Rand;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use swarmlite_engine::embedded::{CALL_TIMEOUT, Call, EmbeddedOptions, TokioClock};
use swarmlite_engine::{ContainerPhase, EmbeddedEngine, Engine, EngineError, Health, LogOptions, NewContainer};
use tokio::time::{Instant, sleep, timeout};

/// Counts.
struct Counting(AtomicU8);

impl Rand for Counting {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(self.0.fetch_add(1, Ordering::SeqCst));
    }
}

fn engine() -> EmbeddedEngine {
    EmbeddedEngine::new(EmbeddedOptions::default(), Arc::new(TokioClock::start()), Arc::new(Counting(AtomicU8::new(1))))
}

fn container(name: &str, image: &str) -> NewContainer {
    NewContainer {
        name: name.into(),
        spec: ContainerSpec { image: image.into(), ..ContainerSpec::default() },
        labels: BTreeMap::from([("owner".to_owned(), "me".to_owned())]),
        ..NewContainer::default()
    }
}

async fn run(engine: &EmbeddedEngine, new: &NewContainer) -> String {
    let id = engine.create(new).await.unwrap();
    engine.start(&id).await.unwrap();
    id
}

async fn phase(engine: &EmbeddedEngine, id: &str) -> (ContainerPhase, Option<i64>) {
    let state = engine.inspect(id).await.unwrap().unwrap();
    (state.phase, state.exit_code)
}

#[tokio::test(start_paused = true)]
async fn it_says_what_it_is() {
    let description = engine().describe().await.unwrap();
    assert_eq!((description.engine.version.as_str(), engine().kind()), ("embedded", "embedded"));
}

#[tokio::test(start_paused = true)]
async fn the_life_of_a_container() {
    let engine = engine();
    let id = engine.create(&container("a", "web:1")).await.unwrap();
    assert_eq!(id.len(), 64);
    assert_eq!(phase(&engine, &id).await, (ContainerPhase::Created, None));
    engine.start(&id).await.unwrap();
    engine.start(&id).await.unwrap();
    assert_eq!(phase(&engine, "a").await, (ContainerPhase::Running, None));
    assert!(engine.inspect(&id).await.unwrap().unwrap().pid > 0);
    engine.stop(&id, Duration::from_secs(10)).await.unwrap();
    engine.stop(&id, Duration::from_secs(10)).await.unwrap();
    assert_eq!(phase(&engine, &id).await, (ContainerPhase::Exited, Some(0)));
    engine.remove(&id).await.unwrap();
    engine.remove(&id).await.unwrap();
    engine.stop(&id, Duration::ZERO).await.unwrap();
    assert_eq!(engine.inspect(&id).await.unwrap(), None);
    assert_eq!(engine.start(&id).await, Err(EngineError::NotFound(format!("No such container: {id}"))));
    assert_eq!(engine.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn names_and_ports_conflict_as_with_docker() {
    let engine = engine();
    let port = |published_port| PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port,
        mode: PublishMode::Host,
    };
    let mut first = container("a", "web");
    first.ports = vec![port(8080), port(0)];
    let id = run(&engine, &first).await;
    let Err(EngineError::Conflict(text)) = engine.create(&first).await else { panic!() };
    assert!(text.contains("\"/a\" is already in use by container") && text.contains(&id), "{text}");
    let second =
        engine.create(&NewContainer { name: "b".into(), ports: vec![port(8080)], ..first.clone() }).await.unwrap();
    let Err(EngineError::Failed(text)) = engine.start(&second).await else { panic!() };
    assert!(text.contains("port is already allocated"), "{text}");
    let ports: Vec<u16> = engine.inspect(&id).await.unwrap().unwrap().ports.iter().map(|p| p.published_port).collect();
    assert_eq!(ports, [8080, 32768]);
    engine.stop(&id, Duration::from_secs(1)).await.unwrap();
    engine.start(&second).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_image_decides_what_happens() {
    let engine = engine();
    assert_eq!(engine.pull("fail:pull", None).await, Err(EngineError::NotFound("No such image: fail:pull".into())));
    engine.pull("web", None).await.unwrap();
    let began = Instant::now();
    engine.pull("slow:5000", None).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(5));

    let id = run(&engine, &container("exit", "exit:3:2000")).await;
    sleep(Duration::from_millis(1900)).await;
    assert_eq!(phase(&engine, &id).await, (ContainerPhase::Running, None));
    sleep(Duration::from_millis(200)).await;
    assert_eq!(phase(&engine, &id).await, (ContainerPhase::Exited, Some(3)));

    let id = run(&engine, &container("stubborn", "stubborn")).await;
    let began = Instant::now();
    engine.stop(&id, Duration::from_secs(7)).await.unwrap();
    assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&began.elapsed()));
    assert_eq!(phase(&engine, &id).await, (ContainerPhase::Exited, Some(137)));

    assert!(matches!(engine.create(&container("c", "fail:create")).await, Err(EngineError::Refused(_))));
    let id = engine.create(&container("s", "fail:start")).await.unwrap();
    assert!(matches!(engine.start(&id).await, Err(EngineError::Refused(_))));
    assert!(!engine.inspect(&id).await.unwrap().unwrap().error.is_empty());

    for (name, image, health) in [("good", "web", Health::Healthy), ("bad", "fail:health", Health::Unhealthy)] {
        let mut new = container(name, image);
        new.spec.healthcheck = Some(Healthcheck::default());
        let id = run(&engine, &new).await;
        assert_eq!(engine.inspect(&id).await.unwrap().unwrap().health, Health::Starting);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(engine.inspect(&id).await.unwrap().unwrap().health, health);
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_when_they_are_due_and_only_with_the_label() {
    let engine = engine();
    let mut events = engine.events("owner=me").await.unwrap();
    let mut others = engine.events("owner=you").await.unwrap();
    let id = run(&engine, &container("a", "exit:1:500")).await;
    let mut actions = Vec::new();
    for _ in 0..3 {
        let event = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
        assert_eq!(event.id, id);
        actions.push(event.action);
    }
    assert_eq!(actions, ["create", "start", "die"]);
    assert!(timeout(Duration::from_secs(5), others.next()).await.is_err());
    let listed: Vec<_> = engine.list("owner").await.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!((listed, engine.list("owner=you").await.unwrap().len()), (vec!["a".to_owned()], 0));
    // A stream begins with what comes after it.
    let mut late = engine.events("owner").await.unwrap();
    engine.remove(&id).await.unwrap();
    assert_eq!(late.next().await.unwrap().action, "destroy");
}

#[tokio::test(start_paused = true)]
async fn output_can_be_read_and_followed() {
    let engine = engine();
    let id = run(&engine, &container("a", "lines:3")).await;
    let both = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
    let read = async |options| {
        let chunks: Vec<_> = engine.logs(&id, options).await.unwrap().collect().await;
        chunks.into_iter().map(|c| c.unwrap()).collect::<Vec<_>>()
    };
    let all = read(both).await;
    assert_eq!(all.len(), 3);
    assert!(all.windows(2).all(|w| w[0].at_unix_ns < w[1].at_unix_ns));
    assert_eq!(read(LogOptions { tail: Some(1), ..both }).await, all[2..]);
    assert_eq!(read(LogOptions { since_unix_ns: all[0].at_unix_ns, ..both }).await, all[1..]);
    assert_eq!(read(LogOptions { stderr: true, ..LogOptions::default() }).await, []);
    let follow = engine.logs(&id, LogOptions { follow: true, tail: Some(0), ..both }).await.unwrap();
    assert!(engine.faults().kill("a", 2));
    let rest: Vec<_> = follow.map(|c| (c.clone().unwrap().stderr, c.unwrap().data)).collect().await;
    assert_eq!(rest, [(true, bytes::Bytes::from_static(b"ended with code 2\n"))]);
}

#[tokio::test(start_paused = true)]
async fn faults_do_what_they_say() {
    let engine = engine();
    let faults = engine.faults();
    let boom = EngineError::Failed("boom".into());
    faults.fail_next(Call::List, 2, boom.clone());
    assert_eq!(engine.list("owner").await, Err(boom.clone()));
    assert_eq!(engine.list("owner").await, Err(boom));
    assert_eq!(engine.list("owner").await, Ok(vec![]));

    faults.hang_next(Call::Create, 1);
    let began = Instant::now();
    assert!(matches!(engine.create(&container("a", "web")).await, Err(EngineError::Timeout { .. })));
    assert!(began.elapsed() >= CALL_TIMEOUT);
    assert_eq!(engine.containers().len(), 0);

    faults.lose_answer_next(Call::Create, 1);
    assert!(matches!(engine.create(&container("a", "web")).await, Err(EngineError::Timeout { .. })));
    assert_eq!(engine.containers().len(), 1);

    faults.slow(Call::Start, Duration::from_secs(9));
    let began = Instant::now();
    engine.start("a").await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(9));

    let mut events = engine.events("owner").await.unwrap();
    faults.lose_events(1);
    assert!(faults.kill("a", 1) && !faults.kill("a", 1));
    faults.vanish("a");
    assert_eq!(events.next().await.unwrap().action, "destroy", "the death was lost");

    run(&engine, &container("b", "web")).await;
    faults.stop_engine(false);
    assert!(matches!(engine.list("owner").await, Err(EngineError::Unreachable { .. })));
    while events.next().await.is_some() {}
    faults.start_engine();
    assert_eq!(phase(&engine, "b").await, (ContainerPhase::Running, None));
    faults.stop_engine(true);
    faults.clear();
    assert_eq!(phase(&engine, "b").await, (ContainerPhase::Exited, Some(137)));
}
