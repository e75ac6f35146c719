//! A deliberate bug for the simulation to catch: a manager that lets removed nodes in.

use model::{NodeId, Role};
use rpc::Admission;
use std::sync::Arc;

/// Takes whoever was removed for a worker. Only [`crate::Canaries::accept_removed`] puts it in the way.
pub(crate) struct Forgiving(pub(crate) Arc<dyn Admission>);

impl Admission for Forgiving {
    fn current_role(&self, node: &NodeId, issued: &ca::Issued) -> Option<Role> {
        self.0.current_role(node, issued).or(Some(Role::Worker))
    }

    fn raft_peer(&self, _: &NodeId, _: &ca::Issued) -> bool {
        true
    }
}
