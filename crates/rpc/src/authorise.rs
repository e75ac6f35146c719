//! The layer in front of every handler.

use crate::access::{self, Admission, Denied, Row, Shape};
use crate::status::RemoteAddr;
use bytes::Bytes;
use ca::{Identity, Issued, Peer};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use model::ClusterId;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use seams::Clock;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

/// What is known of a connection, once for all its requests.
pub(crate) struct Connection {
    pub(crate) remote: SocketAddr,
    /// From the verified client certificate; `None` when none was shown.
    pub(crate) shown: Option<Shown>,
    pub(crate) our_cluster: ClusterId,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whose roots are trusted now.
    pub(crate) identity: watch::Receiver<Option<Arc<Identity>>>,
    pub(crate) unary_timeout: Duration,
}

/// A client's certificate.
pub(crate) struct Shown {
    peer: Peer,
    expires_at: Duration,
    /// Of the state that granted it.
    issued: Issued,
    chain: Vec<CertificateDer<'static>>,
    /// The identity with whose roots the chain was judged last, and the verdict.
    judged: Mutex<(Arc<Identity>, bool)>,
}

/// Lets a request through to `inner` only when the table allows it. The body is not touched before that. What a stream
/// carries is judged anew piece by piece: a node that is removed or demoted loses its streams, too. So is the body of a call with
/// one message, to its end: no call that was begun in time is held open and finished later.
#[derive(Clone)]
pub(crate) struct Authorise<S> {
    pub(crate) inner: S,
    pub(crate) connection: Arc<Connection>,
}

/// One direction of a stream, or the request of a call with one message.
struct Guarded {
    inner: Body,
    connection: Arc<Connection>,
    row: &'static Row,
    direction: Direction,
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

// === impl Shown ===

impl Shown {
    /// What a certificate says whose chain the handshake has just verified with the roots of `identity`.
    pub(crate) fn new(chain: &[CertificateDer<'_>], identity: Arc<Identity>) -> Result<Option<Shown>, ca::InvalidPeer> {
        let Some(leaf) = chain.first() else { return Ok(None) };
        Ok(Some(Shown {
            peer: Peer::from_certificate(leaf)?,
            expires_at: ca::expires_at(leaf)?,
            issued: Issued::of(leaf)?,
            chain: chain.iter().map(|cert| cert.clone().into_owned()).collect(),
            judged: Mutex::new((identity, true)),
        }))
    }

    /// Whether the roots that are trusted now still vouch for the certificate. They change about never, so the verdict is kept.
    fn is_trusted(&self, now: &Arc<Identity>, clock: Duration) -> bool {
        let mut judged = self.judged.lock();
        if !Arc::ptr_eq(&judged.0, now) {
            let same_roots = judged.0.root_pem == now.root_pem;
            let verdict = if same_roots { judged.1 } else { ca::still_trusts(now, &self.chain, clock) };
            *judged = (now.clone(), verdict);
        }
        judged.1
    }
}

// === impl Connection ===

impl Connection {
    fn decide(&self, path: &str) -> Result<(Option<Peer>, &'static Row), Denied> {
        let row = access::find(path).ok_or(Denied::Unlisted)?;
        Ok((self.judge(row)?, row))
    }

    fn judge(&self, row: &Row) -> Result<Option<Peer>, Denied> {
        let shown = self.shown.as_ref();
        if row.who != access::Who::Anonymous
            && let Some(shown) = shown
        {
            let now = self.clock.unix_now();
            if now > shown.expires_at {
                let whose = format!("node {}", shown.peer.node_id);
                let why = ca::not_valid(&whose, (Duration::ZERO, shown.expires_at), now);
                return Err(Denied::Expired(why.unwrap_or_default()));
            }
            let identity = self.identity.borrow();
            if identity.as_ref().is_some_and(|identity| !shown.is_trusted(identity, now)) {
                return Err(Denied::OldRoot(shown.peer.node_id.clone()));
            }
        }
        let caller = shown.map(|s| (&s.peer, &s.issued));
        access::decide(row.who, caller, &self.our_cluster, self.admission.as_ref())
    }
}

// === impl Authorise ===

impl<S, B> tower::Service<Request<B>> for Authorise<S>
where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let (caller, row) = match self.connection.decide(request.uri().path()) {
            Ok(decision) => decision,
            Err(denied) => {
                tracing::debug!(remote = %self.connection.remote, path = request.uri().path(), %denied, "call denied");
                let response = denied.status().into_http();
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        request.extensions_mut().insert(RemoteAddr(self.connection.remote));
        if let Some(peer) = caller {
            request.extensions_mut().insert(peer);
        }
        let bound = self.connection.unary_timeout;
        match row.shape {
            Shape::Streaming => {
                let connection = self.connection.clone();
                let guarded = move |body, direction| {
                    let connection = connection.clone();
                    Body::new(Guarded { inner: body, connection, row, direction, over: false })
                };
                let answer = self.inner.call(request.map(|body| guarded(Body::new(body), Direction::Request)));
                Box::pin(async move { Ok(answer.await?.map(|body| guarded(body, Direction::Response))) })
            }
            Shape::Unary => {
                let connection = self.connection.clone();
                let answer = self.inner.call(request.map(|body| {
                    let (inner, direction) = (Body::new(body), Direction::Request);
                    Body::new(Guarded { inner, connection, row, direction, over: false })
                }));
                Box::pin(async move {
                    // Bounds a request body that never ends, too: a unary handler answers only after it.
                    tokio::time::timeout(bound, answer).await.unwrap_or_else(|_elapsed| {
                        let text = format!("the call took longer than {} s", bound.as_secs());
                        Ok(Status::deadline_exceeded(text).into_http())
                    })
                })
            }
        }
    }
}

// === impl Guarded ===

impl Guarded {
    /// A handler of one message acts when its request is whole. The end of a stream, and what ends it, passes always.
    fn acts_at_its_end(&self) -> bool {
        self.row.shape == Shape::Unary
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let judged = match &frame {
            Some(Ok(frame)) => frame.is_data() || self.acts_at_its_end(),
            None => self.acts_at_its_end(),
            Some(Err(_)) => false,
        };
        if !judged {
            return Poll::Ready(frame);
        }
        let Err(denied) = self.connection.judge(self.row) else { return Poll::Ready(frame) };
        tracing::debug!(remote = %self.connection.remote, path = self.row.path, %denied, "stream cut");
        self.over = true;
        let status = denied.status();
        Poll::Ready(Some(match self.direction {
            Direction::Request => Err(status),
            // A response ends with its status in the trailers.
            Direction::Response => match trailers(&status) {
                Some(trailers) => Ok(Frame::trailers(trailers)),
                None => Err(status),
            },
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.over || (self.inner.is_end_stream() && !self.acts_at_its_end())
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn trailers(status: &Status) -> Option<http::HeaderMap> {
    let mut trailers = http::HeaderMap::new();
    status.add_header(&mut trailers).ok()?;
    Some(trailers)
}
