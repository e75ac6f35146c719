//! The layer in front of every handler.

use crate::access::{self, Admission, Denied, Shape};
use crate::status::RemoteAddr;
use ca::Peer;
use http::{Request, Response};
use model::ClusterId;
use seams::Clock;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;

/// What is known of a connection, once for all its requests.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) remote: SocketAddr,
    /// From the verified client certificate, with the end of its validity; `None` when none was shown.
    pub(crate) peer: Option<(Peer, Duration)>,
    pub(crate) our_cluster: ClusterId,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) unary_timeout: Duration,
}

/// Lets a request through to `inner` only when the table allows it. The body is not touched before that.
#[derive(Clone)]
pub(crate) struct Authorise<S> {
    pub(crate) inner: S,
    pub(crate) connection: Arc<Connection>,
}

// === impl Connection ===

impl Connection {
    fn decide(&self, path: &str) -> Result<(Option<Peer>, Shape), Denied> {
        let row = access::find(path).ok_or(Denied::Unlisted)?;
        let peer = self.peer.as_ref();
        if row.who != access::Who::Anonymous && peer.is_some_and(|(_, end)| self.clock.unix_now() > *end) {
            return Err(Denied::Expired);
        }
        let caller = access::decide(row.who, peer.map(|(p, _)| p), &self.our_cluster, self.admission.as_ref())?;
        Ok((caller, row.shape))
    }
}

// === impl Authorise ===

impl<S, B> tower::Service<Request<B>> for Authorise<S>
where
    S: tower::Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (caller, shape) = match self.connection.decide(request.uri().path()) {
            Ok(decision) => decision,
            Err(denied) => {
                tracing::debug!(remote = %self.connection.remote, path = request.uri().path(), %denied, "call denied");
                let response = Status::permission_denied(denied.to_string()).into_http();
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        request.extensions_mut().insert(RemoteAddr(self.connection.remote));
        if let Some(peer) = caller {
            request.extensions_mut().insert(peer);
        }
        let answer = self.inner.call(request);
        let bound = self.connection.unary_timeout;
        Box::pin(async move {
            match shape {
                Shape::Streaming => answer.await,
                // Bounds a request body that never ends, too: a unary handler answers only after it.
                Shape::Unary => tokio::time::timeout(bound, answer).await.unwrap_or_else(|_elapsed| {
                    let text = format!("the call took longer than {} s", bound.as_secs());
                    Ok(Status::deadline_exceeded(text).into_http())
                }),
            }
        })
    }
}
