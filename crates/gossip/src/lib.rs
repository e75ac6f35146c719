//! swarmlite-gossip
