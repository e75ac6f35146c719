//! How a call to an engine fails.

use std::time::Duration;

/// A call to the engine that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine did not answer (is it running?).
    #[error("cannot reach the container engine at {endpoint}: {reason}; is it running?")]
    Unreachable {
        /// Where it should be.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the container engine did not {call} within {after:?}")]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// No such image, container, network or volume.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or the container is in the wrong state.
    #[error("{0}")]
    Conflict(String),
    /// It refused, and would refuse again.
    #[error("{0}")]
    Refused(String),
    /// It failed; another try may succeed.
    #[error("{0}")]
    Failed(String),
}

// === impl EngineError ===

impl EngineError {
    /// True when nothing is known of the call's effect, and the engine itself is what is wrong: ask again when it is back.
    pub fn is_engine_away(&self) -> bool {
        matches!(self, EngineError::Unreachable { .. } | EngineError::Timeout { .. })
    }
}
