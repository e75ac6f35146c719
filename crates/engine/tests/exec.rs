//! Commands in containers: what the embedded engine pretends, and what a real one does (see `support` for how it is found);
//! without one its test fails and says so.

mod support;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use model::{ContainerSpec, LogDriver};
use seams::Rand;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use swarmlite_engine::embedded::{EmbeddedOptions, TokioClock};
use swarmlite_engine::{
    DockerEngine, DockerOptions, EmbeddedEngine, Engine, EngineError, ExecIo, ExecStart, Execs as _, NewContainer,
    NewExec, TerminalSize,
};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

const IMAGE: &str = "swarmlite-exec-test:1";

struct Counting(AtomicU8);

impl Rand for Counting {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill(self.0.fetch_add(1, Ordering::SeqCst));
    }
}

fn command(words: &[&str]) -> NewExec {
    NewExec {
        command: words.iter().map(|w| (*w).to_owned()).collect(),
        attach_stdin: true,
        attach_stdout: true,
        attach_stderr: true,
        ..NewExec::default()
    }
}

/// Runs a command with this input; its output as it came, and its exit code.
async fn run(engine: &dyn Engine, container: &str, exec: &NewExec, input: &[u8]) -> (Vec<u8>, Option<i64>) {
    let id = engine.exec_create(container, exec).await.expect("the container runs");
    assert_eq!(engine.exec_inspect(&id).await.unwrap().unwrap().container, container);
    let start = ExecStart { tty: exec.tty, ..ExecStart::default() };
    let ExecIo { input: mut to, output } = engine.exec_start(&id, start).await.unwrap().expect("attached");
    // Both at once: neither side has room for everything.
    let send = async {
        to.write_all(input).await.unwrap();
        // The end of a terminal's input ends the terminal.
        if !exec.tty {
            to.shutdown().await.unwrap();
        }
    };
    let (pieces, ()) = tokio::join!(output.collect::<Vec<_>>(), send);
    let output: Vec<u8> = pieces.into_iter().flat_map(|p| p.unwrap()).collect();
    // A real engine may learn of the end a moment after the last byte.
    loop {
        let state = engine.exec_inspect(&id).await.unwrap().unwrap();
        if !state.running {
            return (output, state.exit_code);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// The content of frames from one stream.
fn of_stream(stream: u8, mut bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let [from, 0, 0, 0, a, b, c, d, rest @ ..] = bytes {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap();
        if *from == stream {
            content.extend_from_slice(&rest[..length]);
        }
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "not in frames: {bytes:?}");
    content
}

#[tokio::test(start_paused = true)]
async fn the_embedded_engine_pretends_a_few_commands() {
    let engine = EmbeddedEngine::new(
        EmbeddedOptions::default(),
        Arc::new(TokioClock::start()),
        Arc::new(Counting(AtomicU8::new(1))),
    );
    let spec = ContainerSpec { image: "web".into(), ..ContainerSpec::default() };
    let new = NewContainer { name: "web.1".into(), spec, ..NewContainer::default() };
    let id = engine.create(&new).await.unwrap();
    assert!(matches!(engine.exec_create(&id, &command(&["cat"])).await, Err(EngineError::Conflict(_))), "not started");
    engine.start(&id).await.unwrap();
    let large: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    let (echoed, code) = run(&engine, &id, &command(&["cat"]), &large).await;
    assert_eq!((of_stream(1, &echoed) == large, code), (true, Some(0)));
    for (words, stdout, expected) in [
        (&["echo", "a", "b"][..], "a b\n", 0),
        (&["sh", "-c", "exit 3"], "", 3),
        (&["false"], "", 1),
        (&["hostname"], &format!("{}\n", &id[..12]), 0),
    ] {
        let (output, code) = run(&engine, &id, &command(words), b"").await;
        assert_eq!((of_stream(1, &output), code), (stdout.as_bytes().to_vec(), Some(expected)), "{words:?}");
    }
    let (output, code) = run(&engine, &id, &command(&["nosuch"]), b"").await;
    let complaint = String::from_utf8(of_stream(2, &output)).unwrap();
    assert!(complaint.contains("exec: \"nosuch\": executable file not found in $PATH"), "{complaint}");
    assert_eq!(code, Some(127));
    let (raw, _) = run(&engine, &id, &NewExec { tty: true, ..command(&["echo", "x"]) }, b"").await;
    assert_eq!(raw, b"x\n", "a terminal's output is raw");
    let json: serde_json::Value =
        serde_json::from_slice(&engine.describe_container(&id, 1 << 20).await.unwrap().unwrap()).unwrap();
    assert_eq!((json["Id"].as_str(), json["State"]["Running"].as_bool()), (Some(id.as_str()), Some(true)));
    assert_eq!(engine.describe_container("nosuch", 1 << 20).await.unwrap(), None);
    assert_eq!(engine.exec_inspect("nosuch").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_command_runs_once_and_its_terminal_can_be_resized_meanwhile() {
    let engine = EmbeddedEngine::new(
        EmbeddedOptions::default(),
        Arc::new(TokioClock::start()),
        Arc::new(Counting(AtomicU8::new(1))),
    );
    let id = engine.create(&NewContainer { name: "web.1".into(), ..NewContainer::default() }).await.unwrap();
    engine.start(&id).await.unwrap();
    let exec = engine.exec_create(&id, &NewExec { tty: true, ..command(&["size"]) }).await.unwrap();
    let size = TerminalSize { height: 24, width: 80 };
    assert!(matches!(engine.exec_resize(&exec, size).await, Err(EngineError::Conflict(_))), "it does not run yet");
    let start = ExecStart { tty: true, ..ExecStart::default() };
    let ExecIo { mut input, output } = engine.exec_start(&exec, start).await.unwrap().unwrap();
    assert!(matches!(engine.exec_start(&exec, start).await, Err(EngineError::Conflict(_))));
    engine.exec_resize(&exec, size).await.unwrap();
    input.shutdown().await.unwrap();
    let output: Vec<_> = output.map(|p| p.unwrap()).collect().await;
    assert_eq!(output, ["24 80\n"]);
    let detached = engine.exec_create(&id, &command(&["true"])).await.unwrap();
    assert!(engine.exec_start(&detached, ExecStart { detach: true, ..ExecStart::default() }).await.unwrap().is_none());
    assert_eq!(engine.exec_inspect(&detached).await.unwrap().unwrap().exit_code, Some(0));
}

// === the real one ===

/// Imports an image that holds a static busybox and nothing else.
async fn make_image(host: &str) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| std::path::Path::new(p).exists());
    let busybox = busybox.expect("the test image is made from a static busybox: apt-get install busybox-static");
    let dir = std::env::temp_dir().join(format!("swarmlite-exec-test-{}", std::process::id()));
    let script = format!(
        "set -e; mkdir -p {d}/bin; cp {busybox} {d}/bin/busybox; for a in sh sleep echo cat stty; do ln -sf busybox {d}/bin/$a; done; tar \
         -C {d} -c .; rm -rf {d}",
        d = dir.display()
    );
    let tar = Command::new("sh").arg("-c").arg(script).output().unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    let (name, tag) = IMAGE.split_once(':').unwrap();
    let client = match host.strip_prefix("tcp://") {
        Some(_) => Docker::connect_with_http(host, 60, bollard::API_DEFAULT_VERSION).unwrap(),
        None => Docker::connect_with_unix(host, 60, bollard::API_DEFAULT_VERSION).unwrap(),
    };
    let options = CreateImageOptionsBuilder::new().from_src("-").repo(name).tag(tag).build();
    let mut import = client.create_image(Some(options), Some(bollard::body_full(tar.stdout.into())), None);
    while let Some(progress) = import.next().await {
        progress.unwrap();
    }
}

#[tokio::test]
async fn commands_run_in_real_containers() {
    let host = support::host();
    make_image(&host).await;
    let engine = DockerEngine::new(&DockerOptions { host, ..DockerOptions::default() }).unwrap();
    let spec = ContainerSpec {
        image: IMAGE.into(),
        command: vec!["/bin/sh".into()],
        args: vec!["-c".into(), "echo begun; exec sleep 600".into()],
        env: vec!["ZONE=a b,c".into()],
        ..ContainerSpec::default()
    };
    let name = format!("swarmlite-exec-test-{}", std::process::id());
    let options = [("env-regex", "^ZO"), ("tag", "{{.Name}}")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let log_driver = Some(LogDriver { name: "json-file".into(), options: options.into() });
    let new = NewContainer { name: name.clone(), spec, log_driver, ..NewContainer::default() };
    let id = engine.create(&new).await.unwrap();
    // Removed whatever becomes of the test.
    let told = timeout(Duration::from_secs(60), story(&engine, &id, &name)).await;
    engine.remove(&id).await.unwrap();
    told.expect("in time");
}

async fn story(engine: &DockerEngine, id: &str, name: &str) {
    engine.start(id).await.unwrap();
    let expected = [("ZONE", "a b,c"), ("tag", name)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    while engine.log_details(id).await.unwrap() != expected {
        sleep(Duration::from_millis(20)).await;
    }
    let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let (echoed, code) = run(engine, id, &command(&["cat"]), &large).await;
    assert_eq!((of_stream(1, &echoed) == large, code), (true, Some(0)));
    let script = "echo out; echo err >&2; echo $X in $PWD; exit 7";
    let exec = NewExec { env: vec!["X=y".into()], dir: "/bin".into(), ..command(&["sh", "-c", script]) };
    let (output, code) = run(engine, id, &exec, b"").await;
    assert_eq!((of_stream(1, &output), of_stream(2, &output)), (b"out\ny in /bin\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(code, Some(7));
    // Bytes of a terminal that look like the head of a frame are the terminal's all the same.
    let exec = NewExec {
        tty: true,
        ..command(&["sh", "-c", "stty -opost; printf '\\001\\000\\000\\000\\000\\000\\000\\005'"])
    };
    let (raw, _) = run(engine, id, &exec, b"").await;
    assert_eq!(raw, [1, 0, 0, 0, 0, 0, 0, 5]);
    let (output, code) = run(engine, id, &command(&["nosuch"]), b"").await;
    let complaint = String::from_utf8([of_stream(1, &output), of_stream(2, &output)].concat()).unwrap();
    assert!(complaint.contains("nosuch") && matches!(code, Some(126 | 127)), "{complaint} {code:?}");

    let exec =
        engine.exec_create(id, &NewExec { tty: true, ..command(&["sh", "-c", "read x; stty size"]) }).await.unwrap();
    let start = ExecStart { tty: true, ..ExecStart::default() };
    let ExecIo { mut input, output } = engine.exec_start(&exec, start).await.unwrap().unwrap();
    engine.exec_resize(&exec, TerminalSize { height: 33, width: 99 }).await.unwrap();
    input.write_all(b"\n").await.unwrap();
    let output: Vec<u8> = output.collect::<Vec<_>>().await.into_iter().flat_map(|p| p.unwrap()).collect();
    let output = String::from_utf8(output).unwrap();
    assert!(output.contains("33 99"), "{output:?}");

    let detached = engine.exec_create(id, &command(&["sh", "-c", "exit 5"])).await.unwrap();
    assert!(engine.exec_start(&detached, ExecStart { detach: true, ..ExecStart::default() }).await.unwrap().is_none());
    while engine.exec_inspect(&detached).await.unwrap().unwrap().exit_code.is_none() {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(engine.exec_inspect(&detached).await.unwrap().unwrap().exit_code, Some(5));
    let again = engine.exec_start(&detached, ExecStart { detach: true, ..ExecStart::default() }).await.unwrap_err();
    assert!(matches!(again, EngineError::Conflict(_)), "{again}");

    let json: serde_json::Value =
        serde_json::from_slice(&engine.describe_container(id, 1 << 20).await.unwrap().unwrap()).unwrap();
    assert_eq!(json["Id"].as_str(), Some(id));
    assert!(json["HostConfig"].is_object(), "nothing of the engine's words is left out");
    for bad in ["0000000000", "../version", ""] {
        assert!(!matches!(engine.describe_container(bad, 1 << 20).await, Ok(Some(_))), "{bad}");
        assert!(matches!(engine.exec_create(bad, &command(&["true"])).await, Err(EngineError::NotFound(_))), "{bad}");
    }
    assert_eq!(engine.exec_inspect(&"0".repeat(64)).await.unwrap(), None);
}
