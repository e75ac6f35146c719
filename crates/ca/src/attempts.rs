//! How often a wrong join token may be tried.
//!
//! A token's secret has 128 bits, so nobody finds one by trying. What the bound saves is the managers' time, and their log: each
//! try costs a linearizable read.

use sources::network_of;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// One more wrong token from a source is forgiven after this time ...
const SOURCE_PERIOD: Duration = Duration::from_secs(6);
/// ... and this many may come at once: somebody who copies a token by hand has a few tries.
const SOURCE_BURST: u32 = 10;
/// The same for all sources together.
const TOTAL_PERIOD: Duration = Duration::from_millis(20);
/// The same for all sources together.
const TOTAL_BURST: u32 = 500;
/// Sources remembered at once. With more, the one that is forgiven next is forgotten; the bound for all still holds.
const SOURCES_MAX: usize = 4096;

/// Counts wrong tokens, in all and by source, and says when it is enough. One for each manager; it forgets with time.
#[derive(Debug, Default)]
pub struct WrongTokens {
    /// When each source will be forgiven everything. A source that is forgiven everything need not be remembered.
    by_source: BTreeMap<IpAddr, Duration>,
    total: Duration,
    wrong: u64,
    refused: u64,
}

/// Too many wrong tokens came from a source, or in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "too many wrong join tokens came {}; try again in {} s",
    match .source_addr { Some(_) => "from this address", None => "from many addresses" },
    .retry_after.as_secs().max(1)
)]
pub struct TooManyWrongTokens {
    /// Whose; `None` when it is the sum of all.
    pub source_addr: Option<IpAddr>,
    /// When one more is forgiven.
    pub retry_after: Duration,
}

// === impl WrongTokens ===

impl WrongTokens {
    /// Whether a source may show a token now. Times are those of one clock that never goes back, from any point on.
    ///
    /// # Errors
    /// [`TooManyWrongTokens`]: it is to be refused unseen, right or wrong.
    pub fn check(&mut self, source: IpAddr, now: Duration) -> Result<(), TooManyWrongTokens> {
        let source = network_of(source);
        let of_source = self.by_source.get(&source).copied().unwrap_or_default();
        let enough = |until: Duration, period: Duration, burst: u32, source_addr| {
            let ahead = until.saturating_sub(now);
            let room = period * (burst - 1);
            (ahead > room).then(|| TooManyWrongTokens { source_addr, retry_after: ahead - room })
        };
        let refused = enough(of_source, SOURCE_PERIOD, SOURCE_BURST, Some(source))
            .or_else(|| enough(self.total, TOTAL_PERIOD, TOTAL_BURST, None));
        match refused {
            Some(refused) => {
                self.refused += 1;
                Err(refused)
            }
            None => Ok(()),
        }
    }

    /// Takes note of a wrong token.
    pub fn wrong(&mut self, source: IpAddr, now: Duration) {
        let source = network_of(source);
        self.wrong += 1;
        self.total = self.total.max(now) + TOTAL_PERIOD;
        if self.by_source.len() >= SOURCES_MAX && !self.by_source.contains_key(&source) {
            self.by_source.retain(|_, until| *until > now);
            if self.by_source.len() >= SOURCES_MAX
                && let Some(next) = self.by_source.iter().min_by_key(|(_, until)| **until).map(|(ip, _)| *ip)
            {
                self.by_source.remove(&next);
            }
        }
        let until = self.by_source.entry(source).or_default();
        *until = (*until).max(now) + SOURCE_PERIOD;
    }

    /// How many wrong tokens there were, and how many were refused unseen, since the manager's start.
    pub fn counts(&self) -> (u64, u64) {
        (self.wrong, self.refused)
    }

    /// How many sources are remembered.
    pub fn sources(&self) -> usize {
        self.by_source.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Duration {
        Duration::from_secs(1_000 + s)
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn ten_at_once_and_then_one_in_six_seconds() {
        let mut attempts = WrongTokens::default();
        for n in 0..10 {
            assert_eq!(attempts.check(ip(1), at(0)), Ok(()), "{n}");
            attempts.wrong(ip(1), at(0));
        }
        let refused = attempts.check(ip(1), at(0)).unwrap_err();
        assert_eq!((refused.source_addr, refused.retry_after), (Some(ip(1)), Duration::from_secs(6)));
        assert_eq!(refused.to_string(), "too many wrong join tokens came from this address; try again in 6 s");
        assert_eq!(attempts.check(ip(2), at(0)), Ok(()), "others are not held up");
        assert_eq!(attempts.check(ip(1), at(6)), Ok(()));
        attempts.wrong(ip(1), at(6));
        assert!(attempts.check(ip(1), at(6)).is_err());
        assert_eq!(attempts.check(ip(1), at(1000)), Ok(()), "it is forgotten with time");
        assert_eq!(attempts.counts(), (11, 2));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_a_mapped_address_as_its_own() {
        let mut attempts = WrongTokens::default();
        for n in 0..10_u16 {
            attempts.wrong(format!("2001:db8::{n}").parse().unwrap(), at(0));
        }
        assert!(attempts.check("2001:db8::ffff".parse().unwrap(), at(0)).is_err());
        assert!(attempts.check("2001:db8:0:1::1".parse().unwrap(), at(0)).is_ok());
        for _ in 0..10 {
            attempts.wrong("::ffff:10.0.0.1".parse().unwrap(), at(0));
        }
        assert!(attempts.check(ip(1), at(0)).is_err());
    }

    #[test]
    fn many_sources_meet_the_bound_for_all_and_cost_bounded_memory() {
        let mut attempts = WrongTokens::default();
        let mut let_through = 0;
        for n in 0..20_000 {
            if attempts.check(ip(n), at(0)).is_ok() {
                let_through += 1;
                attempts.wrong(ip(n), at(0));
            }
        }
        assert_eq!(let_through, 500);
        let refused = attempts.check(ip(99_999), at(0)).unwrap_err();
        assert!(refused.to_string().contains("from many addresses; try again in 1 s"), "{refused}");
        assert_eq!(attempts.check(ip(99_999), at(1)), Ok(()));
        for n in 0..20_000 {
            attempts.wrong(ip(n), at(0));
        }
        assert_eq!(attempts.sources(), SOURCES_MAX);
    }

    proptest! {
        #[test]
        fn in_any_hour_a_source_has_at_most_its_burst_and_its_rate(gaps in proptest::collection::vec(0_u64..20, 1..400)) {
            let mut attempts = WrongTokens::default();
            let (mut now, mut wrong) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                if attempts.check(ip(1), at(now)).is_ok() {
                    attempts.wrong(ip(1), at(now));
                    wrong.push(now);
                }
            }
            for (i, from) in wrong.iter().enumerate() {
                for (j, to) in wrong.iter().enumerate().skip(i) {
                    prop_assert!((j - i) as u64 <= 10 + (to - from) / 6, "{} in {} s", j - i + 1, to - from);
                }
            }
        }
    }
}
