//! A client of an HTTP API on a Unix socket: a node's, or the Docker Engine's.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Longer than the daemon's own longest wait, so that it is the one who says what happened.
const REQUEST_LIMIT: Duration = Duration::from_secs(45);

/// For a web server on this machine.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// An API on a Unix socket.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
    limit: Duration,
}

/// A connection that is used for several requests.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    limit: Duration,
}

/// A request that was not answered with success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// Nobody listens: nothing was sent.
    Unreachable(String),
    /// The connection broke, or nothing came in time, after something was sent.
    Broken(String),
    /// The answer is an error.
    Refused {
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
}

// === impl Api ===

impl Api {
    /// The API at this socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), limit: REQUEST_LIMIT }
    }

    /// The same with another patience for each request.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Connection, ApiError> {
        let unreachable =
            |error: &dyn fmt::Display| ApiError::Unreachable(format!("{}: {error}", self.socket.display()));
        let connecting = tokio::time::timeout(self.limit, UnixStream::connect(&self.socket)).await;
        let stream = connecting.map_err(|late| unreachable(&late))?.map_err(|error| unreachable(&error))?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        // It ends with its sender; what breaks it is told to whoever waits for an answer.
        tokio::spawn(connection);
        Ok(Connection { sender, limit: self.limit })
    }

    /// One request on a connection of its own; the answer as it came.
    pub async fn raw(&self, method: &str, path: &str, body: impl Into<Bytes>) -> Result<Bytes, ApiError> {
        self.connect().await?.raw(method, path, body).await
    }

    /// `GET`; null when the answer is empty.
    pub async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.raw("GET", path, "").await.map(|bytes| json(&bytes))
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.raw("POST", path, body.to_string()).await.map(|bytes| json(&bytes))
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.raw("DELETE", path, "").await.map(drop)
    }
}

// === impl Connection ===

impl Connection {
    /// One request; the answer as it came.
    pub async fn raw(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Result<Bytes, ApiError> {
        let broken = |error: &dyn fmt::Display| ApiError::Broken(format!("{method} {path}: {error}"));
        let request = ::http::Request::builder()
            .method(method)
            .uri(path)
            .header(::http::header::HOST, "swarmlite")
            .header(
                ::http::header::CONTENT_TYPE,
                if path.starts_with("/images/create") { "application/x-tar" } else { "application/json" },
            )
            .body(Full::new(body.into()))
            .map_err(|error| broken(&error))?;
        let exchange = async {
            self.sender.ready().await.map_err(|error| broken(&error))?;
            let response = self.sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = response.status();
            let bytes = response.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
            if status.is_success() || status == ::http::StatusCode::NOT_MODIFIED {
                return Ok(bytes);
            }
            let message = json(&bytes)["message"]
                .as_str()
                .map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), String::from);
            Err(ApiError::Refused { status: status.as_u16(), message })
        };
        match tokio::time::timeout(self.limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(broken(&format!("no answer within {:?}", self.limit))),
        }
    }
}

// === impl ApiError ===

impl ApiError {
    /// Whether the change that was asked for may have happened, or may still.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unreachable(_) => false,
            Self::Broken(_) => true,
            Self::Refused { status, .. } => *status >= 500,
        }
    }

    /// Whether the server says that the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(what) | Self::Broken(what) => f.write_str(what),
            Self::Refused { status, message } => write!(f, "{status}: {message}"),
        }
    }
}

impl From<ApiError> for String {
    fn from(error: ApiError) -> String {
        error.to_string()
    }
}

/// `GET /` over TCP, from a server that is none of ours; returns the body.
pub async fn fetch(address: &str) -> Result<String, String> {
    let failed = |error: &dyn fmt::Display| format!("http://{address}/: {error}");
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(address).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::spawn(connection);
        let request = ::http::Request::get("/").header(::http::header::HOST, address).body(Full::new(Bytes::new()));
        let request = request.map_err(|error| failed(&error))?;
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
        let body = String::from_utf8_lossy(&body).trim().to_string();
        if status.is_success() { Ok(body) } else { Err(failed(&format!("{status}: {body}"))) }
    };
    match tokio::time::timeout(FETCH_LIMIT, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(failed(&format!("no answer within {FETCH_LIMIT:?}"))),
    }
}

/// Reads an answer; text that is no JSON is a string.
pub fn json(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes).trim()))
}

/// A query's value: everything but letters, digits and `-_.` is percent-encoded.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown() {
        let refused = |status| ApiError::Refused { status, message: String::new() };
        assert!(!ApiError::Unreachable(String::new()).is_unknown());
        assert!(ApiError::Broken(String::new()).is_unknown());
        assert!(refused(503).is_unknown());
        assert!(!refused(409).is_unknown());
        assert!(refused(404).is_not_found());
    }

    #[test]
    fn encoding() {
        assert_eq!(encoded(r#"{"a":["b.c"]}"#), "%7B%22a%22%3A%5B%22b.c%22%5D%7D");
    }

    #[tokio::test]
    async fn nobody_there() {
        let error = Api::new("/nonexistent/socket").get("/_ping").await.expect_err("nobody is there");
        assert!(matches!(error, ApiError::Unreachable(_)), "{error}");
    }
}
