//! swarmlite-node
