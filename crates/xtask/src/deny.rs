//! `cargo deny`: where dependencies come from, which are banned, under which licences they are, and what is known to be
//! wrong with them. deny.toml says what is allowed; docs/adr/ says why it is done this way.

use crate::run;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Pinned, so that a new release of the tool never breaks an old commit.
const VERSION: &str = "0.20.2";
/// Compiling it takes minutes, once for a target directory.
const INSTALL_MAX: Duration = Duration::from_secs(900);
/// For fetching the advisory database, and looking.
const CHECK_MAX: Duration = Duration::from_secs(120);
/// What cargo-deny says when it cannot get the database, as opposed to when it found something.
const UNREACHABLE: [&str; 4] =
    ["failed to fetch advisory database", "failed to load advisory database", "Could not resolve host", "IO error"];

/// What is known of advisories.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advisories {
    /// The database was read, and nothing in it concerns us.
    Clean,
    /// Something concerns us.
    Found(String),
    /// Nobody knows: the database is out of reach.
    Unknown(String),
}

/// `cargo xtask deny`: everything, advisories included.
pub(crate) fn command() -> Result<(), String> {
    check()?;
    println!("deny: sources, bans and licences are in order");
    advisories_command()
}

/// `cargo xtask advisories`: fails when something is known, and when nothing could be known.
pub(crate) fn advisories_command() -> Result<(), String> {
    match advisories()? {
        Advisories::Clean => {
            println!("deny: no advisory concerns what Cargo.lock names");
            Ok(())
        }
        Advisories::Found(what) => Err(what),
        Advisories::Unknown(why) => Err(format!(
            "advisories were NOT CHECKED: the database (https://github.com/rustsec/advisory-db) is out of reach from here; \
             run `cargo xtask advisories` where it is not\n{why}"
        )),
    }
}

/// Sources, bans and licences: from Cargo.lock and the manifests alone, without a network.
pub(crate) fn check() -> Result<(), String> {
    let tool = install()?;
    let logged =
        run::logged(deny(&tool).args(["--offline", "check", "bans", "licenses", "sources"]), "deny-check", CHECK_MAX)?;
    if logged.ok { Ok(()) } else { Err(run::tail(&logged.log, 60)) }
}

/// What the advisory database says.
pub(crate) fn advisories() -> Result<Advisories, String> {
    let tool = install()?;
    let logged = run::logged(deny(&tool).args(["check", "advisories"]), "deny-advisories", CHECK_MAX)?;
    Ok(if logged.ok { Advisories::Clean } else { verdict(&logged.log) })
}

fn verdict(log: &str) -> Advisories {
    let said = run::tail(log, 60);
    // Only a report of its own counts as a finding: anything else means that it never came to look.
    let looked = log.contains("error[") || log.contains("advisories FAILED");
    if looked && !UNREACHABLE.iter().any(|text| log.contains(text)) {
        Advisories::Found(said)
    } else {
        Advisories::Unknown(run::tail(log, 5))
    }
}

fn deny(tool: &PathBuf) -> Command {
    let mut command = Command::new(tool);
    command.current_dir(run::root());
    command
}

/// The tool, compiled from the package registry when it is not there yet.
fn install() -> Result<PathBuf, String> {
    let root = run::target().join("xtask/tools").join(format!("cargo-deny-{VERSION}"));
    let tool = root.join("bin/cargo-deny");
    if tool.exists() {
        return Ok(tool);
    }
    println!("        installing cargo-deny {VERSION} (minutes, once)");
    // A debug build checks a lock file within a second or two, and compiles in a third of the time.
    let mut install = run::cargo(&["install", "--locked", "--debug", "--version", VERSION, "cargo-deny", "--root"]);
    let logged = run::logged(install.arg(&root), "deny-install", INSTALL_MAX)?;
    if logged.ok && tool.exists() {
        return Ok(tool);
    }
    Err(format!("cargo-deny {VERSION} cannot be installed:\n{}", run::tail(&logged.log, 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_told_from_a_database_out_of_reach() {
        let found = "error[vulnerability]: something\n  advisory: https://rustsec.org/…\nadvisories FAILED\n";
        assert_eq!(verdict(found), Advisories::Found(run::tail(found, 60)));
        for unreachable in [
            "[ERROR] failed to fetch advisory database https://github.com/rustsec/advisory-db\n",
            "killed: it had 120 s\n",
            "",
        ] {
            assert!(matches!(verdict(unreachable), Advisories::Unknown(_)), "{unreachable}");
        }
    }
}
