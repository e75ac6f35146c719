use super::*;
use proptest::prelude::*;

/// `2024-03-01T10:20:30Z` as a timestamp.
fn utc(text: &str) -> Timestamp {
    from_jiff(text.parse().unwrap()).unwrap()
}

fn show(at: Timestamp) -> String {
    jiff::Timestamp::from_second(i64::try_from(at.0 / 1_000_000_000).unwrap()).unwrap().to_string()
}

fn next(schedule: &str, zone: &str, count: usize, after: &str) -> Vec<String> {
    let schedule: Schedule = schedule.parse().unwrap();
    let zone = zone.parse().unwrap();
    let mut at = utc(after);
    (0..count)
        .map(|_| {
            at = schedule.next_after(at, &zone).unwrap();
            show(at)
        })
        .collect()
}

#[test]
fn fields_mean_what_cron_says() {
    let after = "2024-03-01T10:20:30Z"; // a Friday
    for (schedule, expected) in [
        ("* * * * *", ["2024-03-01T10:21:00Z", "2024-03-01T10:22:00Z"]),
        ("*/15 * * * *", ["2024-03-01T10:30:00Z", "2024-03-01T10:45:00Z"]),
        ("5/20 * * * *", ["2024-03-01T10:25:00Z", "2024-03-01T10:45:00Z"]),
        ("0 9-17/4 * * *", ["2024-03-01T13:00:00Z", "2024-03-01T17:00:00Z"]),
        ("30 2 * * *", ["2024-03-02T02:30:00Z", "2024-03-03T02:30:00Z"]),
        ("0 0 1,15 * *", ["2024-03-15T00:00:00Z", "2024-04-01T00:00:00Z"]),
        ("0 0 31 * *", ["2024-03-31T00:00:00Z", "2024-05-31T00:00:00Z"]),
        ("0 0 29 2 *", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]),
        ("0 12 * * MON-fri", ["2024-03-01T12:00:00Z", "2024-03-04T12:00:00Z"]),
        ("0 12 * * 7", ["2024-03-03T12:00:00Z", "2024-03-10T12:00:00Z"]),
        ("0 12 * * 5-7", ["2024-03-01T12:00:00Z", "2024-03-02T12:00:00Z"]),
        ("0 0 * Dec 0", ["2024-12-01T00:00:00Z", "2024-12-08T00:00:00Z"]),
        // Both days: one of them is enough; with a star, both are asked.
        ("0 0 13 * 5", ["2024-03-08T00:00:00Z", "2024-03-13T00:00:00Z"]),
        ("0 0 */2 * 5", ["2024-03-15T00:00:00Z", "2024-03-29T00:00:00Z"]),
        ("@hourly", ["2024-03-01T11:00:00Z", "2024-03-01T12:00:00Z"]),
        ("@Daily", ["2024-03-02T00:00:00Z", "2024-03-03T00:00:00Z"]),
        ("@weekly", ["2024-03-03T00:00:00Z", "2024-03-10T00:00:00Z"]),
        ("@monthly", ["2024-04-01T00:00:00Z", "2024-05-01T00:00:00Z"]),
        ("@yearly", ["2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]),
    ] {
        assert_eq!(next(schedule, "UTC", 2, after), expected, "{schedule}");
    }
}

#[test]
fn zones_and_changes_of_the_clocks() {
    // Zurich: on 31 March 2024 02:00 becomes 03:00, on 27 October 03:00 becomes 02:00 again.
    for (schedule, after, expected) in [
        ("0 2 * * *", "2024-01-01T00:00:00Z", ["2024-01-01T01:00:00Z", "2024-01-02T01:00:00Z"]),
        // Skipped: as much later. The next day it is itself again.
        ("30 2 * * *", "2024-03-30T12:00:00Z", ["2024-03-31T01:30:00Z", "2024-04-01T00:30:00Z"]),
        // Every hour: what does not exist is nothing.
        ("30 * * * *", "2024-03-31T00:20:00Z", ["2024-03-31T00:30:00Z", "2024-03-31T01:30:00Z"]),
        // Repeated: once...
        ("30 2 * * *", "2024-10-26T12:00:00Z", ["2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"]),
        // ...but every hour is every hour.
        ("30 * * * *", "2024-10-27T00:00:00Z", ["2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"]),
        ("*/30 * * * *", "2024-10-27T00:30:00Z", ["2024-10-27T01:00:00Z", "2024-10-27T01:30:00Z"]),
    ] {
        assert_eq!(next(schedule, "Europe/Zurich", 2, after), expected, "{schedule} after {after}");
    }
    // Two hours back at once, and two zones that are odd.
    assert_eq!(
        next("0 * * * *", "Antarctica/Troll", 4, "2024-10-26T22:30:00Z"),
        ["2024-10-26T23:00:00Z", "2024-10-27T00:00:00Z", "2024-10-27T01:00:00Z", "2024-10-27T02:00:00Z"]
    );
    assert_eq!(next("0 0 * * *", "Asia/Kolkata", 1, "2024-01-01T00:00:00Z"), ["2024-01-01T18:30:00Z"]);
}

#[test]
fn zones_have_one_spelling_and_unknown_ones_are_refused() {
    assert_eq!("europe/zurich".parse::<TimeZoneName>().unwrap().as_str(), "Europe/Zurich");
    assert_eq!("UTC".parse::<TimeZoneName>().unwrap(), TimeZoneName::default());
    for bad in ["", "Mars/Olympus", "/etc/passwd", "../UTC", "CET-1", &"x".repeat(10_000)] {
        let error = bad.parse::<TimeZoneName>().unwrap_err().to_string();
        assert!(error.starts_with("unknown time zone '") && error.len() < 200, "{error}");
    }
}

#[test]
fn what_is_no_schedule_says_why() {
    for (text, error) in [
        ("", "a schedule has five fields (minute, hour, day of the month, month, day of the week), '' has not"),
        (
            "* * * *",
            "a schedule has five fields (minute, hour, day of the month, month, day of the week), '* * * *' has not",
        ),
        ("@reboot", "unknown schedule '@reboot': use five fields, or @hourly, @daily, @weekly, @monthly or @yearly"),
        ("60 * * * *", "'60' is not valid as minute of a schedule: use numbers from 0 to 59, as in *, */5, 1-5, 1,15"),
        ("0 0 31 2 *", "the schedule '0 0 31 2 *' never comes: no such month has such a day"),
    ] {
        assert_eq!(text.parse::<Schedule>().unwrap_err().to_string(), error);
    }
    for bad in [
        "5-1 * * * *",
        "*/0 * * * *",
        "-1 * * * *",
        "+1 * * * *",
        "1,,2 * * * *",
        "a * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "1- * * * *",
        "*/ * * * *",
        "1-2-3 * * * *",
        "*-5 * * * *",
    ] {
        assert!(matches!(bad.parse::<Schedule>(), Err(InvalidSchedule::Field { .. })), "{bad}");
    }
    assert_eq!("1,".repeat(300).parse::<Schedule>(), Err(InvalidSchedule::TooLong));
}

#[test]
fn the_persisted_form_is_its_text() {
    let schedule: Schedule = " 0 3 * * MON ".parse().unwrap();
    let bytes = rmp_serde::to_vec_named(&schedule).unwrap();
    assert_eq!(crate::persisted::decode::<String>(&bytes).unwrap(), "0 3 * * MON");
    assert_eq!(crate::persisted::decode::<Schedule>(&bytes).unwrap(), schedule);
    // A zone that this release does not know is still read.
    let bytes = rmp_serde::to_vec_named("Mars/Olympus").unwrap();
    let zone: TimeZoneName = crate::persisted::decode(&bytes).unwrap();
    assert_eq!(zone.as_str(), "Mars/Olympus");
    assert_eq!(schedule.next_after(Timestamp(0), &zone), schedule.next_after(Timestamp(0), &TimeZoneName::default()));
}

proptest! {
    /// Nothing comes twice, out of order, or is passed over: going from time to time meets the same as going from anywhere.
    #[test]
    fn times_come_in_order(
        text in prop::sample::select(vec!["* * * * *", "*/7 */3 * * *", "30 2 * * *", "15,45 1-3 * * 0", "0 0 13 * 5"]),
        zone in prop::sample::select(vec!["UTC", "Europe/Zurich", "America/St_Johns", "Australia/Lord_Howe",
            "Antarctica/Troll", "Africa/Casablanca"]),
        start in 1_600_000_000_u64..1_900_000_000,
        ahead in 0..100_000_u64,
    ) {
        let schedule: Schedule = text.parse().unwrap();
        let zone = zone.parse().unwrap();
        let at = |s: u64| Timestamp::from_unix(Duration::from_secs(s));
        let first = schedule.next_after(at(start), &zone).unwrap();
        prop_assert!(first > at(start));
        let later = schedule.next_after(at(start + ahead), &zone).unwrap();
        prop_assert!(later >= first);
        let nothing_between = first > at(start + ahead);
        prop_assert_eq!(later == first, nothing_between);
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9*/,@a-z -]{0,40}") {
        let _fine_or_refused = text.parse::<Schedule>();
    }
}
