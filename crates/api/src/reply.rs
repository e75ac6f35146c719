//! Replies: JSON bodies, empty ones, streams, and Docker's errors.

use bytes::Bytes;
use docker_api::{ErrorResponse, Failure};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;

/// What a body may fail with.
pub(crate) type BodyError = std::io::Error;
/// The body of every reply, and of what is sent on to the engine.
pub(crate) type Body = BoxBody<Bytes, BodyError>;
/// A reply.
pub(crate) type Reply = Response<Body>;

/// A body of these bytes.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// 200 with JSON.
pub(crate) fn json(value: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, value)
}

/// Any status with JSON.
pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut bytes = serde_json::to_vec(value).expect("bodies are maps with string keys, which always encode");
    bytes.push(b'\n');
    json_bytes(status, bytes)
}

/// Any status with JSON that is written already.
pub(crate) fn json_bytes(status: StatusCode, bytes: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(full(bytes));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// 200 and nothing else.
pub(crate) fn empty() -> Reply {
    Response::new(full(Bytes::new()))
}

/// A body that holds a place among the streams until it has ended, or its reader is gone.
struct KeptOpen {
    body: Body,
    _place: OwnedSemaphorePermit,
}

/// The reply, whose body holds `place` for as long as it lasts.
pub(crate) fn kept_open(reply: Reply, place: Option<OwnedSemaphorePermit>) -> Reply {
    match place {
        None => reply,
        Some(place) => reply.map(|body| KeptOpen { body, _place: place }.boxed()),
    }
}

impl http_body::Body for KeptOpen {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Docker's error body.
pub(crate) fn failure(failure: &Failure) -> Reply {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_with(status, &ErrorResponse { message: failure.message.clone() })
}
