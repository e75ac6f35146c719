//! Schedules: the five fields of a crontab, and the times that they mean.
//!
//! The rules are those of cron(8): where both the day of the month and the day of the week are given, one of them is enough; a
//! time of day that the clocks skip in spring is run as much later as they skip, one that they repeat in autumn is run once.
//! A schedule for every hour (its hour begins with `*`) follows the hours that really pass.

use super::TimeZoneName;
use crate::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, ToSpan as _};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Days that are searched for the next time: the 29th of February may be eight years away, and fall on a given weekday only
/// some decades later.
const DAYS_MAX: usize = 366 * 45;
/// Bytes of a schedule's text.
const BYTES_MAX: usize = 256;
/// As far as clocks are set back anywhere at a change of their time: times of the day are looked at from so much earlier.
const SET_BACK_MAX_HOURS: i64 = 3;

/// Times, as the five fields of a crontab say them: minute, hour, day of the month, month, day of the week.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schedule {
    /// As the user wrote it.
    text: String,
    /// Bit n for minute n; the others alike.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// 0 is Sunday.
    weekdays: u64,
    /// The hour begins with `*`.
    every_hour: bool,
    /// Neither the day of the month nor the day of the week begins with `*`.
    either_day: bool,
}

/// Text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// Not five fields, and no word.
    #[error("a schedule has five fields (minute, hour, day of the month, month, day of the week), '{0}' has not")]
    Fields(String),
    /// A word that begins with `@` and is none of cron's.
    #[error("unknown schedule '{0}': use five fields, or @hourly, @daily, @weekly, @monthly or @yearly")]
    Word(String),
    /// A field that cannot be read.
    #[error("'{text}' is not valid as {field} of a schedule: use numbers from {min} to {max}, as in *, */5, 1-5, 1,15")]
    Field {
        /// Which.
        field: &'static str,
        /// What it says.
        text: String,
        /// The smallest number.
        min: u32,
        /// The largest number.
        max: u32,
    },
    /// Such a day never comes.
    #[error("the schedule '{0}' never comes: no such month has such a day")]
    Never(String),
    /// Longer than any schedule needs.
    #[error("a schedule has at most {BYTES_MAX} characters")]
    TooLong,
}

/// What one field may say.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// Names of its numbers, the first for `min`.
    names: &'static [&'static str],
}

const MINUTE: Field = Field { name: "minute", min: 0, max: 59, names: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, names: &[] };
const DAY: Field = Field { name: "day of the month", min: 1, max: 31, names: &[] };
const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
/// 7 is Sunday as well.
const WEEKDAY: Field =
    Field { name: "day of the week", min: 0, max: 7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

// === impl Schedule ===

impl Schedule {
    /// As the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time after `after`; `None` when there is none before the calendar ends.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZoneName) -> Option<Timestamp> {
        let zone = zone.zone();
        let seconds = i64::try_from(after.0 / 1_000_000_000).ok()?;
        let local = zone.to_datetime(jiff::Timestamp::from_second(seconds).ok()?);
        let begin = local.checked_sub(SET_BACK_MAX_HOURS.hours()).ok()?;
        // The first time that is found may not be the first that comes: where clocks are set back, some of an earlier hour
        // come after some of a later one.
        let mut first: Option<(DateTime, Timestamp)> = None;
        for time in self.times_from(begin) {
            if first.is_some_and(|(found, _)| time.checked_sub(SET_BACK_MAX_HOURS.hours()).is_ok_and(|t| t > found)) {
                break;
            }
            for at in self.instants(time, &zone).into_iter().flatten().filter(|at| *at > after) {
                first = Some(first.map_or((time, at), |(found, best)| (found, best.min(at))));
            }
        }
        first.map(|(_, at)| at)
    }

    /// The local times that match, from `begin` on.
    fn times_from(&self, begin: DateTime) -> impl Iterator<Item = DateTime> {
        let date = begin.date();
        let dates = (0..DAYS_MAX as i64).map_while(move |n| date.checked_add(Span::new().try_days(n).ok()?).ok());
        let of_day = move |date: Date| {
            let hours = (0..24_i8).filter(move |h| has(self.hours, *h));
            hours.flat_map(move |h| (0..60_i8).filter(move |m| has(self.minutes, *m)).map(move |m| date.at(h, m, 0, 0)))
        };
        dates.filter(|d| self.has_date(*d)).flat_map(of_day).filter(move |t| *t >= begin)
    }

    fn has_date(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.either_day { day || weekday } else { day && weekday }
    }

    /// When it is that time: once, unless the clocks are changed around it.
    fn instants(&self, time: DateTime, zone: &TimeZone) -> [Option<Timestamp>; 2] {
        let at = |offset: jiff::tz::Offset| offset.to_timestamp(time).ok().and_then(from_jiff);
        match zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => [at(offset), None],
            AmbiguousOffset::Gap { before, .. } => [at(before).filter(|_| !self.every_hour), None],
            AmbiguousOffset::Fold { before, after } => [at(before), at(after).filter(|_| self.every_hour)],
        }
    }
}

fn has(bits: u64, n: i8) -> bool {
    u32::try_from(n).is_ok_and(|n| bits >> n & 1 == 1)
}

fn from_jiff(at: jiff::Timestamp) -> Option<Timestamp> {
    let seconds = u64::try_from(at.as_second()).ok()?;
    Some(Timestamp::from_unix(Duration::from_secs(seconds)))
}

impl std::str::FromStr for Schedule {
    type Err = InvalidSchedule;
    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let text = text.trim();
        if text.len() > BYTES_MAX {
            return Err(InvalidSchedule::TooLong);
        }
        let fields = if text.starts_with('@') { word(text)? } else { text };
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(InvalidSchedule::Fields(text.into()));
        };
        let weekdays = WEEKDAY.parse(weekday)?;
        let schedule = Schedule {
            text: text.into(),
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            every_hour: hour.starts_with('*'),
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        let comes = schedule.next_after(Timestamp(0), &TimeZoneName::default()).is_some();
        if comes { Ok(schedule) } else { Err(InvalidSchedule::Never(text.into())) }
    }
}

fn word(text: &str) -> Result<&'static str, InvalidSchedule> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return Err(InvalidSchedule::Word(text.into())),
    })
}

impl Field {
    /// The numbers that the text stands for, as bits.
    fn parse(&self, text: &str) -> Result<u64, InvalidSchedule> {
        let invalid = || InvalidSchedule::Field { field: self.name, text: text.into(), min: self.min, max: self.max };
        text.split(',').try_fold(0, |bits, part| Ok(bits | self.part(part).ok_or_else(invalid)?))
    }

    fn part(&self, text: &str) -> Option<u64> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(number(step).filter(|s| *s > 0)?)),
            None => (text, None),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (self.min, self.max),
            Some((from, to)) => (self.number(from)?, self.number(to)?),
            // `5/15` goes on to the end.
            None => (self.number(range)?, if step.is_some() { self.max } else { self.number(range)? }),
        };
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        (from <= to).then(|| (from..=to).step_by(step).fold(0, |bits, n| bits | 1 << n))
    }

    fn number(&self, text: &str) -> Option<u32> {
        let named = self.names.iter().position(|n| n.eq_ignore_ascii_case(text));
        let n = match named {
            Some(i) => self.min + u32::try_from(i).ok()?,
            None => number(text)?,
        };
        (self.min..=self.max).contains(&n).then_some(n)
    }
}

/// Digits only: a sign is none.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

impl TryFrom<String> for Schedule {
    type Error = InvalidSchedule;
    fn try_from(text: String) -> Result<Self, InvalidSchedule> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(s: Schedule) -> String {
        s.text
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
