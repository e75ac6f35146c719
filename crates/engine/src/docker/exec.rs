//! Commands in containers, through the engine's own exec.

use super::raw::{Answer, refused};
use super::{DockerEngine, READ_TIMEOUT, WRITE_TIMEOUT};
use crate::exec::EXEC_CHUNK_BYTES;
use crate::{EngineError, ExecIo, ExecStart, ExecState, Execs, NewExec, TerminalSize};
use async_trait::async_trait;
use bollard::ClientVersion;
use bollard::models::{ExecConfig, ExecInspectResponse};
use bollard::query_parameters::ResizeExecOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use http::{Method, Request, header};
use seams::BoxStream as Tunnel;
use std::io;
use tokio::io::{AsyncReadExt as _, ReadHalf};

/// Bytes of an answer that says what went wrong.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Since this version a terminal has a size from its start.
const SIZED_SINCE: ClientVersion = ClientVersion { major_version: 1, minor_version: 42 };

#[async_trait]
impl Execs for DockerEngine {
    async fn describe_container(&self, id: &str, bytes_max: usize) -> Result<Option<Bytes>, EngineError> {
        let version = self.client().await?.client_version();
        let request = Request::get(format!("/v{version}/containers/{}/json", segment(id)?));
        match self.raw("describe a container", READ_TIMEOUT, request, Vec::new(), bytes_max).await? {
            Answer::Whole(status, body) if status.is_success() => Ok(Some(body)),
            Answer::Whole(status, _) if status.as_u16() == 404 => Ok(None),
            Answer::Whole(status, body) => Err(refused(status, &body)),
            Answer::Tunnel(..) => Err(nonsense()),
        }
    }

    async fn exec_create(&self, container: &str, exec: &NewExec) -> Result<String, EngineError> {
        let client = self.client().await?;
        let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let size = exec.size.filter(|_| exec.tty && client.client_version() >= SIZED_SINCE);
        let config = ExecConfig {
            attach_stdin: Some(exec.attach_stdin),
            attach_stdout: Some(exec.attach_stdout),
            attach_stderr: Some(exec.attach_stderr),
            console_size: size.map(|s| vec![s.height.into(), s.width.into()]),
            detach_keys: text(&exec.detach_keys),
            tty: Some(exec.tty),
            env: (!exec.env.is_empty()).then(|| exec.env.clone()),
            cmd: Some(exec.command.clone()),
            privileged: Some(exec.privileged),
            user: text(&exec.user),
            working_dir: text(&exec.dir),
        };
        let call = client.create_exec(segment(container)?, config);
        Ok(self.bound("make a command ready", WRITE_TIMEOUT, call).await?.id)
    }

    async fn exec_start(&self, exec: &str, start: ExecStart) -> Result<Option<ExecIo>, EngineError> {
        let version = self.client().await?.client_version();
        let size = start.size.filter(|_| start.tty && version >= SIZED_SINCE);
        let mut body = serde_json::json!({"Detach": start.detach, "Tty": start.tty});
        if let Some(size) = size {
            body["ConsoleSize"] = serde_json::json!([size.height, size.width]);
        }
        let mut request =
            Request::builder().method(Method::POST).uri(format!("/v{version}/exec/{}/start", segment(exec)?));
        if !start.detach {
            request = request.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
        }
        let body = body.to_string().into_bytes();
        match self.raw("run a command", WRITE_TIMEOUT, request, body, ANSWER_BYTES_MAX).await? {
            Answer::Tunnel(stream, first) => {
                let (output, input) = tokio::io::split(stream);
                Ok(Some(ExecIo { input: Box::new(input), output: pieces(output, first) }))
            }
            Answer::Whole(status, _) if status.is_success() && start.detach => Ok(None),
            Answer::Whole(status, _) if status.is_success() => Err(nonsense()),
            Answer::Whole(status, body) => Err(refused(status, &body)),
        }
    }

    async fn exec_inspect(&self, exec: &str) -> Result<Option<ExecState>, EngineError> {
        let client = self.client().await?;
        match self.bound("look at a command", READ_TIMEOUT, client.inspect_exec(segment(exec)?)).await {
            Ok(response) => Ok(Some(state(response))),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn exec_resize(&self, exec: &str, size: TerminalSize) -> Result<(), EngineError> {
        let client = self.client().await?;
        let options = ResizeExecOptionsBuilder::new().h(size.height.into()).w(size.width.into()).build();
        self.bound("resize a terminal", READ_TIMEOUT, client.resize_exec(segment(exec)?, options)).await
    }
}

fn nonsense() -> EngineError {
    EngineError::Failed("cannot understand what the Docker Engine answered when asked about a command".into())
}

/// An id that goes into a path as it is: ids of containers and commands are hexadecimal.
pub(super) fn segment(id: &str) -> Result<&str, EngineError> {
    let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { Ok(id) } else { Err(EngineError::NotFound("no such id: it is not one of the engine's".into())) }
}

/// What comes through the tunnel, beginning with what came with the answer.
fn pieces(output: ReadHalf<Tunnel>, first: Bytes) -> BoxStream<'static, io::Result<Bytes>> {
    let first = stream::iter((!first.is_empty()).then_some(Ok(first)));
    let rest = stream::unfold(Some(output), |output| async move {
        let mut output = output?;
        let mut piece = BytesMut::with_capacity(EXEC_CHUNK_BYTES);
        match output.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(piece.freeze()), Some(output))),
            Err(e) => Some((Err(e), None)),
        }
    });
    first.chain(rest).boxed()
}

fn state(response: ExecInspectResponse) -> ExecState {
    let process = response.process_config.unwrap_or_default();
    let command = process.entrypoint.into_iter().chain(process.arguments.unwrap_or_default());
    ExecState {
        container: response.container_id.unwrap_or_default(),
        running: response.running.unwrap_or_default(),
        exit_code: response.exit_code,
        pid: response.pid.unwrap_or_default(),
        made: NewExec {
            command: command.collect(),
            user: process.user.unwrap_or_default(),
            tty: process.tty.unwrap_or_default(),
            attach_stdin: response.open_stdin.unwrap_or_default(),
            attach_stdout: response.open_stdout.unwrap_or_default(),
            attach_stderr: response.open_stderr.unwrap_or_default(),
            privileged: process.privileged.unwrap_or_default(),
            detach_keys: response.detach_keys.unwrap_or_default(),
            ..NewExec::default()
        },
    }
}
