//! The sessions of one manager: who has one, when it was last heard, and what the leader should be told.

use crate::{REGISTRATION_WINDOW, REGISTRATIONS_MAX};
use model::{NodeDescription, NodeId};
use rpc::proto::cluster::SessionReport;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Sessions by node: at most one each. A newer one ends the older.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_node: BTreeMap<NodeId, Session>,
    registrations: BTreeMap<NodeId, VecDeque<Instant>>,
    /// Goodbyes that the leader does not know of yet.
    goodbyes: BTreeMap<NodeId, (Instant, String)>,
    /// The leader has not been reached for so long that agents are better off with another manager.
    cut_off: bool,
}

#[derive(Debug)]
struct Session {
    id: String,
    addr: String,
    last: Instant,
    description: NodeDescription,
    /// What the leader was told: the last heartbeat, and whether it has the description.
    told: Option<Instant>,
    told_description: bool,
    ended: CancellationToken,
}

/// A session that is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    /// A node that opens sessions faster than any honest one would. (SwarmKit's words.)
    #[error("node {0} exceeded rate limit count of registrations")]
    TooMany(NodeId),
    /// Heartbeats taken here would reach nobody.
    #[error("this manager cannot reach the leader; try another one")]
    CutOff,
}

/// What a report told, to be confirmed with [`Sessions::told`] once the leader has it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) reports: Vec<SessionReport>,
    at: Option<Instant>,
}

// === impl Sessions ===

impl Sessions {
    /// Opens a session and returns the token that ends it.
    pub(crate) fn open(
        &mut self,
        node: &NodeId,
        id: String,
        addr: String,
        description: NodeDescription,
        now: Instant,
    ) -> Result<CancellationToken, NotOpened> {
        if self.cut_off {
            return Err(NotOpened::CutOff);
        }
        self.registrations.retain(|_, times| times.back().is_some_and(|t| now - *t < REGISTRATION_WINDOW));
        let times = self.registrations.entry(node.clone()).or_default();
        while times.front().is_some_and(|t| now - *t >= REGISTRATION_WINDOW) {
            times.pop_front();
        }
        if times.len() >= REGISTRATIONS_MAX {
            return Err(NotOpened::TooMany(node.clone()));
        }
        times.push_back(now);
        self.goodbyes.remove(node);
        let ended = CancellationToken::new();
        let session =
            Session { id, addr, last: now, description, told: None, told_description: false, ended: ended.clone() };
        if let Some(older) = self.by_node.insert(node.clone(), session) {
            older.ended.cancel();
        }
        Ok(ended)
    }

    /// Notes a sign of life; false when the session is not the node's current one.
    pub(crate) fn heartbeat(&mut self, node: &NodeId, id: &str, now: Instant) -> bool {
        self.current(node, id).map(|s| s.last = now).is_some()
    }

    /// Notes a new description.
    pub(crate) fn describe(&mut self, node: &NodeId, id: &str, description: NodeDescription, now: Instant) -> bool {
        let Some(session) = self.current(node, id) else { return false };
        session.last = now;
        session.told_description &= session.description == description;
        session.description = description;
        true
    }

    /// Ends a session; with `goodbye` the leader will be told.
    pub(crate) fn close(&mut self, node: &NodeId, id: &str, goodbye: bool, now: Instant) {
        if self.current(node, id).is_none() {
            return;
        }
        if let Some(session) = self.by_node.remove(node) {
            session.ended.cancel();
            if goodbye {
                self.goodbyes.insert(node.clone(), (now, session.addr));
            }
        }
    }

    /// The token of a session that is still open.
    pub(crate) fn ended(&self, node: &NodeId, id: &str) -> Option<CancellationToken> {
        self.by_node.get(node).filter(|s| s.id == id).map(|s| s.ended.clone())
    }

    /// When a session was last heard.
    pub(crate) fn last(&self, node: &NodeId, id: &str) -> Option<Instant> {
        self.by_node.get(node).filter(|s| s.id == id).map(|s| s.last)
    }

    /// True when the leader should be told at once: somebody came, left, or changed.
    pub(crate) fn has_news(&self) -> bool {
        !self.goodbyes.is_empty() || self.by_node.values().any(|s| s.told.is_none() || !s.told_description)
    }

    /// What the leader has not been told.
    pub(crate) fn report(&self, now: Instant, grace: Duration) -> Told {
        let report = |node: &NodeId, addr: &str, last: Instant, closed: bool, description: Vec<u8>| SessionReport {
            node_id: node.to_string(),
            silent_ms: ms(now.saturating_duration_since(last)),
            grace_ms: ms(grace),
            addr: addr.to_owned(),
            description,
            closed,
        };
        let open = self.by_node.iter().filter(|(_, s)| !s.told_description || s.told.is_none_or(|t| t < s.last));
        let mut reports: Vec<SessionReport> = open
            .map(|(node, s)| {
                let description = if s.told_description { Vec::new() } else { encode(&s.description) };
                report(node, &s.addr, s.last, false, description)
            })
            .collect();
        reports.extend(self.goodbyes.iter().map(|(node, (at, addr))| report(node, addr, *at, true, Vec::new())));
        Told { reports, at: Some(now) }
    }

    /// The leader has it, but for the descriptions of the nodes `untold`.
    pub(crate) fn told(&mut self, told: &Told, untold: &[String]) {
        let Some(at) = told.at else { return };
        for report in &told.reports {
            if report.closed {
                self.goodbyes.retain(|node, (t, _)| node.as_str() != report.node_id || *t > at);
            } else if let Some(session) = self.by_node.get_mut(report.node_id.as_str()) {
                let heard = at - Duration::from_millis(report.silent_ms);
                session.told = Some(session.told.map_or(heard, |t| t.max(heard)));
                // What changed while the report was under way is told again.
                session.told_description |= !report.description.is_empty()
                    && !untold.contains(&report.node_id)
                    && report.description == encode(&session.description);
            }
        }
    }

    /// The leader has not been reached for long: ends all sessions and opens none until [`Sessions::reconnected`]. An agent
    /// whose heartbeats end here would be taken for dead while its tasks run.
    pub(crate) fn cut_off(&mut self) {
        self.cut_off = true;
        for (_, session) in std::mem::take(&mut self.by_node) {
            session.ended.cancel();
        }
    }

    /// The leader was reached.
    pub(crate) fn reconnected(&mut self) {
        self.cut_off = false;
    }

    /// A new leader knows nothing: tell it everything.
    pub(crate) fn forget_told(&mut self) {
        for session in self.by_node.values_mut() {
            session.told = None;
            session.told_description = false;
        }
    }

    fn current(&mut self, node: &NodeId, id: &str) -> Option<&mut Session> {
        self.by_node.get_mut(node).filter(|s| s.id == id)
    }
}

fn encode(description: &NodeDescription) -> Vec<u8> {
    rmp_serde::to_vec_named(description).expect("a description is plain data, which always encodes")
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        "0000000000000000000000001".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_description_that_the_leader_did_not_take_is_told_again() {
        let mut sessions = Sessions::default();
        let (grace, now) = (Duration::from_secs(3), Instant::now());
        sessions.open(&node(), "a".into(), String::new(), NodeDescription::default(), now).unwrap();
        let told = sessions.report(now, grace);
        sessions.told(&told, &[node().to_string()]);
        assert!(sessions.has_news());
        let again = sessions.report(now, grace);
        assert_eq!(again.reports[0].description, told.reports[0].description);
        sessions.told(&again, &[]);
        assert!(!sessions.has_news());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_session_ends_the_older_and_only_it_counts() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        let first = sessions.open(&node(), "a".into(), "1".into(), NodeDescription::default(), now).unwrap();
        let second = sessions.open(&node(), "b".into(), "2".into(), NodeDescription::default(), now).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert!(!sessions.heartbeat(&node(), "a", now) && sessions.heartbeat(&node(), "b", now));
        sessions.close(&node(), "a", true, now);
        assert!(sessions.ended(&node(), "b").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn registrations_are_limited_and_the_limit_passes() {
        let mut sessions = Sessions::default();
        let mut open = |now| sessions.open(&node(), "s".into(), String::new(), NodeDescription::default(), now);
        let now = Instant::now();
        assert!((0..REGISTRATIONS_MAX).all(|_| open(now).is_ok()));
        assert!(open(now).unwrap_err().to_string().contains("exceeded rate limit count of registrations"));
        assert!(open(now + REGISTRATION_WINDOW).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_leader_is_told_what_is_new_and_a_new_leader_everything() {
        let mut sessions = Sessions::default();
        let start = Instant::now();
        let grace = Duration::from_secs(3);
        sessions.open(&node(), "s".into(), "a".into(), NodeDescription::default(), start).unwrap();
        assert!(sessions.has_news());
        let told = sessions.report(start, grace);
        assert!(!told.reports[0].description.is_empty());
        sessions.told(&told, &[]);
        assert!(!sessions.has_news());
        assert!(sessions.report(start, grace).reports.is_empty());
        let later = start + Duration::from_secs(1);
        sessions.heartbeat(&node(), "s", later);
        let told = sessions.report(later + Duration::from_millis(20), grace);
        assert_eq!((told.reports[0].silent_ms, told.reports[0].description.len()), (20, 0));
        sessions.told(&told, &[]);
        sessions.forget_told();
        assert!(!sessions.report(later, grace).reports[0].description.is_empty());
        sessions.close(&node(), "s", true, later);
        let told = sessions.report(later, grace);
        assert!(told.reports[0].closed);
        sessions.told(&told, &[]);
        assert!(!sessions.has_news());
    }
}
