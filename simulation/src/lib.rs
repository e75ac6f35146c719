//! swarmlite-simulation
