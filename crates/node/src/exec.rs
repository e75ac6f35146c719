//! What the API wants of containers on other nodes, in the words of the control port.

use crate::manager::Manager;
use api::{ExecAnswer, ExecCall, ExecError, ExecInput, ExecRequest, ExecTunnel};
use bytes::Bytes;
use dispatcher::Conversation;
use engine::{ExecState, NewExec, TerminalSize};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rpc::proto::exec as pb;
use rpc::proto::exec::agent_message::Body;
use rpc::proto::exec::{AgentMessage, call::What, manager_message};
use tokio::sync::mpsc;
use tonic::Status;

type Output = BoxStream<'static, Result<AgentMessage, Status>>;

/// Asks the node's agent, wherever its session is.
pub(crate) async fn ask(manager: &Manager, request: ExecRequest) -> Result<ExecAnswer, ExecError> {
    let detached = matches!(&request.call, ExecCall::Start { start, .. } if start.detach);
    let call = pb::Call { id: String::new(), what: Some(what(request.call)) };
    let unavailable = |e: dispatcher::ExecError| ExecError { status: 503, message: e.to_string() };
    let Conversation { input, mut output } = manager.execs.call(&request.node, call).await.map_err(unavailable)?;
    match next(&mut output).await? {
        Body::Container(json) => Ok(ExecAnswer::Container(json.into())),
        Body::Created(id) => Ok(ExecAnswer::Created(id)),
        Body::State(shown) => Ok(ExecAnswer::State(state(shown))),
        Body::Resized(_) => Ok(ExecAnswer::Resized),
        Body::Started(_) if detached => Ok(ExecAnswer::Started(None)),
        Body::Started(_) => Ok(ExecAnswer::Started(Some(tunnel(input, output)))),
        Body::CallId(_) | Body::Failure(_) | Body::Output(_) | Body::End(_) => Err(nonsense()),
    }
}

fn tunnel(input: mpsc::Sender<pb::ManagerMessage>, output: Output) -> ExecTunnel {
    let input = futures::sink::unfold(input, |input, what: ExecInput| async move {
        let body = match what {
            ExecInput::Bytes(bytes) => manager_message::Body::Input(bytes.into()),
            ExecInput::End => manager_message::Body::InputEnd(pb::InputEnd {}),
        };
        let gone = |_| ExecError { status: 410, message: "the command reads no more".into() };
        input.send(pb::ManagerMessage { body: Some(body) }).await.map_err(gone)?;
        Ok(input)
    });
    let pieces = futures::stream::unfold(Some(output), |output| async move {
        let mut output = output?;
        match next(&mut output).await {
            Ok(Body::Output(bytes)) => Some((Ok(Bytes::from(bytes)), Some(output))),
            Ok(Body::End(_)) => None,
            Ok(_) => Some((Err(nonsense()), None)),
            Err(e) => Some((Err(e), None)),
        }
    });
    ExecTunnel { input: Box::pin(input), output: pieces.boxed() }
}

/// The next thing that the agent says, or why it says nothing more.
async fn next(output: &mut Output) -> Result<Body, ExecError> {
    match output.next().await {
        Some(Ok(AgentMessage { body: Some(Body::Failure(failure)) })) => {
            let status = u16::try_from(failure.status).ok().filter(|s| (400..600).contains(s)).unwrap_or(500);
            Err(ExecError { status, message: failure.message })
        }
        Some(Ok(AgentMessage { body: Some(body) })) => Ok(body),
        Some(Ok(AgentMessage { body: None })) => Err(nonsense()),
        Some(Err(status)) => Err(ExecError { status: 503, message: rpc::describe(&status) }),
        None => Err(ExecError { status: 503, message: "the connection to the node was lost".into() }),
    }
}

fn nonsense() -> ExecError {
    ExecError { status: 500, message: "the node's answer could not be understood: is it of another release?".into() }
}

fn what(call: ExecCall) -> What {
    match call {
        ExecCall::Inspect { container } => What::Inspect(pb::Inspect { container_id: container }),
        ExecCall::Create { container, exec } => What::Create(pb::Create {
            container_id: container,
            command: exec.command,
            env: exec.env,
            dir: exec.dir,
            user: exec.user,
            tty: exec.tty,
            attach_stdin: exec.attach_stdin,
            attach_stdout: exec.attach_stdout,
            attach_stderr: exec.attach_stderr,
            privileged: exec.privileged,
            detach_keys: exec.detach_keys,
            size: exec.size.map(size),
        }),
        ExecCall::Start { exec, start } => {
            What::Start(pb::Start { exec_id: exec, detach: start.detach, tty: start.tty, size: start.size.map(size) })
        }
        ExecCall::Look { exec } => What::Look(pb::Look { exec_id: exec }),
        ExecCall::Resize { exec, size: wanted } => What::Resize(pb::Resize { exec_id: exec, size: Some(size(wanted)) }),
    }
}

fn size(size: TerminalSize) -> pb::Size {
    pb::Size { height: size.height.into(), width: size.width.into() }
}

fn state(shown: pb::State) -> ExecState {
    let made = shown.made.unwrap_or_default();
    ExecState {
        container: shown.container_id,
        running: shown.running,
        exit_code: shown.exit_code,
        pid: shown.pid,
        made: NewExec {
            command: made.command,
            user: made.user,
            tty: made.tty,
            attach_stdin: made.attach_stdin,
            attach_stdout: made.attach_stdout,
            attach_stderr: made.attach_stderr,
            privileged: made.privileged,
            ..NewExec::default()
        },
    }
}
