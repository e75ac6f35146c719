//! Durations and times, as Docker tells them to people.

use docker_api::GoTime;
use std::time::Duration;

/// Tells a duration as Docker does (docker/go-units `HumanDuration`): `About a minute`, `3 hours`.
pub(crate) fn human(d: Duration) -> String {
    let seconds = d.as_secs();
    let (minutes, hours) = (seconds / 60, (d.as_secs_f64() / 3600.0).round() as u64);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago `then` was, as Docker tells it: `3 hours ago`. A time in the future (clocks differ) was just now.
pub(crate) fn ago(then: GoTime, now: Duration) -> String {
    let nanos = i128::try_from(now.as_nanos()).unwrap_or(i128::MAX) - then.unix_ns();
    format!("{} ago", human(Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))))
}

/// A time as Go's `time.Time` prints itself with Docker's long layout: `2026-11-22 00:30:46.123456789 +0000 utc`.
pub(crate) fn pretty(time: GoTime) -> String {
    let text = time.timestamp().strftime("%Y-%m-%d %H:%M:%S%.f").to_string();
    format!("{text} +0000 utc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_as_docker_tells_them() {
        let minute = 60;
        let hour = 60 * minute;
        let day = 24 * hour;
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (45, "45 seconds"),
            (minute, "About a minute"),
            (3 * minute + 40, "3 minutes"),
            (45 * minute, "45 minutes"),
            (hour, "About an hour"),
            (hour + 40 * minute, "2 hours"),
            (47 * hour, "47 hours"),
            (3 * day, "3 days"),
            (15 * day, "2 weeks"),
            (100 * day, "3 months"),
            (800 * day, "2 years"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), want, "{seconds} s");
        }
    }
}
