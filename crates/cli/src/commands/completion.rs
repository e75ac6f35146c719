//! Completion scripts and man pages, from the one definition of the command line.

use crate::error::CliError;
use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// `completion`.
#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Directory that the pages are written to
    directory: PathBuf,
}

/// Prints a completion script.
pub(crate) fn complete(args: &CompletionArgs) -> Result<(), CliError> {
    use std::io::Write as _;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::app::command(), "swarmlite", &mut script);
    let written = std::io::stdout().lock().write_all(&script);
    written.map_err(|e| CliError::text(format!("cannot write the completion script: {e}")))
}

/// Writes a page for every command into an existing directory: `swarmlite.1`, `swarmlite-service-create.1`, …
pub(crate) fn man(args: &ManArgs) -> Result<(), CliError> {
    let failed = |e| CliError::text(format!("cannot write the man pages to {}: {e}", args.directory.display()));
    clap_mangen::generate_to(crate::app::command(), &args.directory).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        man(&ManArgs { directory: directory.path().to_owned() }).unwrap();
        for name in ["swarmlite.1", "swarmlite-service-create.1", "swarmlite-daemon.1"] {
            assert!(directory.path().join(name).is_file(), "{name}");
        }
        assert!(man(&ManArgs { directory: "/nonexistent/man".into() }).is_err());
    }
}
