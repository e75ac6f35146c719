//! A user's requests to a node's API.

use super::machine::API_PORT;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A user's patience with one request.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// A user's patience with a machine that does not answer at all.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// An answer came.
    Came(StatusCode, Value),
    /// Nothing was sent: there was no connection.
    NotSent,
    /// It was sent, and no (whole) answer came.
    Lost,
}

// === impl Answer ===

impl Answer {
    /// The error message of an answer, for the trace.
    pub(super) fn message(&self) -> &str {
        match self {
            Answer::Came(_, body) => body["message"].as_str().unwrap_or_default(),
            Answer::NotSent => "no connection",
            Answer::Lost => "no answer",
        }
    }
}

/// One request on a connection of its own.
pub(super) async fn ask(to: IpAddr, method: Method, path: &str, body: Option<&Value>) -> Answer {
    tokio::time::timeout(PATIENCE, try_ask(to, method, path, body)).await.unwrap_or(Answer::Lost)
}

async fn try_ask(to: IpAddr, method: Method, path: &str, body: Option<&Value>) -> Answer {
    let connecting = turmoil::net::TcpStream::connect(SocketAddr::new(to, API_PORT));
    let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_PATIENCE, connecting).await else { return Answer::NotSent };
    let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
        return Answer::NotSent;
    };
    let bytes = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "docker")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes::Bytes::from(bytes)))
        .expect("the simulation's own requests are well formed");
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        Some(Answer::Came(status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    };
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    let mut connected = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer.unwrap_or(Answer::Lost),
            // Its end may have brought the rest of the answer; the exchange says.
            _ = &mut connection, if connected => connected = false,
        }
    }
}
