//! Go's ways: absent and `null` alike, `omitempty`, durations and times in text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A Go `time.Duration`: nanoseconds, a whole number in JSON, `1h30m0s` in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GoDuration(pub i64);

/// Text that is no Go duration, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not a duration at all, or too long.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number without its unit.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A unit that there is not.
    #[error("time: unknown unit {unit:?} in duration {text:?}")]
    UnknownUnit {
        /// The unit.
        unit: String,
        /// The whole text.
        text: String,
    },
}

/// A Go `time.Time` on the wire: RFC 3339 in UTC, as many digits of the second as it has. The default is Go's zero time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoTime(jiff::Timestamp);

/// Text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time: {reason}; a time looks like 2006-01-02T15:04:05.999999999Z")]
pub struct InvalidTime {
    /// The text.
    pub text: String,
    /// Why not.
    pub reason: String,
}

/// A share between 0 and 1. Go writes whole numbers without a fraction.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Deserialize)]
#[serde(transparent)]
pub struct Ratio(pub f32);

/// A string that no log and no error may show.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// Go's `omitempty`.
pub(crate) fn omit<T: GoEmpty>(value: &T) -> bool {
    value.go_empty()
}

pub(crate) trait GoEmpty {
    fn go_empty(&self) -> bool;
}

macro_rules! empty_by_default {
    ($($ty:ty),*) => {$(
        impl GoEmpty for $ty {
            fn go_empty(&self) -> bool { *self == <$ty>::default() }
        }
    )*};
}
empty_by_default!(bool, i64, u32, u64, String, GoDuration, Secret);

impl<T> GoEmpty for Vec<T> {
    fn go_empty(&self) -> bool {
        self.is_empty()
    }
}
impl<K, V> GoEmpty for BTreeMap<K, V> {
    fn go_empty(&self) -> bool {
        self.is_empty()
    }
}
impl<T> GoEmpty for Option<T> {
    fn go_empty(&self) -> bool {
        self.is_none()
    }
}

// === impl GoDuration ===

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// From whole seconds; saturates.
    pub fn from_secs(secs: i64) -> GoDuration {
        GoDuration(secs.saturating_mul(1_000_000_000))
    }

    /// As a [`Duration`]; `None` when negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl From<Duration> for GoDuration {
    fn from(d: Duration) -> GoDuration {
        GoDuration(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// The whole part and the fraction of a number in front of a unit, as nanoseconds of that unit.
fn scaled(whole: &str, fraction: &str, unit: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let (mut nanos, mut scale) = (whole.checked_mul(unit)?, unit);
    for digit in fraction.bytes() {
        scale /= 10;
        nanos = nanos.checked_add(i128::from(digit - b'0') * scale)?;
    }
    Some(nanos)
}

impl FromStr for GoDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<GoDuration, InvalidDuration> {
        let invalid = || InvalidDuration::Invalid(text.chars().take(64).collect());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(GoDuration(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
            let (digits, tail) = rest.split_at(number);
            let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
                return Err(invalid());
            }
            if unit.is_empty() {
                return Err(InvalidDuration::MissingUnit(text.chars().take(64).collect()));
            }
            let (_, nanos) =
                UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| InvalidDuration::UnknownUnit {
                    unit: unit.chars().take(64).collect(),
                    text: text.chars().take(64).collect(),
                })?;
            total = scaled(whole, fraction, *nanos).and_then(|n| total.checked_add(n)).ok_or_else(invalid)?;
            if total > i128::from(i64::MAX) + i128::from(negative) {
                return Err(invalid());
            }
            rest = tail;
        }
        let signed = if negative { -total } else { total };
        i64::try_from(signed).map(GoDuration).map_err(|_| invalid())
    }
}

/// Writes `nanos` in a unit of `unit` nanoseconds, with as many decimals as it has.
fn write_decimal(f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", nanos / unit)?;
    let mut fraction = nanos % unit;
    if fraction > 0 {
        f.write_str(".")?;
        let mut scale = unit;
        while fraction > 0 {
            scale /= 10;
            write!(f, "{}", fraction / scale)?;
            fraction %= scale;
        }
    }
    f.write_str(name)
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let nanos = self.0.unsigned_abs();
        match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => return write!(f, "{nanos}ns"),
            1_000..1_000_000 => return write_decimal(f, nanos, 1_000, "µs"),
            1_000_000..1_000_000_000 => return write_decimal(f, nanos, 1_000_000, "ms"),
            _ => {}
        }
        let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
        if minutes >= 60 {
            write!(f, "{}h", minutes / 60)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        write_decimal(f, rest, 1_000_000_000, "s")
    }
}

// === impl GoTime ===

impl GoTime {
    /// From nanoseconds since the Unix epoch; a time beyond the year 9999 is cut there.
    pub fn from_unix_ns(ns: u64) -> GoTime {
        GoTime(jiff::Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(jiff::Timestamp::MAX))
    }

    /// Nanoseconds since the Unix epoch; negative before.
    pub fn unix_ns(self) -> i128 {
        self.0.as_nanosecond()
    }

    /// True for Go's zero time: there is none.
    pub fn is_zero(self) -> bool {
        self == GoTime::default()
    }

    /// As jiff knows it.
    pub fn timestamp(self) -> jiff::Timestamp {
        self.0
    }
}

impl Default for GoTime {
    fn default() -> GoTime {
        // 0001-01-01T00:00:00Z
        GoTime(jiff::Timestamp::constant(-62_135_596_800, 0))
    }
}

impl From<jiff::Timestamp> for GoTime {
    fn from(t: jiff::Timestamp) -> GoTime {
        GoTime(t)
    }
}

impl fmt::Display for GoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for GoTime {
    type Err = InvalidTime;
    fn from_str(text: &str) -> Result<GoTime, InvalidTime> {
        text.parse()
            .map(GoTime)
            .map_err(|e: jiff::Error| InvalidTime { text: text.chars().take(64).collect(), reason: e.to_string() })
    }
}

impl Serialize for GoTime {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoTime {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<GoTime, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

// === impl Ratio ===

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 1e6 {
            s.serialize_i64(self.0 as i64)
        } else {
            s.serialize_f32(self.0)
        }
    }
}

// === impl Secret ===

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "<redacted>" })
    }
}

impl From<String> for Secret {
    fn from(s: String) -> Secret {
        Secret(s)
    }
}
