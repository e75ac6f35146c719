//! `swarmlite`: the daemon, and the command line that talks to it.
//!
//! **Owns** argument parsing, tables, templates, progress, and the start of a daemon.
//!
//! **Must never** speak anything but the Docker Engine HTTP API to a daemon: what this command line can do, `docker` with
//! the same socket can do too.
#![forbid(unsafe_code)]

mod app;
mod client;
mod commands;
mod context;
mod daemon;
mod dev;
mod error;
mod format;
mod opts;
mod terminal;
mod tls;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::main(std::env::args_os().collect())
}
