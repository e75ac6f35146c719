//! swarmlite-agent
