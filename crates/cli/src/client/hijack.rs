//! Connections that HTTP opens and then hands over: what is typed goes one way, what is printed the other.

use super::{ANSWER_TIMEOUT, API_VERSION, Client, ClientError, error_message};
use bytes::Bytes;
use http_body_util::Full;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;

/// Both directions of a connection that was handed over.
pub(crate) type Hijacked = TokioIo<Upgraded>;

impl Client {
    /// `POST` of JSON that turns the connection into a stream of bytes (Docker's `Upgrade: tcp`).
    pub(crate) async fn hijack(&self, path: &str, body: &impl Serialize) -> Result<Hijacked, ClientError> {
        let what = format!("POST {path}");
        let answer = |reason: String| ClientError::Answer { what: what.clone(), reason };
        let body = serde_json::to_vec(body).map_err(|e| answer(e.to_string()))?;
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("/v{API_VERSION}{path}"))
            .header(http::header::HOST, "swarmlite")
            .header(http::header::USER_AGENT, concat!("swarmlite/", env!("CARGO_PKG_VERSION")))
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::CONNECTION, "Upgrade")
            .header(http::header::UPGRADE, "tcp")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| answer(e.to_string()))?;
        self.within(ANSWER_TIMEOUT, &what, self.upgraded(request, &what)).await
    }

    async fn upgraded(&self, request: http::Request<Full<Bytes>>, what: &str) -> Result<Hijacked, ClientError> {
        let broken = |e: hyper::Error| ClientError::Broken {
            host: self.host.clone(),
            what: what.to_owned(),
            reason: e.to_string(),
        };
        let io = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
        self.tasks.spawn("http connection", async move {
            // Whoever waits for the answer learns of the same error.
            let _ = connection.with_upgrades().await;
        });
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status == http::StatusCode::SWITCHING_PROTOCOLS {
            return hyper::upgrade::on(response).await.map(TokioIo::new).map_err(broken);
        }
        let body = self.collect(response.into_body(), what).await?;
        if status.is_success() {
            let reason = format!("the connection was not handed over (HTTP {status})");
            return Err(ClientError::Answer { what: what.to_owned(), reason });
        }
        let message = error_message(&body).unwrap_or_else(|| status.to_string());
        Err(ClientError::Daemon { status: status.as_u16(), message })
    }
}
