//! The terminal that the command line runs in.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal as _, Stdin};

/// While it lives, every key goes through as it is typed: no echo, no lines, no signals.
pub(crate) struct Raw {
    terminal: Stdin,
    before: Termios,
}

/// True when someone types into standard input.
pub(crate) fn is_input() -> bool {
    std::io::stdin().is_terminal()
}

/// Rows and columns; nothing when standard output is no terminal.
pub(crate) fn size() -> Option<[u16; 2]> {
    let size = tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some([size.ws_row, size.ws_col])
}

// === impl Raw ===

impl Raw {
    /// Begins it.
    pub(crate) fn begin() -> std::io::Result<Raw> {
        let terminal = std::io::stdin();
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Raw { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _gone = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
