//! swarmlite-docker-api
