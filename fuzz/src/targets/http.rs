//! Raw bytes on an API connection: request lines, heads, bodies, queries, filters.

use super::{Taker, Target, must, texts};
use crate::targets::json::support::{World, manager};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

/// In virtual time; the API's own limits are far below, and streams without end are cut here.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the world's cluster keeps secret (crates/api/tests/support).
const SECRET: &[u8] = b"SECRET-KEY";

pub(super) const TARGET: Target = Target {
    name: "http",
    about: "HTTP on the API's connection: heads, framing, paths, queries, filters",
    corpus: || {
        texts(&[
            "GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n",
            "GET /v1.44/services?filters=%7B%22name%22%3A%7B%22web%22%3Atrue%7D%7D&status=true HTTP/1.1\r\nHost: docker\r\n\r\n",
            "GET /v1.44/tasks?filters={\"desired-state\":[\"running\"]} HTTP/1.1\r\nHost: docker\r\n\r\n",
            "GET /v1.44/nodes/n000000000000000000000001 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n",
            "GET /v1.44/services/web/logs?stdout=1&tail=5&since=1767225600.5&follow=1 HTTP/1.1\r\nHost: docker\r\n\r\n",
            "GET /v1.44/events?since=0&until=1700000000&filters={\"type\":[\"service\"]} HTTP/1.1\r\nHost: docker\r\n\r\n",
            "GET /v1.44/swarm HTTP/1.0\r\n\r\n",
            "GET /v1.44/info HTTP/1.1\r\nHost: docker\r\n\r\nGET /v1.44/swarm HTTP/1.1\r\nHost: docker\r\n\r\n",
            "DELETE /v1.44/services/web HTTP/1.1\r\nHost: docker\r\n\r\n",
            "POST /v1.44/swarm/leave?force=1 HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n",
            "POST /v1.44/services/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: 57\r\n\r\n{\"Name\":\"a\",\"TaskTemplate\":{\"ContainerSpec\":{\"Image\":\"i\"}}}",
            "POST /v1.44/services/create HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"Na\r\n5\r\nme\":1\r\n1\r\n}\r\n0\r\n\r\n",
            "POST /v1.44/containers/x/attach?stream=1 HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
            "POST /v1.44/images/create?fromImage=x HTTP/1.1\r\nHost: docker\r\nX-Registry-Auth: eyJ1IjoieCJ9\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        ])
    },
    words: &[
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\0",
        b" ",
        b"%",
        b"%00",
        b"%2e%2e%2f",
        b"..",
        b"//",
        b"?",
        b"&",
        b"=",
        b"#",
        b"HTTP/1.1",
        b"HTTP/2.0",
        b"Content-Length: 18446744073709551615\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\n\r\n",
        b"Upgrade: h2c\r\n",
        b"Connection: keep-alive\r\n",
        b"Host: a\r\n",
        b"X: ",
        b"Expect: 100-continue\r\n",
        b"filters={\"label\":{\"a\":true}}",
        b"filters=%7B",
        b"stale=true",
        b"since=1e999",
        b"tail=-1",
        b"version=18446744073709551616",
        b"/v1.99",
        b"/v0.0",
        b"/swarm/unlockkey",
        b"/secrets",
        b"/configs",
        b"/tasks/",
        b"{\"a\":",
        b"[",
    ],
    bytes_max: 48 * 1024,
    start,
};

fn start() -> Taker {
    let (runtime, world) = world();
    let corpus = (TARGET.corpus)();
    Box::new(move |input| {
        let reply = runtime.block_on(exchange(&world, input));
        // An honest request has an answer, or the target tests nothing.
        must(!reply.is_empty() || !corpus.iter().any(|honest| honest == input), || "no answer".into())?;
        must(reply.is_empty() || reply.starts_with(b"HTTP/1."), || format!("the reply is {}", reply.escape_ascii()))?;
        must(!contains(&reply, SECRET), || "the reply holds a secret".into())
    })
}

/// A manager with one service, in a runtime whose time jumps ahead while nothing happens.
pub(super) fn world() -> (Runtime, World) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be built");
    let world = runtime.block_on(async {
        let world = manager().await;
        world.service("web", 1).await;
        world
    });
    (runtime, world)
}

/// Sends bytes, and reads whatever comes until the other end closes.
pub(super) async fn exchange(world: &World, input: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(world.connect());
    let mut reply = Vec::new();
    // It stays open for writing: a client that closes its half has gone, as far as HTTP/1 servers are concerned.
    let write = async { drop(to.write_all(input).await) };
    let read = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            reply.extend_from_slice(&buffer[..n]);
        }
    };
    let _cut = tokio::time::timeout(PATIENCE, async { tokio::join!(write, read) }).await;
    reply
}

pub(super) fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
