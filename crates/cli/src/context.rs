//! What every command works with: the daemon, the terminal, the clock.

use crate::client::Client;
use crate::error::{CliError, EXIT_PIPE};
use seams::{Clock, Disk};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The longest file that a flag may name.
const FILE_BYTES_MAX: usize = 4 << 20;

/// The surroundings of a command.
pub(crate) struct Context {
    /// The daemon.
    pub(crate) client: Client,
    /// Wall-clock time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Files that flags name.
    pub(crate) disk: Arc<dyn Disk>,
}

// === impl Context ===

impl Context {
    /// Writes to standard output, as it is.
    pub(crate) fn out(&self, text: &str) -> Result<(), CliError> {
        self.out_bytes(text.as_bytes())
    }

    /// Writes bytes to standard output.
    pub(crate) fn out_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        written(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// Writes bytes to standard error.
    pub(crate) fn err_bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        written(std::io::stderr().lock().write_all(bytes))
    }

    /// Writes a line to standard output.
    pub(crate) fn line(&self, text: impl std::fmt::Display) -> Result<(), CliError> {
        self.out(&format!("{text}\n"))
    }

    /// Writes a line to standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        // There is nobody left to tell that standard error is closed.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// True when a person looks at standard output.
    pub(crate) fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// Time since the Unix epoch.
    pub(crate) fn now(&self) -> Duration {
        self.clock.unix_now()
    }

    /// Reads a small text file that a flag names.
    pub(crate) async fn read_text(&self, path: &Path) -> Result<String, CliError> {
        let fail = |reason: String| CliError::text(format!("cannot read {}: {reason}", path.display()));
        let bytes = self.disk.read(path).await.map_err(|e| fail(e.to_string()))?;
        let bytes = bytes.ok_or_else(|| fail("no such file or directory".to_owned()))?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(fail(format!("it is longer than {} MiB", FILE_BYTES_MAX >> 20)));
        }
        String::from_utf8(bytes.into()).map_err(|_| fail("it is not UTF-8 text".to_owned()))
    }
}

fn written(result: std::io::Result<()>) -> Result<(), CliError> {
    result.map_err(|e| match e.kind() {
        std::io::ErrorKind::BrokenPipe => CliError::Silent(EXIT_PIPE),
        _ => CliError::text(format!("cannot write the output: {e}")),
    })
}

/// Runs `one` for each name, tells every failure, and fails at the end if there was any: one bad name does not keep the
/// others from their turn. A failure's exit code wins over that of a plan.
macro_rules! each {
    ($ctx:expr, $names:expr, $one:expr) => {{
        let mut code = 0;
        for name in $names {
            if let Err(error) = $one(name).await {
                if matches!(error, $crate::error::CliError::Silent(_)) {
                    code = if code == 0 { error.code() } else { code };
                } else {
                    $ctx.note(&error);
                    code = error.code();
                }
            }
        }
        if code == 0 { Ok(()) } else { Err($crate::error::CliError::Silent(code)) }
    }};
}
pub(crate) use each;
