//! Who is calling.

use model::NodeId;
use tonic::{Request, Status};

/// The node that made a call, by its certificate, and the address that it called from (empty when the transport has none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) node: NodeId,
    pub(crate) addr: String,
}

// === impl Caller ===

impl Caller {
    /// Reads what the transport has verified. A request without it never came through the transport.
    #[allow(clippy::result_large_err)] // tonic's own error type
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Caller, Status> {
        let addr = rpc::remote_addr(request).map(|a| a.ip().to_string()).unwrap_or_default();
        Ok(Caller { node: rpc::caller(request)?.node_id, addr })
    }
}
