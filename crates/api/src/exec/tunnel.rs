//! The connection of a client that is connected to a command.

use super::{ExecError, ExecInput, ExecTunnel};
use crate::Api;
use crate::reply::{Reply, empty, full, kept_open};
use bytes::{Bytes, BytesMut};
use docker_api::stdcopy;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

/// Bytes of input that are sent on in one piece at most.
const PIECE_BYTES: usize = 32 << 10;
/// Pieces of output that wait for a slow reader before the node does.
const PIECES_BACKLOG: usize = 8;
/// For the last bytes to reach the client.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes the client's connection a tunnel to the command, for as long as its output lasts. `place` is held until then.
pub(super) fn hijacked(
    api: &Api,
    client: OnUpgrade,
    tunnel: ExecTunnel,
    tty: bool,
    place: Option<OwnedSemaphorePermit>,
) -> Reply {
    api.deps().tasks.spawn("exec tunnel", async move {
        match client.await {
            Ok(client) => join(TokioIo::new(client), tunnel, tty).await,
            Err(e) => tracing::debug!(error = %e, "an upgrade was not completed"),
        }
        drop(place);
    });
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    reply
}

/// For a client that did not ask for a tunnel: the output. It cannot send anything.
pub(super) fn output_only(api: &Api, tunnel: ExecTunnel, tty: bool, place: Option<OwnedSemaphorePermit>) -> Reply {
    let (pieces, body) = mpsc::channel(PIECES_BACKLOG);
    let ExecTunnel { mut input, mut output } = tunnel;
    api.deps().tasks.spawn("exec output", async move {
        let passed_on = async {
            let _the_command_is_gone = input.send(ExecInput::End).await;
            while let Some(piece) = output.next().await {
                if pieces.send(piece.unwrap_or_else(|e| last_word(&e, tty))).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = pieces.closed() => {}
            () = passed_on => {}
        }
    });
    let frames = ReceiverStream::new(body).map(|piece| Ok(Frame::data(piece)));
    kept_open(empty().map(|_| http_body_util::BodyExt::boxed(StreamBody::new(frames))), place)
}

/// Passes bytes both ways until the output ends. The end of the client's input is passed on alone.
async fn join(client: impl AsyncRead + AsyncWrite + Send, tunnel: ExecTunnel, tty: bool) {
    let ExecTunnel { mut input, mut output } = tunnel;
    let (mut reader, mut writer) = tokio::io::split(client);
    let inputs = async {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE_BYTES);
            let next = match reader.read_buf(&mut piece).await {
                Ok(0) => ExecInput::End,
                Ok(_) => ExecInput::Bytes(piece.freeze()),
                // The client is gone.
                Err(_) => return,
            };
            let over = next == ExecInput::End;
            if input.send(next).await.is_err() || over {
                // What the command still has to say decides when it is over.
                std::future::pending::<()>().await;
            }
        }
    };
    let outputs = async {
        while let Some(piece) = output.next().await {
            let bytes = piece.unwrap_or_else(|e| last_word(&e, tty));
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
        let _the_client_is_gone = tokio::time::timeout(CLOSE_TIMEOUT, writer.shutdown()).await;
    };
    tokio::select! {
        biased;
        () = outputs => {}
        () = inputs => {}
    }
}

/// Why the output ends early, for the user.
fn last_word(e: &ExecError, tty: bool) -> Bytes {
    let text = format!("{e}\r\n");
    if tty { text.into() } else { stdcopy::encode(stdcopy::Stream::SystemErr, text.as_bytes()) }
}
