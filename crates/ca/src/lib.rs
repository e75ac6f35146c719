//! swarmlite-ca
