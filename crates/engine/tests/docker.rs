//! The Docker engine against a real dockerd; see `support` for how it is found. Without one these tests fail and say so. They
//! need root for nothing but its socket, make their image offline from a static busybox, and remove what they made.

mod support;

use bollard::query_parameters::RemoveImageOptionsBuilder;
use futures::StreamExt as _;
use model::{Healthcheck, Limits, Mount, MountKind, PortConfig, Protocol, PublishMode};
use std::time::Duration;
use support::{IMAGE, client, engine, host, make_image, tmpfs, with_bench};
use swarmlite_engine::{ContainerPhase, DockerEngine, DockerOptions, Engine, EngineError, Health, LogOptions};
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn it_describes_its_machine() {
    let description = engine().describe().await.unwrap();
    assert_eq!(description.platform.os, "linux");
    assert!(description.resources.nano_cpus >= 1_000_000_000 && description.resources.memory_bytes > 1 << 20);
    assert!(!description.hostname.is_empty() && !description.engine.version.is_empty());
    assert!(description.engine.plugins.contains(&("Network".into(), "bridge".into())));
}

#[tokio::test]
async fn the_life_of_a_container() {
    with_bench("life", |b| async move {
        let mut new = b.container("echo hello; echo oops >&2; trap 'exit 3' TERM; while :; do sleep 0.05; done");
        new.limits = Limits { nano_cpus: 500_000_000, memory_bytes: 64 << 20, pids: 50 };
        new.ports = vec![PortConfig {
            name: String::new(),
            protocol: Protocol::Tcp,
            target_port: 80,
            published_port: 0,
            mode: PublishMode::Host,
        }];
        let id = b.engine.create(&new).await.unwrap();
        let state = b.engine.inspect(&id).await.unwrap().unwrap();
        assert_eq!((state.phase, state.exit_code, &state.name), (ContainerPhase::Created, None, &b.name));

        b.engine.start(&id).await.unwrap();
        b.engine.start(&id).await.unwrap(); // again: no error
        let state = b.until(&id, |s| s.phase == ContainerPhase::Running).await;
        assert!(state.pid > 0);
        assert_eq!(state.ports.len(), 1, "{:?}", state.ports);
        assert!(state.ports[0].target_port == 80 && state.ports[0].published_port > 0);
        assert_eq!(b.engine.list(&b.label).await.unwrap(), std::slice::from_ref(&state));
        assert_eq!(b.engine.list(&format!("{}x", b.label)).await.unwrap(), []);

        b.engine.stop(&id, Duration::from_secs(10)).await.unwrap();
        let state = b.engine.inspect(&id).await.unwrap().unwrap();
        assert_eq!((state.phase, state.exit_code, state.pid), (ContainerPhase::Exited, Some(3), 0));
        b.engine.stop(&id, Duration::from_secs(10)).await.unwrap(); // again: no error

        b.engine.remove(&id).await.unwrap();
        assert_eq!(b.engine.inspect(&id).await.unwrap(), None);
        b.engine.remove(&id).await.unwrap();
        b.engine.stop(&id, Duration::ZERO).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_container_that_does_not_listen_is_killed_after_its_grace() {
    with_bench("grace", |b| async move {
        let id = b.run(&b.container("trap '' TERM; while :; do sleep 0.05; done")).await;
        // The trap has to be set before the signal comes.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        b.engine.stop(&id, Duration::from_secs(1)).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
        assert_eq!(b.engine.inspect(&id).await.unwrap().unwrap().exit_code, Some(137));
    })
    .await;
}

#[tokio::test]
async fn events_tell_what_happens_from_the_call_on() {
    with_bench("events", |b| async move {
        let id = b.engine.create(&b.container("exit 7")).await.unwrap();
        let mut events = b.engine.events(&b.label).await.unwrap();
        // The stream is not polled before the start: what happens meanwhile must not be lost.
        b.engine.start(&id).await.unwrap();
        b.until(&id, |s| s.phase == ContainerPhase::Exited).await;
        let mut actions = Vec::new();
        while actions.last().is_none_or(|a| a != "die") {
            let event = timeout(Duration::from_secs(10), events.next()).await.expect("an event in time").unwrap();
            assert_eq!(event.id, id);
            actions.push(event.action);
        }
        assert!(actions.contains(&"start".to_owned()), "{actions:?}");
    })
    .await;
}

#[tokio::test]
async fn health_becomes_good_and_bad() {
    with_bench("health", |b| async move {
        let mut new = b.container("while :; do sleep 0.05; done");
        new.spec.healthcheck = Some(Healthcheck {
            test: vec!["CMD-SHELL".into(), "cat /tmp/bad >/dev/null 2>&1 && exit 1 || exit 0".into()],
            interval: Some(Duration::from_millis(100)),
            retries: Some(1),
            ..Healthcheck::default()
        });
        new.spec.mounts = vec![tmpfs("/tmp")];
        let id = b.run(&new).await;
        assert_ne!(b.engine.inspect(&id).await.unwrap().unwrap().health, Health::None);
        b.until(&id, |s| s.health == Health::Healthy).await;

        let mut bad = new.clone();
        bad.name.push_str("-bad");
        bad.spec.healthcheck.as_mut().unwrap().test = vec!["CMD".into(), "/bin/false".into()];
        let bad = b.engine.create(&bad).await.unwrap();
        b.engine.start(&bad).await.unwrap();
        b.until(&bad, |s| s.health == Health::Unhealthy).await;
        // The agent needs this to tell why it stopped the container.
        b.engine.stop(&bad, Duration::ZERO).await.unwrap();
        assert_eq!(b.engine.inspect(&bad).await.unwrap().unwrap().phase, ContainerPhase::Exited);
    })
    .await;
}

#[tokio::test]
async fn output_comes_with_its_stream_and_time() {
    with_bench("logs", |b| async move {
        let id =
            b.run(&b.container("echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three; sleep 1; echo four")).await;
        let all = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        // Follow sees everything to the end of the container, although it begins early.
        let followed: Vec<_> = b.engine.logs(&id, LogOptions { follow: true, ..all }).await.unwrap().collect().await;
        let followed: Vec<_> = followed.into_iter().map(Result::unwrap).collect();
        let mut texts: Vec<_> =
            followed.iter().map(|c| (c.stderr, String::from_utf8_lossy(&c.data).into_owned())).collect();
        texts.sort();
        assert_eq!(
            texts,
            [(false, "four\n".into()), (false, "one\n".into()), (false, "three\n".into()), (true, "two\n".into())]
        );
        assert!(followed.iter().all(|c| c.at_unix_ns > 1_500_000_000_000_000_000));

        let read = |options| async move {
            let chunks: Vec<_> = engine().logs(&b.name.clone(), options).await.unwrap().collect().await;
            chunks.into_iter().map(|c| String::from_utf8_lossy(&c.unwrap().data).into_owned()).collect::<Vec<_>>()
        };
        let since = followed.iter().find(|c| &c.data[..] == b"three\n").unwrap().at_unix_ns;
        assert_eq!(read.clone()(LogOptions { since_unix_ns: since, ..all }).await, ["four\n"]);
        assert_eq!(read.clone()(LogOptions { tail: Some(1), ..all }).await, ["four\n"]);
        assert_eq!(read(LogOptions { stderr: true, ..LogOptions::default() }).await, ["two\n"]);
        let missing = engine().logs("swarmlite-no-such-container", all).await.err().unwrap();
        assert_eq!(missing, EngineError::NotFound("No such container: swarmlite-no-such-container".into()));
    })
    .await;
}

#[tokio::test]
async fn errors_are_told_apart_and_carry_the_engines_words() {
    with_bench("errors", |b| async move {
        let id = b.run(&b.container("sleep 100")).await;
        let Err(EngineError::Conflict(text)) = b.engine.create(&b.container("true")).await else { panic!() };
        assert!(text.contains("is already in use by container") && text.contains(&id), "{text}");

        let mut missing = b.container("true");
        missing.name.push_str("-missing");
        missing.spec.image = "swarmlite-no-such-image:9".into();
        let Err(EngineError::NotFound(text)) = b.engine.create(&missing).await else { panic!() };
        assert_eq!(text, "No such image: swarmlite-no-such-image:9");

        let mut bind = b.container("true");
        bind.name.push_str("-bind");
        bind.spec.mounts = vec![Mount { kind: MountKind::Bind, source: "/swarmlite/none".into(), ..tmpfs("/x") }];
        let Err(EngineError::Refused(text)) = b.engine.create(&bind).await else { panic!() };
        assert!(text.contains("bind source path does not exist: /swarmlite/none"), "{text}");

        let mut command = b.container("true");
        command.name.push_str("-command");
        command.spec.command = vec!["/no/such/program".into()];
        let made = b.engine.create(&command).await.unwrap();
        let Err(EngineError::Refused(text)) = b.engine.start(&made).await else { panic!() };
        assert!(text.contains("no such file or directory"), "{text}");
        // The engine keeps the error with the container: an agent that was restarted meanwhile finds it there.
        let state = b.engine.inspect(&made).await.unwrap().unwrap();
        assert!(state.phase == ContainerPhase::Created && !state.error.is_empty(), "{state:?}");

        assert!(matches!(b.engine.start("swarmlite-no-such-container").await, Err(EngineError::NotFound(_))));
    })
    .await;
}

#[tokio::test]
async fn a_pull_without_a_registry_is_quick_and_content_with_what_is_here() {
    make_image().await;
    let engine = engine();
    let began = Instant::now();
    engine.pull(IMAGE, None).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // The result is remembered for the next tasks.
    let again = Instant::now();
    for _ in 0..10 {
        engine.pull(IMAGE, None).await.unwrap();
    }
    assert!(again.elapsed() < Duration::from_secs(2), "{:?}", again.elapsed());

    // Nobody listens on port 1.
    let Err(EngineError::NotFound(text)) = engine.pull("127.0.0.1:1/swarmlite/none", None).await else { panic!() };
    assert!(text.starts_with("No such image: 127.0.0.1:1/swarmlite/none:latest (pull failed: "), "{text}");
    let options = DockerOptions { host: host(), prefer_offline_images: true, ..DockerOptions::default() };
    let offline = DockerEngine::new(&options).unwrap();
    offline.pull(IMAGE, Some("not even looked at")).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_never_answers_delays_an_image_that_is_here_by_seconds_only() {
    make_image().await;
    // A registry that accepts and says nothing, on an address that the engine takes for an insecure one.
    let silent = seams::real::seams().net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let repository = format!("127.0.0.1:{}/silent", silent.local_addr().unwrap().port());
    let image = format!("{repository}:1");
    let tag = bollard::query_parameters::TagImageOptionsBuilder::new().repo(&repository).tag("1").build();
    client().tag_image(IMAGE, Some(tag)).await.unwrap();
    let began = Instant::now();
    let pulled = engine().pull(&image, None).await;
    let took = began.elapsed();
    let options = RemoveImageOptionsBuilder::new().build();
    client().remove_image(&image, Some(options), None).await.unwrap();
    pulled.unwrap();
    assert!(took < Duration::from_secs(15), "{took:?}");
}
