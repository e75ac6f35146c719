//! What happened, a line an event. Two runs of a seed must give the same bytes.

use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::time::Duration;

/// The lines kept for the report of a failure.
const TAIL_LINES: usize = 60;

struct Trace {
    now: Duration,
    print: bool,
    hash: u64,
    events: u64,
    tail: std::collections::VecDeque<String>,
}

thread_local! {
    static TRACE: RefCell<Trace> = const {
        RefCell::new(Trace { now: Duration::ZERO, print: false, hash: 0xcbf2_9ce4_8422_2325, events: 0, tail: std::collections::VecDeque::new() })
    };
}

/// What is left of a trace: enough to compare two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// FNV-1a over all lines.
    pub hash: u64,
    /// How many there were.
    pub events: u64,
}

/// Begins a new trace; with `print` its lines go to standard output.
pub fn begin(print: bool) {
    TRACE.with_borrow_mut(|t| {
        *t = Trace { now: Duration::ZERO, print, hash: 0xcbf2_9ce4_8422_2325, events: 0, tail: Default::default() };
    });
}

/// Events from now on happen at this time of the simulation.
pub fn set_now(now: Duration) {
    TRACE.with_borrow_mut(|t| t.now = now);
}

/// The time of the simulation.
pub fn now() -> Duration {
    TRACE.with_borrow(|t| t.now)
}

/// Adds an event: who (a node, a client, `world`), and what. Never put in an address in memory, a key, a token, a
/// certificate, or what hangs on the order of a hash map.
pub fn event(who: &str, what: fmt::Arguments<'_>) {
    TRACE.with_borrow_mut(|t| {
        let line = format!("{:>10.3} {who:<8} {what}\n", t.now.as_secs_f64());
        for byte in line.bytes() {
            t.hash = (t.hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        t.events += 1;
        if t.print {
            // A reader that has had enough (`| head`) is no reason to stop.
            let _reader_gone = std::io::stdout().write_all(line.as_bytes());
        }
        if t.tail.len() == TAIL_LINES {
            t.tail.pop_front();
        }
        t.tail.push_back(line);
    });
}

/// The trace so far.
pub fn fingerprint() -> Fingerprint {
    TRACE.with_borrow(|t| Fingerprint { hash: t.hash, events: t.events })
}

/// The last lines.
pub fn tail() -> String {
    TRACE.with_borrow(|t| t.tail.iter().map(String::as_str).collect())
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} ({} events)", self.hash, self.events)
    }
}

/// Adds an event to the trace: `event!("n1", "crashed, {lost} calls lost")`.
#[macro_export]
macro_rules! event {
    ($who:expr, $($what:tt)*) => {
        $crate::trace::event($who.as_ref(), format_args!($($what)*))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_events_give_the_same_fingerprint_and_others_another() {
        let run = |last: &str| {
            begin(false);
            event!("n1", "started");
            set_now(Duration::from_millis(1500));
            event!("world", "{last}");
            (fingerprint(), tail())
        };
        assert_eq!(run("a"), run("a"));
        assert_ne!(run("a").0.hash, run("b").0.hash);
        assert_eq!(run("a").1, "     0.000 n1       started\n     1.500 world    a\n");
    }
}
