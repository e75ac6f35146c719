//! swarmlite-raft
