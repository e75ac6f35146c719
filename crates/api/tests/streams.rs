//! Logs and events.

mod support;

use bytes::Bytes;
use docker_api::stdcopy::{Decoder, Stream};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use model::{TaskId, TaskState, TaskStatus};
use serde_json::{Value, json};
use std::sync::Arc;
use store::StoreClient as _;
use support::{World, escape, id, manager, minimal, node_id};
use swarmlite_api::{LogError, LogLine};

fn line(text: &'static str, stderr: bool) -> LogLine {
    LogLine {
        stderr,
        at_unix_ns: 1_500_000_000_000_000_000,
        data: Bytes::from_static(text.as_bytes()),
        ..LogLine::default()
    }
}

/// A task of the first service; on node 1 unless `node` is false.
async fn add_task(world: &World, n: usize, node: bool) -> TaskId {
    let snapshot = world.store.local();
    let service = snapshot.services().next().expect("a service");
    let mut task = support::task(service, n);
    if !node {
        (task.node_id, task.status) = (None, TaskStatus { state: TaskState::Pending, ..TaskStatus::default() });
    }
    let task_id = task.id.clone();
    world.put(task).await;
    task_id
}

fn frames(bytes: &[u8]) -> Vec<(Stream, String)> {
    let mut decoder = Decoder::new();
    decoder.feed(bytes);
    let mut all = Vec::new();
    while let Some(frame) = decoder.next_frame().expect("good frames") {
        all.push((frame.stream, String::from_utf8_lossy(&frame.data).into_owned()));
    }
    assert_eq!(decoder.pending(), 0);
    all
}

#[tokio::test]
async fn the_output_of_all_tasks_comes_in_frames_and_says_what_is_missing() {
    let world = manager().await;
    world.service("web", 3).await;
    let one = add_task(&world, 1, true).await;
    let two = add_task(&world, 2, true).await;
    let three = add_task(&world, 3, false).await;
    world.swarm.logs.lock().insert(one, Ok(vec![line("out\n", false), line("err\n", true)]));
    world.swarm.logs.lock().insert(two, Err(LogError::NodeUnavailable(node_id(1))));
    let reply = world.get("/v1.47/services/web/logs?stdout=1&stderr=1&tail=5&since=12.5").await.ok(200);
    assert_eq!(reply.headers["content-type"], "application/vnd.docker.multiplexed-stream");
    let n1 = node_id(1);
    assert_eq!(
        frames(&reply.body),
        [
            (Stream::Stdout, "out\n".to_owned()),
            (Stream::Stderr, "err\n".to_owned()),
            (
                Stream::SystemErr,
                format!(
                    "warning: incomplete log stream. some logs could not be retrieved for the following reasons: node {n1} is not available, task {three} has not been scheduled\n"
                )
            ),
        ]
    );
    let options = world.swarm.log_requests.lock()[0].options;
    assert_eq!((options.tail, options.since_unix_ns, options.follow), (Some(5), 12_500_000_000, false));
    assert_eq!(
        world.get("/v1.41/services/web/logs?stdout=1").await.headers["content-type"],
        "application/vnd.docker.raw-stream"
    );
}

#[tokio::test]
async fn details_and_timestamps_are_dockers() {
    let world = manager().await;
    let service = world.service("web", 1).await;
    let task = add_task(&world, 1, true).await;
    world.swarm.logs.lock().insert(task.clone(), Ok(vec![line("out\n", false)]));
    let reply = world.get(&format!("/tasks/{task}/logs?stdout=1&details=1&timestamps=1")).await.ok(200);
    let n1 = node_id(1);
    let text = format!(
        "2017-07-14T02:40:00.000000000Z com.docker.swarm.node.id={n1},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task} out\n"
    );
    assert_eq!(frames(&reply.body), [(Stream::Stdout, text)]);
    // What the log options add stands in the same list, in the order of the keys; the swarm's own word counts.
    let own = [("a b", "c~d,e"), ("zone", "x"), ("com.docker.swarm.task.id", "forged")];
    let details = Arc::new(own.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    world.swarm.logs.lock().insert(task.clone(), Ok(vec![LogLine { details, ..line("out\n", false) }]));
    let reply = world.get(&format!("/tasks/{task}/logs?stdout=1&details=1")).await.ok(200);
    let text = format!(
        "a+b=c~d%2Ce,com.docker.swarm.node.id={n1},com.docker.swarm.service.id={service},com.docker.swarm.task.id={task},zone=x out\n"
    );
    assert_eq!(frames(&reply.body), [(Stream::Stdout, text)]);
    let asked: Vec<bool> = world.swarm.log_requests.lock().iter().map(|r| r.details).collect();
    assert_eq!(asked, [true, true]);
}

#[tokio::test]
async fn wrong_log_requests_are_refused() {
    let world = manager().await;
    world.service("web", 1).await;
    world.get("/services/web/logs").await.is(400, "must specify at least one of 'stdout' or 'stderr'");
    world.get("/services/none/logs?stdout=1").await.is(404, "service none not found");
    world.get("/tasks/none/logs?stdout=1").await.is(404, "task none not found");
    world
        .get("/services/web/logs?stdout=1&tail=x")
        .await
        .is(400, "invalid tail \"x\": it must be a number of lines or all");
    world
        .get("/services/web/logs?stdout=1&since=x")
        .await
        .is(400, "invalid since \"x\": it must be a Unix time in seconds");
}

/// Opens a stream that does not end, and waits for its head.
async fn follow(world: &World, path: &str) -> hyper::body::Incoming {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(world.connect())).await.expect("a connection");
    world.tasks.spawn("client", async move { drop(connection.await) });
    let request = http::Request::get(path).body(Full::<Bytes>::default()).expect("a request");
    let reply = sender.send_request(request).await.expect("a reply");
    assert_eq!(reply.status(), 200);
    reply.into_body()
}

async fn next(body: &mut hyper::body::Incoming) -> Bytes {
    body.frame().await.expect("more").expect("no error").into_data().unwrap_or_default()
}

#[tokio::test]
async fn followed_logs_take_up_tasks_that_come_later() {
    let world = manager().await;
    world.service("web", 2).await;
    let one = add_task(&world, 1, true).await;
    let two: TaskId = id('t', 2).parse().expect("an id");
    world.swarm.logs.lock().insert(one, Ok(vec![line("first\n", false)]));
    world.swarm.logs.lock().insert(two, Ok(vec![line("second\n", false)]));
    let mut body = follow(&world, "/services/web/logs?stdout=1&follow=1&tail=1").await;
    assert_eq!(frames(&next(&mut body).await), [(Stream::Stdout, "first\n".to_owned())]);
    add_task(&world, 2, true).await;
    // The first task's stream ended while the task runs, so it is asked for again too; what counts is that the second's comes.
    loop {
        let seen = frames(&next(&mut body).await);
        if seen == [(Stream::Stdout, "second\n".to_owned())] {
            break;
        }
    }
    let asked = world.swarm.log_requests.lock().clone();
    let later = asked.iter().find(|r| r.task.as_str() == id('t', 2)).expect("asked for");
    assert_eq!(later.options.tail, None);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_its_stream() {
    let world = manager().await;
    world.service("web", 1).await;
    let task = add_task(&world, 1, true).await;
    world.swarm.logs.lock().insert(task, Ok(vec![line("first\n", false)]));
    let mut body = follow(&world, "/services/web/logs?stdout=1&follow=1").await;
    next(&mut body).await;
    drop(body);
    // Every task of the API ends soon after it is asked to, which it would not were a stream left over.
    assert!(world.tasks.shutdown(std::time::Duration::from_secs(5)).await);
}

#[tokio::test]
async fn events_tell_what_changed_and_are_filtered() {
    let world = manager().await;
    let filters = escape(r#"{"type":{"service":true}}"#);
    let mut body = follow(&world, &format!("/events?filters={filters}")).await;
    let event = async |body: &mut hyper::body::Incoming| -> Value {
        serde_json::from_slice(&next(body).await).expect("one line of JSON")
    };
    // The stream listens once its head was sent; a change of a node is filtered out.
    world.add_node(2, model::Role::Worker).await;
    let id = world.service("web", 1).await;
    let created = event(&mut body).await;
    assert_eq!(
        (&created["Type"], &created["Action"], &created["Actor"]["ID"]),
        (&json!("service"), &json!("create"), &json!(id))
    );
    let version = world.version_of("/services/web").await;
    world.post(&format!("/services/web/update?version={version}"), &minimal("web", 4)).await.ok(200);
    let updated = event(&mut body).await;
    assert_eq!(updated["Actor"]["Attributes"], json!({"name": "web", "replicas.old": "1", "replicas.new": "4"}));
    assert_eq!(
        (&updated["time"], &updated["timeNano"]),
        (&json!(1_700_000_000), &json!(1_700_000_000_000_000_000_u64))
    );
    world.delete("/services/web").await.ok(200);
    assert_eq!(event(&mut body).await["Action"], "remove");
}

#[tokio::test]
async fn events_since_a_time_are_replayed_and_a_client_that_comes_again_misses_none() {
    let world = manager().await;
    let event = async |body: &mut hyper::body::Incoming| -> Value {
        serde_json::from_slice(&next(body).await).expect("one line of JSON")
    };
    let says = |e: &Value| {
        format!("{} {}", e["Action"].as_str().unwrap_or(""), e["Actor"]["Attributes"]["name"].as_str().unwrap_or(""))
    };
    // From here on there is a record.
    let filters = escape(r#"{"type":["service"]}"#);
    let mut live = follow(&world, &format!("/events?filters={filters}")).await;
    world.service("a", 1).await;
    world.service("b", 1).await;
    let first = event(&mut live).await;
    assert_eq!([says(&first), says(&event(&mut live).await)], ["create a", "create b"]);
    drop(live);
    world.delete("/services/a").await.ok(200);
    // All of them are of one moment here: the clock stands still.
    let at = first["timeNano"].as_u64().expect("a time");
    let since = format!("{}.{:09}", at / 1_000_000_000, at % 1_000_000_000);
    let mut again = follow(&world, &format!("/events?filters={filters}&since={since}")).await;
    for expected in ["create a", "create b", "remove a"] {
        assert_eq!(says(&event(&mut again).await), expected);
    }
    world.delete("/services/b").await.ok(200);
    assert_eq!(says(&event(&mut again).await), "remove b", "what comes is told after what was");
    // What is over is told to its end.
    let past = world.get(&format!("/events?filters={filters}&since=1&until={since}")).await.ok(200);
    assert_eq!(past.body.split(|b| *b == b'\n').filter(|l| !l.is_empty()).count(), 4);
    let later = at / 1_000_000_000 + 1;
    let none = world.get(&format!("/events?filters={filters}&since={later}&until={since}")).await.ok(200);
    assert!(none.body.is_empty());
    // On a node that is no manager there is nothing to tell.
    *world.swarm.store.lock() = Err(swarmlite_api::NotManager::Worker);
    let worker = world.get(&format!("/events?since=1&until={since}")).await.ok(200);
    assert!(worker.body.is_empty());
    world.get("/events?since=1e9").await.is(400, "invalid since \"1e9\": it must be a Unix time in seconds");
}

#[tokio::test]
async fn events_end_when_they_should_and_refuse_what_they_do_not_know() {
    let world = manager().await;
    let reply = world.get("/events?until=1600000000").await.ok(200);
    assert!(reply.body.is_empty());
    world.get("/events?until=x").await.is(400, "invalid until \"x\": it must be a Unix time in seconds");
    world.get(&format!("/events?filters={}", escape(r#"{"what":["x"]}"#))).await.is(400, "invalid filter 'what'");
}
