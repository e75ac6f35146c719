//! swarmlite-api
