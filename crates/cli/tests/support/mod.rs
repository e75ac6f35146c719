//! A daemon that answers as it is told, on a Unix socket, and the real command line against it.
#![allow(dead_code)] // each test binary uses its own part of it

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use seams::Tasks;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// An answer: status, content type, body.
#[derive(Clone)]
pub(crate) struct Reply(u16, &'static str, Bytes);

/// A scripted daemon. Each route has answers, given one after the other; the last one stays.
pub(crate) struct FakeDaemon {
    pub(crate) socket: PathBuf,
    state: Arc<Mutex<State>>,
    tasks: Tasks,
    _directory: tempfile::TempDir,
}

#[derive(Default)]
struct State {
    replies: BTreeMap<String, VecDeque<Reply>>,
    requests: Vec<(String, String)>,
    registry_auth: Vec<String>,
    /// What it calls itself; `Swarmlite/test` when nothing is said.
    server: Option<&'static str>,
    hijacks: BTreeMap<String, Hijack>,
    /// What came over connections that were handed over.
    typed: Vec<u8>,
}

/// What is said over a connection that is handed over.
#[derive(Clone)]
struct Hijack {
    output: Bytes,
    /// Only once all that is typed has come.
    after_input: bool,
}

/// What a run of the command line gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
}

impl Reply {
    pub(crate) fn json(body: serde_json::Value) -> Reply {
        Reply(200, "application/json", body.to_string().into())
    }

    pub(crate) fn error(status: u16, message: &str) -> Reply {
        Reply(status, "application/json", serde_json::json!({"message": message}).to_string().into())
    }

    pub(crate) fn raw(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
        Reply(status, content_type, body.into())
    }
}

impl FakeDaemon {
    pub(crate) fn start() -> FakeDaemon {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("daemon.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let (state, tasks) = (Arc::new(Mutex::new(State::default())), Tasks::new());
        let (served, connections) = (state.clone(), tasks.clone());
        tasks.spawn("fake daemon", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = served.clone();
                let streams = connections.clone();
                let answer = service_fn(move |request| answer(state.clone(), streams.clone(), request));
                connections.spawn("connection", async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    // A client that goes away early is not this side's concern.
                    let _ = server.serve_connection(TokioIo::new(stream), answer).with_upgrades().await;
                });
            }
        });
        FakeDaemon { socket, state, tasks, _directory: directory }
    }

    /// Adds an answer to `route`, such as `GET /nodes` (no version, no query).
    pub(crate) fn on(self, route: &str, reply: Reply) -> FakeDaemon {
        self.state.lock().unwrap().replies.entry(route.to_owned()).or_default().push_back(reply);
        self
    }

    /// Hands the connection of `route` over, and says `output` on it: at once, or after the end of what is typed.
    pub(crate) fn hijack(self, route: &str, output: impl Into<Bytes>, after_input: bool) -> FakeDaemon {
        let hijack = Hijack { output: output.into(), after_input };
        self.state.lock().unwrap().hijacks.insert(route.to_owned(), hijack);
        self
    }

    /// Has it call itself something else.
    pub(crate) fn named(self, server: &'static str) -> FakeDaemon {
        self.state.lock().unwrap().server = Some(server);
        self
    }

    /// What was typed so far.
    pub(crate) fn typed(&self) -> String {
        String::from_utf8_lossy(&self.state.lock().unwrap().typed).into_owned()
    }

    /// Requests so far: `METHOD /v1.52/path?query`, and the body.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The `X-Registry-Auth` headers so far.
    pub(crate) fn registry_auth(&self) -> Vec<String> {
        self.state.lock().unwrap().registry_auth.clone()
    }

    /// The body of the only request whose line starts so.
    pub(crate) fn body_of(&self, start: &str) -> serde_json::Value {
        let requests = self.requests();
        let mut found = requests.iter().filter(|(line, _)| line.starts_with(start));
        let (_, body) = found.next().unwrap_or_else(|| panic!("no {start} in {requests:?}"));
        assert!(found.next().is_none(), "more than one {start} in {requests:?}");
        serde_json::from_str(body).unwrap()
    }

    /// The command line, to be run against this daemon.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = swarmlite(args);
        command.env("SWARMLITE_HOST", format!("unix://{}", self.socket.display()));
        command
    }

    /// Runs the command line against this daemon.
    pub(crate) async fn run(&self, args: &[&str]) -> Run {
        finish(self.command(args)).await
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// The command line alone.
pub(crate) fn swarmlite(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmlite"));
    command.args(args).env_remove("SWARMLITE_HOST").env_remove("DOCKER_HOST").kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> Run {
    let output = command.output().await.unwrap();
    Run {
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    tasks: Tasks,
    mut request: http::Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let path = request.uri().path().strip_prefix("/v1.52").expect("a versioned path").to_owned();
    let route = format!("{} {path}", request.method());
    let auth = request.headers().get("X-Registry-Auth").map(|v| v.to_str().unwrap().to_owned());
    let upgrade = hyper::upgrade::on(&mut request);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let hijack = {
        let mut state = state.lock().unwrap();
        state.registry_auth.extend(auth);
        state.requests.push((line, String::from_utf8_lossy(&body).into_owned()));
        state.hijacks.get(&route).cloned()
    };
    if let Some(hijack) = hijack {
        tasks.spawn("hijacked", talk(state, upgrade, hijack));
        let response = http::Response::builder().status(101).header("Connection", "Upgrade").header("Upgrade", "tcp");
        return Ok(response.body(Full::default()).unwrap());
    }
    let mut state = state.lock().unwrap();
    let reply = match state.replies.get_mut(&route) {
        Some(replies) if replies.len() > 1 => replies.pop_front().unwrap(),
        Some(replies) => replies[0].clone(),
        None if route == "GET /_ping" => Reply::raw(200, "text/plain", "OK"),
        None => Reply::error(404, &format!("{route} not found")),
    };
    let response = http::Response::builder()
        .status(reply.0)
        .header("Content-Type", reply.1)
        .header("Server", state.server.unwrap_or("Swarmlite/test (linux)"));
    Ok(response.body(Full::new(reply.2)).unwrap())
}

async fn talk(state: Arc<Mutex<State>>, upgrade: hyper::upgrade::OnUpgrade, hijack: Hijack) {
    let mut stream = TokioIo::new(upgrade.await.unwrap());
    let mut typed = Vec::new();
    if hijack.after_input {
        stream.read_to_end(&mut typed).await.unwrap();
    }
    state.lock().unwrap().typed.extend(typed);
    stream.write_all(&hijack.output).await.unwrap();
    stream.shutdown().await.unwrap();
}
