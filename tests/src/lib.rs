//! swarmlite-tests
