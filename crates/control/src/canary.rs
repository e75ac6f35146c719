//! Deliberate bugs of the control loops.

/// Deliberate bugs, for the simulation to catch. All off in production; nothing outside the simulation sets them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Canary {
    /// The updater replaces everything at once, whatever parallelism the service asks for.
    pub ignore_parallelism: bool,
    /// The restart supervisor leaves tasks on nodes that are drained.
    pub keep_drained: bool,
}
