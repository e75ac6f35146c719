//! JSON bodies, well framed: specs of services, nodes and the swarm, secrets and configs.

use super::http::{contains, exchange, world};
use super::{Taker, Target, must};
use serde_json::Value;

// The world of the API's own tests, taken as it is, so that the two never part.
#[allow(clippy::all, missing_docs, unreachable_pub, dead_code)]
#[path = "../../../crates/api/tests/support/mod.rs"]
pub(super) mod support;

/// Where bodies are sent. The first byte of an input chooses.
const DOORS: [&str; 12] = [
    "/v1.44/services/create",
    "/v1.44/services/web/update?version=4",
    "/v1.44/swarm/init",
    "/v1.44/swarm/join",
    "/v1.44/swarm/update?version=2",
    "/v1.44/nodes/host1/update?version=3",
    "/v1.44/secrets/create",
    "/v1.44/configs/create",
    "/v1.44/swarm/unlock",
    "/v1.44/swarm/leave",
    "/swarmlite/tokens",
    "/swarmlite/gossip/rotate",
];
const SPEC: &[u8] = include_bytes!("../../../crates/api/tests/data/service_create_all_flags.json");
/// The data of every secret in the corpus, and what it looks like in base64.
const MARKER: &[u8] = b"c3dvcmRmaXNo";

pub(super) const TARGET: Target = Target {
    name: "json",
    about: "bodies of the API: service, node, swarm, secret and config specs",
    corpus,
    words: &[
        b"{\"a\":", b"[", b"[[[[", b"]", b"}", b"null", b"true", b"\"\"", b"-1", b"1e400", b"18446744073709551615", b"\"\\u0000\"", b"\"\\ud800\"",
        b"\"Name\":", b"\"Labels\":{\"a\":\"b\"}", b"\"TaskTemplate\":", b"\"ContainerSpec\":", b"\"Image\":\"\"", b"\"Mounts\":[{}]",
        b"\"Secrets\":[{\"SecretID\":\"x\",\"SecretName\":\"s\",\"File\":{\"Name\":\"../../etc/passwd\",\"UID\":\"0\",\"GID\":\"0\",\"Mode\":292}}]",
        b"\"Configs\":[{\"ConfigID\":\"x\",\"ConfigName\":\"c\",\"File\":{\"Name\":\"/etc/x\",\"UID\":\"-1\",\"GID\":\"a\",\"Mode\":4294967295}}]",
        b"\"Privileges\":{}", b"\"Replicated\":{\"Replicas\":18446744073709551615}", b"\"Global\":{}", b"\"Ports\":[{\"TargetPort\":99999}]",
        b"\"Runtime\":\"plugin\"", b"\"Data\":\"!!\"", b"\"Driver\":{\"Name\":\"x\"}", b"\"Templating\":{\"Name\":\"golang\"}",
        b"\"CAConfig\":{\"ForceRotate\":1}", b"\"EncryptionConfig\":{\"AutoLockManagers\":true}", b"\"NanoCPUs\":9223372036854775807",
        b"\"../../x\"", b"\"/\"", b"\"a\\u0000b\"",
    ],
    bytes_max: 64 * 1024,
    start,
};

fn corpus() -> Vec<Vec<u8>> {
    let named = |door: u8, body: &[u8]| [&[door][..], body].concat();
    let minimal = support::minimal("api", 2).to_string();
    vec![
        named(0, SPEC),
        named(0, minimal.as_bytes()),
        named(1, minimal.replace("\"api\"", "\"web\"").as_bytes()),
        named(2, br#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"10.0.0.1","DefaultAddrPool":["10.0.0.0/8"],"SubnetSize":24,"Spec":{"Labels":{}}}"#),
        named(3, br#"{"ListenAddr":"0.0.0.0:2377","RemoteAddrs":["10.0.0.1:2377"],"JoinToken":"SWMTKN-1-a-b","Availability":"active"}"#),
        named(4, br#"{"Name":"default","Labels":{},"Orchestration":{"TaskHistoryRetentionLimit":5},"Raft":{"SnapshotInterval":10000},"Dispatcher":{"HeartbeatPeriod":5000000000},"CAConfig":{"NodeCertExpiry":7776000000000000},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}}"#),
        named(5, br#"{"Name":"","Labels":{"a":"b"},"Role":"manager","Availability":"drain"}"#),
        named(6, br#"{"Name":"key","Labels":{"a":"b"},"Data":"c3dvcmRmaXNo"}"#),
        named(7, br#"{"Name":"site","Labels":{},"Data":"aGVsbG8=","Templating":{"Name":"golang"}}"#),
        named(8, br#"{"UnlockKey":"SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8"}"#),
        named(10, br#"{"Role":"worker","TTL":3600000000000,"Uses":1,"Labels":{"zone":"a"}}"#),
    ]
}

fn start() -> Taker {
    let (runtime, world) = world();
    Box::new(move |input| {
        let Some((door, body)) = input.split_first() else { return Ok(()) };
        let path = DOORS[usize::from(*door) % DOORS.len()];
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let reply = runtime.block_on(exchange(&world, &request));
        let (status, answer) = read(&reply).ok_or_else(|| format!("{path}: {}", reply.escape_ascii()))?;
        match status {
            200..=299 => {}
            _ => must(answer["message"].as_str().is_some_and(|m| !m.is_empty()), || {
                format!("{path}: {status} without a message: {answer}")
            })?,
        }
        // A stale version and a constraint that is none are 500 with Docker, and nothing else is.
        let message = answer["message"].as_str().unwrap_or_default();
        let constraint =
            message.ends_with("' is invalid") || message.ends_with("constraint expected one operator from ==, !=");
        let is_dockers =
            message.contains("out of sequence") || message.contains("code = Unknown desc = ") && constraint;
        must(status != 500 || is_dockers, || format!("{path}: {status} {answer}"))?;
        must(!contains(&reply, MARKER) || !is_secret(body), || format!("{path}: the reply holds a secret's data"))
    })
}

/// Whether the marker is in the body as data and nowhere else: names and labels may be repeated.
fn is_secret(body: &[u8]) -> bool {
    let once = body.windows(MARKER.len()).filter(|w| *w == MARKER).count() == 1;
    let data =
        serde_json::from_slice::<Value>(body).is_ok_and(|v| v["Data"].as_str().map(str::as_bytes) == Some(MARKER));
    once && data
}

fn read(reply: &[u8]) -> Option<(u16, Value)> {
    let text = String::from_utf8_lossy(reply);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // Chunked bodies begin with their length; the message is found all the same.
    let json = body.find('{').map(|at| &body[at..]).unwrap_or("null");
    let mut values = serde_json::Deserializer::from_str(json).into_iter::<Value>();
    Some((status, values.next().and_then(Result::ok).unwrap_or(Value::Null)))
}
