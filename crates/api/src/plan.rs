//! `?plan=1` on a route that changes something: the same handler judges the same request, but what it would propose is kept
//! instead, and the answer is what would come of it. Nothing is changed.

use crate::reply::{Reply, json};
use crate::request::Request;
use crate::{Api, convert, read, route};
use async_trait::async_trait;
use control::forecast::{Options, forecast};
use docker_api::Failure;
use http::Method;
use parking_lot::Mutex;
use std::sync::Arc;
use store::{Changes, ProposeError, ReadError, Snapshot, Store, StoreClient, Transaction};
use tokio::sync::Semaphore;

/// Forecasts and the like at once on one manager. Each is as much work as the control loops have with the change, and a look at
/// every task.
pub(crate) const COMPUTATIONS_MAX: usize = 2;

/// A store that is never written: what is proposed is applied to a private copy, and kept.
struct Rehearsal {
    store: Arc<Store>,
    proposed: Mutex<Vec<Transaction>>,
}

// === impl Rehearsal ===

impl Rehearsal {
    fn of(state: Snapshot) -> Rehearsal {
        Rehearsal { store: state.into(), proposed: Mutex::default() }
    }
}

#[async_trait]
impl StoreClient for Rehearsal {
    fn local(&self) -> Snapshot {
        self.store.snapshot()
    }

    async fn current(&self) -> Result<Snapshot, ReadError> {
        Ok(self.store.snapshot())
    }

    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        // What does not fit the log would be refused there.
        transaction.encode()?;
        let mut proposed = self.proposed.lock();
        let index = self.store.snapshot().index() + 1;
        self.store.apply(index, &transaction)?;
        proposed.push(transaction);
        Ok(index)
    }

    fn changes(&self) -> Changes {
        self.store.changes()
    }
}

/// True when the request asks for a plan instead of the change.
pub(crate) fn is_asked_for(request: &Request) -> bool {
    !matches!(request.method, Method::GET | Method::HEAD) && request.query.is_on("plan")
}

/// The routes that can be planned: those whose change is a change of the swarm's state, and nothing else.
fn can_be_planned(method: &Method, segments: &[&str]) -> bool {
    matches!(
        (method.as_str(), segments),
        ("POST", ["services" | "secrets" | "configs", "create"] | ["swarm", "update"] | ["swarmlite", "rebalance"])
            | ("POST", ["services" | "nodes" | "secrets" | "configs", _, "update"])
            | ("DELETE", ["services" | "nodes" | "secrets" | "configs", _])
    )
}

/// Answers a request with what would come of it.
pub(crate) async fn answer(api: &Api, request: Request) -> Result<Reply, Failure> {
    let segments: Vec<&str> = request.path.segments.iter().map(String::as_str).collect();
    if !can_be_planned(&request.method, &segments) {
        return Err(Failure::bad_request(
            "this request cannot be planned: plan=1 works on changes of services, nodes, secrets, configs and the swarm's settings; \
             leave it out to make the change",
        ));
    }
    let (_, before) = api.read_to_write().await?;
    let rehearsal = Arc::new(Rehearsal::of(before.clone()));
    route::change(&api.with_store(rehearsal.clone()), request).await?;
    let proposed = std::mem::take(&mut *rehearsal.proposed.lock());
    answer_with(api, before, proposed, Options::default()).await
}

/// The forecast of these changes.
pub(crate) async fn answer_with(
    api: &Api,
    before: Snapshot,
    changes: Vec<Transaction>,
    options: Options,
) -> Result<Reply, Failure> {
    let now = api.now();
    let found = api.computed(move || forecast(&before, &changes, now, &options)).await?;
    Ok(json(&convert::forecast(found.map_err(|conflict| read::propose_failure(conflict.into()))?)))
}

// === impl Api ===

impl Api {
    /// What a function of a state gives, which may take seconds on a large swarm: not on a thread that serves others, and not
    /// many at once.
    pub(crate) async fn computed<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        bounded(self.0.computations.clone(), work).await
    }
}

/// The work keeps its place until it is done: whoever asks and does not wait for the answer must not have more of it than others.
async fn bounded<T: Send + 'static>(
    places: Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let stopping = |_| Failure::new(503, "the daemon is stopping");
    let place = places.acquire_owned().await.map_err(stopping)?;
    #[allow(clippy::disallowed_methods)] // A pure function: nothing of the world that a simulation would have to know.
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    });
    done.await.map_err(|e| Failure::new(500, format_args!("the computation failed: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_computation_that_nobody_waits_for_keeps_its_place_until_it_is_done() {
        let places = Arc::new(Semaphore::new(1));
        let (end, ended) = mpsc::channel::<()>();
        let (begin, mut begun) = tokio::sync::oneshot::channel::<()>();
        let first = bounded(places.clone(), move || {
            let _ = begin.send(());
            ended.recv()
        });
        tokio::select! {
            biased;
            _ = first => panic!("it cannot end yet"),
            begun = &mut begun => begun.expect("it has begun"),
        }
        // Its caller has gone with the request.
        assert_eq!(places.available_permits(), 0);
        end.send(()).expect("it is still at work");
        assert_eq!(bounded(places.clone(), || 7).await, Ok(7));
        let panicked = bounded(places.clone(), || panic!("on purpose")).await;
        assert!(panicked.map_err(|f| f.status) == Err::<(), _>(500));
        assert_eq!(places.available_permits(), 1);
    }
}
