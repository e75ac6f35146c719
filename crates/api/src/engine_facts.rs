//! What the local engine's API is like, asked now and then.

use crate::Api;
use crate::request::{API_MAX, API_MIN, ApiVersion};
use http::Request;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer is good for: an engine may be replaced by another version under way.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// How soon an engine that did not answer is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the very first request waits for it.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);

/// What the local engine's API is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineFacts {
    /// The newest API version it speaks.
    pub(crate) max: ApiVersion,
    /// The oldest API version it speaks.
    pub(crate) min: ApiVersion,
    /// Which image builder it prefers; empty when it does not say.
    pub(crate) builder: String,
}

/// The last answer. Nobody waits for a newer one: an engine that hangs must not make the swarm's endpoints hang.
#[derive(Default)]
pub(crate) struct EngineFactsCache(Mutex<Option<Answer>>);

struct Answer {
    at: Instant,
    facts: Option<EngineFacts>,
    being_renewed: bool,
}

// === impl EngineFactsCache ===

impl EngineFactsCache {
    fn put(&self, facts: Option<EngineFacts>) {
        *self.0.lock() = Some(Answer { at: Instant::now(), facts, being_renewed: false });
    }

    /// The last answer, and whether the caller should see to a newer one.
    fn get(&self) -> Option<(Option<EngineFacts>, bool)> {
        let mut cached = self.0.lock();
        let answer = cached.as_mut()?;
        let good_for = if answer.facts.is_some() { GOOD_FOR } else { RETRY_AFTER };
        let renew = !answer.being_renewed && answer.at.elapsed() >= good_for;
        answer.being_renewed |= renew;
        Some((answer.facts.clone(), renew))
    }
}

// === impl Api ===

impl Api {
    /// What the local engine's API is like; `None` when there is none, or it does not answer.
    pub(crate) async fn engine_facts(&self) -> Option<EngineFacts> {
        self.deps().engine_api.as_ref()?;
        let Some((facts, renew)) = self.0.facts.get() else {
            let facts = tokio::time::timeout(FIRST_TIMEOUT, self.ask_engine()).await.ok().flatten();
            self.0.facts.put(facts.clone());
            return facts;
        };
        if renew {
            let api = self.clone();
            self.deps().tasks.spawn("ask the engine", async move {
                let facts = tokio::time::timeout(TIMEOUT, api.ask_engine()).await.ok().flatten();
                api.0.facts.put(facts);
            });
        }
        facts
    }

    async fn ask_engine(&self) -> Option<EngineFacts> {
        let ping = Request::get("/_ping").body(crate::reply::full("")).ok()?;
        let headers = self.send_to_engine(ping).await.ok()?.headers().clone();
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let version = self.engine_json("/version").await.ok()?;
        let number = |name: &str| version.get(name).and_then(|v| v.as_str()).and_then(ApiVersion::parse);
        let max = number("ApiVersion")?;
        Some(EngineFacts { max, min: number("MinAPIVersion").unwrap_or(API_MIN), builder: text("builder-version") })
    }

    /// The newest API version that this server speaks: what goes to the engine must be understood there too.
    pub(crate) async fn api_version(&self) -> ApiVersion {
        self.engine_facts().await.map_or(API_MAX, |f| f.max.clamp(API_MIN, API_MAX))
    }
}
