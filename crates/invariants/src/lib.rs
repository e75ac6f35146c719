//! swarmlite-invariants
