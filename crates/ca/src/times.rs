//! Times in words: certificates that are not valid now, and clocks that differ.

use rustls::{AlertDescription, CertificateError};
use std::time::Duration;
use time::OffsetDateTime;

/// A time since the Unix epoch as people read it, in UTC: `2026-11-22T03:40:00Z`.
pub fn clock_text(unix: Duration) -> String {
    let time = i64::try_from(unix.as_secs()).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    match time {
        None => format!("{} s after 1970", unix.as_secs()),
        Some(t) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
    }
}

/// A certificate that is not valid at the time that this node's clock shows; `None` when it is. `whose` as in "the certificate
/// of {whose}".
pub fn not_valid(whose: &str, validity: (Duration, Duration), now: Duration) -> Option<String> {
    let (from, until) = validity;
    if now > until {
        Some(expired(whose, until, now))
    } else if now < from {
        Some(not_yet(whose, from, now))
    } else {
        None
    }
}

/// What rustls says of a certificate's time, in words; `None` when it says something else. `whose` is the other end.
pub fn time_error(error: &rustls::Error, whose: &str) -> Option<String> {
    let at = |t: rustls_pki_types::UnixTime| Duration::from_secs(t.as_secs());
    match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            Some(expired(whose, at(*not_after), at(*time)))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            Some(not_yet(whose, at(*not_before), at(*time)))
        }
        rustls::Error::InvalidCertificate(CertificateError::Expired) => {
            Some(format!("the certificate of {whose} has expired by this node's clock"))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYet) => {
            Some(format!("the certificate of {whose} is not valid yet by this node's clock"))
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => Some(refused_for_its_time(whose)),
        _ => None,
    }
}

/// The other end refused this node's certificate for its time.
fn refused_for_its_time(whose: &str) -> String {
    format!(
        "{whose} says that this node's certificate has expired, or is not valid yet; compare the clocks of the two, and if \
         they agree, let this node leave the swarm and join again"
    )
}

fn expired(whose: &str, until: Duration, now: Duration) -> String {
    format!(
        "the certificate of {whose} has expired at {}; this node's clock shows {} (is it right?)",
        clock_text(until),
        clock_text(now)
    )
}

fn not_yet(whose: &str, from: Duration, now: Duration) -> String {
    format!(
        "the certificate of {whose} is not valid before {}; this node's clock shows {} (is it right? and that of the manager \
         that issued the certificate?)",
        clock_text(from),
        clock_text(now)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_words() {
        assert_eq!(clock_text(Duration::from_secs(1_800_000_000)), "2027-01-15T08:00:00Z");
        assert_eq!(clock_text(Duration::MAX), format!("{} s after 1970", u64::MAX));
        let valid = (Duration::from_secs(100), Duration::from_secs(200));
        let at = |s| not_valid("node x", valid, Duration::from_secs(s));
        assert_eq!(at(150), None);
        assert_eq!((at(100), at(200)), (None, None));
        assert_eq!(
            at(201).unwrap(),
            "the certificate of node x has expired at 1970-01-01T00:03:20Z; this node's clock shows 1970-01-01T00:03:21Z (is it right?)"
        );
        assert!(at(99).unwrap().starts_with("the certificate of node x is not valid before 1970-01-01T00:01:40Z;"));
    }
}
