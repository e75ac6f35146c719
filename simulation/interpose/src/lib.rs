//! swarmlite-interpose
