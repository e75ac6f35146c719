//! swarmlite-control
