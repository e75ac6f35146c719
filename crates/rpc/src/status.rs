//! What handlers and callers read out of requests and statuses.

use crate::connector::ConnectError;
use ca::Peer;
use std::error::Error;
use std::net::SocketAddr;
use tonic::{Code, Request, Status};

/// The address that a request's connection came from. In the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteAddr(pub SocketAddr);

/// The authenticated caller of a request, with the rights that it has now.
///
/// # Errors
/// `PERMISSION_DENIED` when there is none: the RPC is anonymous, or the request did not come through [`crate::serve`].
#[allow(clippy::result_large_err)] // tonic's own error type
pub fn caller<T>(request: &Request<T>) -> Result<Peer, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    peer.ok_or_else(|| Status::permission_denied("permission denied: the caller is not authenticated"))
}

/// The address that a request came from.
pub fn remote_addr<T>(request: &Request<T>) -> Option<SocketAddr> {
    request.extensions().get::<RemoteAddr>().map(|a| a.0)
}

/// `INTERNAL`, with an error's whole chain of causes.
pub fn internal(error: &dyn Error) -> Status {
    Status::internal(chain(error))
}

/// A status in words, with the causes that tonic's own text hides (which address, which timeout).
pub fn describe(status: &Status) -> String {
    if let Some(error) = find_connect_error(status) {
        return chain(error);
    }
    let message = status.message();
    let text = if message.is_empty() { status.code().description() } else { message };
    with_causes(text.to_owned(), status.source())
}

/// True when it is certain that the call had no effect: the connection was never made, or the server refused the caller
/// before any handler. (Too long a message is not among them: the answer may have been the long one.) Everything else that is not an answer is an unknown outcome.
pub fn not_sent(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated) || find_connect_error(status).is_some()
}

fn find_connect_error(status: &Status) -> Option<&ConnectError> {
    let mut next: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn chain(error: &dyn Error) -> String {
    with_causes(error.to_string(), error.source())
}

/// Appends what the causes say, leaving out what was said already: each layer of the transport repeats its cause.
fn with_causes(mut text: String, mut cause: Option<&(dyn Error + 'static)>) -> String {
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
