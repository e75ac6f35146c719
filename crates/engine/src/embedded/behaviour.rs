//! What a container of the embedded engine does, by the name of its image.
//!
//! | image | behaviour |
//! |---|---|
//! | `fail:pull` | cannot be pulled and is not there |
//! | `fail:create` | cannot be created (refused for good) |
//! | `fail:start` | cannot be started |
//! | `fail:health` | becomes unhealthy instead of healthy |
//! | `exit:CODE` or `exit:CODE:MS` | ends on its own with that code, after 1 s or so many milliseconds |
//! | `slow:MS` | takes so long to pull |
//! | `stubborn` or `stubborn:…` | does not end before it is killed, with code 137 |
//! | `lines:N` | prints N lines when it starts (at most [`LINES_MAX`]) |
//! | anything else | runs until it is stopped, and then ends with code 0 |
//!
//! A container with a health check becomes healthy [`HEALTH_TAKES`] after its start. Every container prints two lines when
//! it starts and one when it ends. Registry, path and digest of a reference are ignored.

use std::time::Duration;

/// Time from start to the first result of a health check.
pub const HEALTH_TAKES: Duration = Duration::from_secs(1);
/// Time a well-behaved container takes to stop.
pub const STOP_TAKES: Duration = Duration::from_millis(30);
/// Lines that `lines:N` prints at most.
pub const LINES_MAX: u64 = 1000;

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// Neither here nor in a registry.
    pub no_image: bool,
    /// Creating it is refused.
    pub no_create: bool,
    /// Starting it fails.
    pub no_start: bool,
    /// Its health check fails.
    pub unhealthy: bool,
    /// Ends on its own: after this time, with this code.
    pub ends: Option<(Duration, i64)>,
    /// Ignores the signal to stop.
    pub stubborn: bool,
    /// Time to pull its image.
    pub pull_takes: Duration,
    /// Lines printed at the start.
    pub lines: u64,
}

// === impl Behaviour ===

impl Behaviour {
    /// What an image's containers do.
    pub fn of(image: &str) -> Behaviour {
        let image = image.split('@').next().unwrap_or(image);
        let image = image.rsplit('/').next().unwrap_or(image);
        let mut words = image.split(':');
        let (name, first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next());
        let ms = |s: &str| s.parse().ok().map(Duration::from_millis);
        let fails = |what: &str| name == "fail" && first == what;
        Behaviour {
            no_image: fails("pull"),
            no_create: fails("create"),
            no_start: fails("start"),
            unhealthy: fails("health"),
            ends: (name == "exit")
                .then(|| (second.and_then(ms).unwrap_or(Duration::from_secs(1)), first.parse().unwrap_or(1))),
            stubborn: name == "stubborn",
            pull_takes: (name == "slow").then(|| ms(first)).flatten().unwrap_or(Duration::from_millis(20)),
            lines: if name == "lines" { first.parse().unwrap_or(2).min(LINES_MAX) } else { 2 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_image_says_what_happens() {
        let plain = Behaviour::of("web:1");
        assert_eq!(plain, Behaviour::of("registry:5000/team/web@sha256:00"));
        assert_eq!(plain.ends, None);
        assert!(Behaviour::of("fail:pull").no_image && Behaviour::of("x/fail:create").no_create);
        assert!(Behaviour::of("fail:start").no_start && Behaviour::of("fail:health").unhealthy);
        assert_eq!(Behaviour::of("exit:3").ends, Some((Duration::from_secs(1), 3)));
        assert_eq!(Behaviour::of("exit:0:250").ends, Some((Duration::from_millis(250), 0)));
        assert_eq!(Behaviour::of("exit:x:y").ends, Some((Duration::from_secs(1), 1)));
        assert_eq!(Behaviour::of("slow:5000").pull_takes, Duration::from_secs(5));
        assert!(Behaviour::of("stubborn").stubborn);
        assert_eq!(Behaviour::of("lines:99999999").lines, LINES_MAX);
    }
}
