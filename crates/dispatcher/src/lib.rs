//! swarmlite-dispatcher
