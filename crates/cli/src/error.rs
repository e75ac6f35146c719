//! What can go wrong with a command, and the exit code it gives.

use crate::client::ClientError;
use crate::format::template::TemplateError;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The daemon refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A `--format` that is no template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Something else, told in full.
    #[error("{0}")]
    Text(String),
    /// A flag's value is wrong. Told with the usage, as Docker does.
    #[error("invalid argument {value:?} for \"{flag}\" flag: {reason}")]
    Argument {
        /// The value.
        value: String,
        /// The flag, such as `--mount` or `-p, --publish`.
        flag: String,
        /// What is wrong with it.
        reason: String,
    },
    /// All has been said; only the exit code is left.
    #[error("exit code {0}")]
    Silent(u8),
}

/// Docker's code for flags that cannot be parsed.
pub(crate) const EXIT_USAGE: u8 = 125;
/// Docker's code for a template that cannot be parsed (`EX_USAGE`).
const EXIT_TEMPLATE: u8 = 64;
/// What a shell reports of a process that SIGPIPE ended, which is how Docker ends when its reader goes away.
pub(crate) const EXIT_PIPE: u8 = 141;

// === impl CliError ===

impl CliError {
    /// An error told in full.
    pub(crate) fn text(text: impl Into<String>) -> CliError {
        CliError::Text(text.into())
    }

    /// The process's exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            CliError::Client(_) | CliError::Text(_) => 1,
            CliError::Template(_) => EXIT_TEMPLATE,
            CliError::Argument { .. } => EXIT_USAGE,
            CliError::Silent(code) => *code,
        }
    }
}
