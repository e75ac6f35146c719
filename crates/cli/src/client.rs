//! A client of the Docker Engine HTTP API, over a Unix socket, TCP with mutual TLS, or loopback TCP.

mod hijack;

use crate::tls::Tls;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use seams::{BoxStream, Net, Tasks};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/swarmlite.sock";
/// The API version that we speak.
pub(crate) const API_VERSION: &str = "1.52";
/// For opening the connection, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For an answer to begin, and for a whole one that is no stream. The daemon's own longest waits (joining: 20 s; a write
/// without a leader) end before it, so that it is the one who says what happened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that we keep in memory.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port of this machine.
    Tcp(SocketAddr),
    /// A TCP port with TLS, anywhere.
    Tls {
        /// Host name or IP address; the server's certificate must be for it.
        name: String,
        /// Port.
        port: u16,
    },
}

/// A text that is not a [`Host`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHost {
    /// Neither `unix://` nor `tcp://`.
    #[error(
        "invalid host `{0}`: it must be unix:///path/to/socket, or tcp://HOST:PORT (with --tlsverify, unless it is this machine)"
    )]
    Form(String),
    /// TCP to another machine would be neither encrypted nor authenticated.
    #[error(
        "invalid host `{0}`: without --tlsverify tcp:// is for this machine only (127.0.0.1, [::1], localhost), as the \
         connection is not encrypted; use --tlsverify with the daemon's --api-addr, or forward the remote socket, for example \
         with `ssh -L /tmp/swarmlite.sock:/run/swarmlite.sock HOST`"
    )]
    Remote(String),
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("Cannot connect to the Swarmlite daemon at {0}. Is the swarmlite daemon running?")]
    NoDaemon(Host),
    /// The socket is not for this user.
    #[error(
        "permission denied while trying to connect to the Swarmlite daemon socket at {0}. Run the command as root, or as a \
         user who may write to that socket"
    )]
    Denied(Host),
    /// Somebody listens, and TLS does not come to stand.
    #[error(
        "cannot connect to the Swarmlite daemon at {host}: {reason}. Both ends need certificates: --tlscacert must be the \
         authority of the daemon's, --tlscert and --tlskey signed by the authority in its --api-tls-ca"
    )]
    Tls {
        /// Where.
        host: Host,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error(
        "the Swarmlite daemon at {host} did not answer {what} within {after:?}; the request may or may not have taken effect"
    )]
    Timeout {
        /// Where.
        host: Host,
        /// Method and path.
        what: String,
        /// How long it had.
        after: Duration,
    },
    /// The daemon said no.
    #[error("Error response from daemon: {message}")]
    Daemon {
        /// HTTP status.
        status: u16,
        /// The daemon's words.
        message: String,
    },
    /// The connection broke, or what came over it was no HTTP.
    #[error("error during connect to {host}: {what}: {reason}")]
    Broken {
        /// Where.
        host: Host,
        /// Method and path.
        what: String,
        /// Why.
        reason: String,
    },
    /// The answer is not what the API says it should be.
    #[error("the daemon's answer to {what} cannot be read: {reason}")]
    Answer {
        /// Method and path.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Sends requests to one daemon. Every request has a connection of its own, which is cheap on one machine.
#[derive(Clone)]
pub(crate) struct Client {
    host: Host,
    tls: Option<Tls>,
    net: Arc<dyn Net>,
    tasks: Tasks,
}

/// The query part of a URL.
pub(crate) type Query<'a> = &'a [(&'a str, String)];

/// An answer that goes on.
pub(crate) struct Stream {
    /// The `Content-Type`.
    pub(crate) content_type: String,
    body: Incoming,
    host: Host,
    what: String,
}

// === impl Host ===

impl Host {
    /// Reads a host; `tls` when the connection will be encrypted and both ends authenticated.
    pub(crate) fn parse(text: &str, tls: bool) -> Result<Host, InvalidHost> {
        let form = || InvalidHost::Form(text.to_owned());
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Host::Unix(path.into())),
            Some(("tcp", address)) => {
                let address = address.trim_end_matches('/');
                let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
                let port: u16 = port.parse().map_err(|_| form())?;
                let host = host.trim_start_matches('[').trim_end_matches(']');
                if tls {
                    let is_name = rustls::pki_types::ServerName::try_from(host).is_ok();
                    return if is_name { Ok(Host::Tls { name: host.to_owned(), port }) } else { Err(form()) };
                }
                let ip = if host == "localhost" { Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host.parse() };
                match ip {
                    Ok(ip) if ip.is_loopback() => Ok(Host::Tcp(SocketAddr::new(ip, port))),
                    _ => Err(InvalidHost::Remote(text.to_owned())),
                }
            }
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Unix(path) => write!(f, "unix://{}", path.display()),
            Host::Tcp(address) => write!(f, "tcp://{address}"),
            Host::Tls { name, port } if name.contains(':') => write!(f, "tcp://[{name}]:{port}"),
            Host::Tls { name, port } => write!(f, "tcp://{name}:{port}"),
        }
    }
}

// === impl Client ===

impl Client {
    /// A client of the daemon at `host`, with `tls` where the host wants it. Its connections end with `tasks`.
    pub(crate) fn new(host: Host, tls: Option<Tls>, net: Arc<dyn Net>, tasks: Tasks) -> Client {
        Client { host, tls, net, tasks }
    }

    /// `GET`, read as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: Query<'_>) -> Result<T, ClientError> {
        decode(&format!("GET {path}"), &self.get_raw(path, query).await?)
    }

    /// `GET`, as it came.
    pub(crate) async fn get_raw(&self, path: &str, query: Query<'_>) -> Result<Bytes, ClientError> {
        self.whole("GET", path, query, Bytes::new(), &[], ANSWER_TIMEOUT).await
    }

    /// `GET` with more headers and another patience than usual.
    pub(crate) async fn get_within<T: DeserializeOwned>(
        &self,
        path: &str,
        headers: &[(&str, String)],
        patience: Duration,
    ) -> Result<T, ClientError> {
        decode(&format!("GET {path}"), &self.whole("GET", path, &[], Bytes::new(), headers, patience).await?)
    }

    /// `POST` of JSON; the answer as it came (it may be empty).
    pub(crate) async fn post(&self, path: &str, query: Query<'_>, body: &impl Serialize) -> Result<Bytes, ClientError> {
        self.post_with(path, query, body, &[]).await
    }

    /// `POST` of JSON with more headers.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        query: Query<'_>,
        body: &impl Serialize,
        headers: &[(&str, String)],
    ) -> Result<Bytes, ClientError> {
        let what = format!("POST {path}");
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Answer { what, reason: e.to_string() })?;
        self.whole("POST", path, query, body.into(), headers, ANSWER_TIMEOUT).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str, query: Query<'_>) -> Result<(), ClientError> {
        self.delete_raw(path, query).await.map(drop)
    }

    /// `DELETE`, with the answer as it came.
    pub(crate) async fn delete_raw(&self, path: &str, query: Query<'_>) -> Result<Bytes, ClientError> {
        self.whole("DELETE", path, query, Bytes::new(), &[], ANSWER_TIMEOUT).await
    }

    /// What the daemon calls itself, such as `Swarmlite/0.1.0 (linux)`; empty when it does not say.
    pub(crate) async fn server_name(&self) -> Result<String, ClientError> {
        let send = self.send("GET", "/_ping", &[], Bytes::new(), &[]);
        let response = self.within(ANSWER_TIMEOUT, "GET /_ping", send).await?;
        let name = response.headers().get(http::header::SERVER).and_then(|v| v.to_str().ok());
        Ok(name.unwrap_or_default().to_owned())
    }

    /// `GET` whose answer goes on: it is read piece by piece.
    pub(crate) async fn stream(&self, path: &str, query: Query<'_>) -> Result<Stream, ClientError> {
        self.streamed("GET", path, query, Bytes::new()).await
    }

    /// `POST` of JSON whose answer may be long: it is read piece by piece.
    pub(crate) async fn post_stream(&self, path: &str, body: &impl Serialize) -> Result<Stream, ClientError> {
        let what = format!("POST {path}");
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Answer { what, reason: e.to_string() })?;
        self.streamed("POST", path, &[], body.into()).await
    }

    async fn streamed(&self, method: &str, path: &str, query: Query<'_>, body: Bytes) -> Result<Stream, ClientError> {
        let what = format!("{method} {path}");
        let send = self.send(method, path, query, body, &[]);
        let response = self.within(ANSWER_TIMEOUT, &what, send).await?;
        let content_type = response.headers().get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        Ok(Stream { content_type, body: response.into_body(), host: self.host.clone(), what })
    }

    async fn whole(
        &self,
        method: &str,
        path: &str,
        query: Query<'_>,
        body: Bytes,
        headers: &[(&str, String)],
        patience: Duration,
    ) -> Result<Bytes, ClientError> {
        let what = format!("{method} {path}");
        self.within(patience, &what, async {
            let response = self.send(method, path, query, body, headers).await?;
            self.collect(response.into_body(), &what).await
        })
        .await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        what: &str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout { host: self.host.clone(), what: what.to_owned(), after: patience })
        })
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        query: Query<'_>,
        body: Bytes,
        headers: &[(&str, String)],
    ) -> Result<http::Response<Incoming>, ClientError> {
        let what = format!("{method} {path}");
        let broken = |reason: String| ClientError::Broken { host: self.host.clone(), what: what.clone(), reason };
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|e| broken(e.to_string()))?;
        self.tasks.spawn("http connection", async move {
            // Whoever waits for the answer learns of the same error.
            let _ = connection.await;
        });
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("/v{API_VERSION}{path}{}", query_string(query)))
            .header(http::header::HOST, "swarmlite")
            .header(http::header::USER_AGENT, concat!("swarmlite/", env!("CARGO_PKG_VERSION")));
        if method == "POST" {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| broken(e.to_string()))?;
        let response = sender.send_request(request).await.map_err(|e| match &self.host {
            // What a TLS port says to this is an alert.
            Host::Tcp(_) if e.is_parse() => broken(format!("{e}; if the port wants TLS, use --tlsverify")),
            _ => broken(e.to_string()),
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = self.collect(response.into_body(), &what).await?;
        let message = error_message(&body).unwrap_or_else(|| status.to_string());
        Err(ClientError::Daemon { status: status.as_u16(), message })
    }

    async fn connect(&self) -> Result<BoxStream, ClientError> {
        let connecting = async {
            match &self.host {
                Host::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?) as BoxStream),
                Host::Tcp(address) => self.net.connect(*address).await,
                Host::Tls { name, port } => self.connect_by_name(name, *port).await,
            }
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let connected: std::io::Result<BoxStream> =
            connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|e| match e.kind() {
            std::io::ErrorKind::PermissionDenied => ClientError::Denied(self.host.clone()),
            _ => ClientError::NoDaemon(self.host.clone()),
        })?;
        let (Host::Tls { name, .. }, Some(tls)) = (&self.host, &self.tls) else { return Ok(stream) };
        let no_tls = |reason: String| ClientError::Tls { host: self.host.clone(), reason };
        match tokio::time::timeout(CONNECT_TIMEOUT, tls.connect(name, stream)).await {
            Ok(done) => done.map_err(|e| no_tls(e.to_string())),
            Err(_) => Err(no_tls(format!("no TLS handshake within {CONNECT_TIMEOUT:?}"))),
        }
    }

    /// Tries each address of a name.
    async fn connect_by_name(&self, name: &str, port: u16) -> std::io::Result<BoxStream> {
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in tokio::net::lookup_host((name, port)).await? {
            match self.net.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    async fn collect(&self, mut body: Incoming, what: &str) -> Result<Bytes, ClientError> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |e: hyper::Error| ClientError::Broken {
                host: self.host.clone(),
                what: what.to_owned(),
                reason: e.to_string(),
            };
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                    let reason = format!("it is longer than {} MiB", ANSWER_BYTES_MAX >> 20);
                    return Err(ClientError::Answer { what: what.to_owned(), reason });
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    }
}

// === impl Stream ===

impl Stream {
    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let broken = |e: hyper::Error| ClientError::Broken {
                host: self.host.clone(),
                what: self.what.clone(),
                reason: e.to_string(),
            };
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Reads an answer as JSON.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|e| ClientError::Answer { what: what.to_owned(), reason: e.to_string() })
}

fn error_message(body: &[u8]) -> Option<String> {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = match &json {
        Some(json) => json.get("message")?.as_str()?.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    };
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Escapes a part of a URL: all but RFC 3986's unreserved characters.
pub(crate) fn escape(part: &str) -> String {
    part.bytes().fold(String::with_capacity(part.len()), |mut out, b| {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
        out
    })
}

fn query_string(query: Query<'_>) -> String {
    let pairs: Vec<String> = query.iter().map(|(k, v)| format!("{k}={}", escape(v))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_socket_or_a_port_of_this_machine() {
        let shown = |text: &str, tls| Host::parse(text, tls).map(|h| h.to_string());
        assert_eq!(Host::parse("unix:///run/x.sock", true), Ok(Host::Unix("/run/x.sock".into())));
        for tcp in ["tcp://127.0.0.1:2375", "tcp://localhost:2375/"] {
            assert_eq!(shown(tcp, false).as_deref(), Ok("tcp://127.0.0.1:2375"));
        }
        assert_eq!(shown("tcp://[::1]:1", false).as_deref(), Ok("tcp://[::1]:1"));
        for bad in ["", "/run/x.sock", "unix://x.sock", "foo://x", "tcp://127.0.0.1", "tcp://127.0.0.1:x"] {
            for tls in [false, true] {
                assert!(matches!(Host::parse(bad, tls), Err(InvalidHost::Form(_))), "{bad}");
            }
        }
        for remote in ["tcp://10.0.0.1:2376", "tcp://example.com:2376", "tcp://[fd00::1]:2376"] {
            assert!(matches!(Host::parse(remote, false), Err(InvalidHost::Remote(_))), "{remote}");
            assert_eq!(shown(remote, true).as_deref(), Ok(remote));
        }
        assert!(matches!(Host::parse("tcp://a b:1", true), Err(InvalidHost::Form(_))));
    }

    proptest::proptest! {
        #[test]
        fn noise_is_no_host_and_what_is_one_is_shown_as_it_was(text in "(unix://|tcp://)?[-a-z0-9.:/\\[\\]@ %]{0,40}", tls: bool) {
            if let Ok(host) = Host::parse(&text, tls) {
                proptest::prop_assert_eq!(Host::parse(&host.to_string(), tls), Ok(host));
            }
        }
    }

    #[test]
    fn urls_are_escaped() {
        assert_eq!(query_string(&[("filters", r#"{"a b":1}"#.to_owned())]), "?filters=%7B%22a%20b%22%3A1%7D");
        assert_eq!(escape("../web"), "..%2Fweb");
        assert_eq!(query_string(&[]), "");
    }

    #[test]
    fn the_daemons_words_are_found() {
        assert_eq!(error_message(br#"{"message":"no such service"}"#).as_deref(), Some("no such service"));
        assert_eq!(error_message(b"plain text\n").as_deref(), Some("plain text"));
        assert_eq!(error_message(b""), None);
    }
}
