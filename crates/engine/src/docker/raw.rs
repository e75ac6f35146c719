//! Single requests over connections of their own, for what bollard does not do: it takes a terminal's output for frames when
//! it happens to look like one, leaves out what it does not know of a description, and knows no plugins.

use super::{DockerEngine, Endpoint};
use crate::EngineError;
use bytes::Bytes;
use futures::future::{Either, select};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use seams::BoxStream;
use std::fmt::Display;
use std::io;
use std::pin::pin;
use std::time::Duration;

/// What the engine answered.
pub(super) enum Answer {
    /// A whole answer.
    Whole(StatusCode, Bytes),
    /// The connection is now a tunnel; these bytes have come through it already.
    Tunnel(BoxStream, Bytes),
}

// === impl DockerEngine ===

impl DockerEngine {
    /// Sends one request (path without a version) and reads the answer, of at most `bytes_max` bytes. With `upgrade` it asks
    /// for a tunnel.
    pub(super) async fn raw(
        &self,
        call: &'static str,
        after: Duration,
        request: http::request::Builder,
        body: Vec<u8>,
        bytes_max: usize,
    ) -> Result<Answer, EngineError> {
        let exchange = async {
            let stream = self.dial().await.map_err(|e| self.unreachable(e.to_string()))?;
            exchange(stream, whole(call, request, body)?, bytes_max).await.map_err(|e| self.unreachable(e))
        };
        match tokio::time::timeout(after, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(EngineError::Timeout { call, after }),
        }
    }

    /// Sends one request and follows what the engine says of its progress, line by line, to the end. Given up when nothing
    /// comes for `stall`, or after `total`.
    pub(super) async fn raw_progress(
        &self,
        call: &'static str,
        stall: Duration,
        total: Duration,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<(), EngineError> {
        let request = whole(call, request, body)?;
        let dialled = tokio::time::timeout(stall, self.dial()).await;
        let stream = dialled.map_err(|_| EngineError::Timeout { call, after: stall })?;
        let stream = stream.map_err(|e| self.unreachable(e.to_string()))?;
        match tokio::time::timeout(total, follow(stream, request, stall)).await {
            Ok(Followed::Done) => Ok(()),
            Ok(Followed::Failed(error)) => Err(error),
            Ok(Followed::Lost(why)) => Err(self.unreachable(why)),
            Ok(Followed::Stalled) => Err(EngineError::Timeout { call, after: stall }),
            Err(_) => Err(EngineError::Timeout { call, after: total }),
        }
    }

    #[allow(clippy::disallowed_methods)] // this crate is the seam to the engine; bollard dials likewise
    async fn dial(&self) -> io::Result<BoxStream> {
        Ok(match &self.endpoint {
            Endpoint::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
            Endpoint::Tcp(url) => {
                Box::new(tokio::net::TcpStream::connect(url.strip_prefix("tcp://").unwrap_or(url)).await?)
            }
        })
    }
}

fn whole(
    call: &'static str,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, EngineError> {
    request
        .header(header::HOST, "docker")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| EngineError::Refused(format!("cannot ask the engine to {call}: {e}")))
}

/// An answer with an error status, in our terms.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> EngineError {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|j| j.get("message")).and_then(|m| m.as_str());
    let message = message.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    super::by_status(status.as_u16(), message)
}

/// Sends the request and drives the connection until there is an answer. There is no task of its own for the connection, so
/// that it ends with whoever waits for the answer.
async fn exchange(stream: BoxStream, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<Answer, String> {
    let text = |e: &dyn Display| e.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let answer = pin!(async {
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok((status, Bytes::new()));
        }
        let body = Limited::new(response.into_body(), bytes_max).collect().await.map_err(|e| text(&e))?;
        Ok::<_, String>((status, body.to_bytes()))
    });
    let connection = pin!(connection.without_shutdown());
    let (answer, connection) = match select(answer, connection).await {
        Either::Left((answer, connection)) => (answer?, Either::Left(connection)),
        Either::Right((ended, answer)) => (answer.await?, Either::Right(ended)),
    };
    if answer.0 != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Whole(answer.0, answer.1));
    }
    let ended = match connection {
        Either::Left(connection) => connection.await,
        Either::Right(ended) => ended,
    };
    let parts = ended.map_err(|e| text(&e))?;
    Ok(Answer::Tunnel(parts.io.into_inner(), parts.read_buf))
}

/// How following an answer ended.
enum Followed {
    Done,
    Failed(EngineError),
    Lost(String),
    Stalled,
}

/// Bytes of a line of progress, and of an answer that says why there is none.
const LINE_BYTES_MAX: usize = 64 << 10;

async fn follow(stream: BoxStream, request: Request<Full<Bytes>>, stall: Duration) -> Followed {
    let (mut sender, connection) = match http1::handshake(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(e) => return Followed::Lost(e.to_string()),
    };
    let progress = pin!(async {
        let response = match tokio::time::timeout(stall, sender.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Followed::Lost(e.to_string()),
            Err(_) => return Followed::Stalled,
        };
        let (status, mut body) = (response.status(), response.into_body());
        let mut line = Vec::new();
        loop {
            match tokio::time::timeout(stall, body.frame()).await {
                Ok(Some(Ok(frame))) => line.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d)),
                Ok(Some(Err(e))) => return Followed::Lost(e.to_string()),
                Err(_) => return Followed::Stalled,
                Ok(None) if status.is_success() => return ended(&line),
                Ok(None) => return Followed::Failed(refused(status, &line)),
            }
            while status.is_success()
                && let Some(end) = line.iter().position(|b| *b == b'\n')
            {
                if let failed @ Followed::Failed(_) = ended(&line[..end]) {
                    return failed;
                }
                line.drain(..=end);
            }
            if line.len() > LINE_BYTES_MAX {
                return Followed::Lost("a line of its progress is too long".into());
            }
        }
    });
    match select(progress, pin!(connection)).await {
        Either::Left((followed, _)) => followed,
        Either::Right((_, progress)) => progress.await,
    }
}

/// What a line of progress says: an error comes in one too, when the engine had begun to answer.
fn ended(line: &[u8]) -> Followed {
    let json: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    let error = json.as_ref().and_then(|j| j.get("error")).and_then(|e| e.as_str());
    error.map_or(Followed::Done, |error| Followed::Failed(EngineError::Failed(error.to_owned())))
}
