//! Rows 6 and 7: how much a manager answers per second.

use crate::hosts::{self, Hosts, MANAGERS};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use swarmlite_tests::cluster::service_spec;
use swarmlite_tests::{Api, Outcome, image};
use tokio::time::Instant;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
}

/// A request: method, path, body.
type Request = (&'static str, String, String);

/// Creates and removes services without replicas, by turns, so many clients at a time; returns acknowledged writes per
/// second.
pub(crate) async fn writes<H: Hosts>(hosts: &H, role: Role, clients: usize, time: Duration) -> Outcome<f64> {
    let rate = busy(&one(hosts, role).await?, clients, time, |client| {
        let mut turn = 0u64;
        move || {
            turn += 1;
            let name = format!("w-{client}-{}", turn.div_ceil(2));
            if turn % 2 == 1 {
                ("POST", "/services/create".to_string(), service_spec(&name, image::WEB_1, 0).to_string())
            } else {
                ("DELETE", format!("/services/{name}"), String::new())
            }
        }
    })
    .await?;
    // Of each client at most one service is left.
    hosts::remove_all(hosts).await?;
    Ok(rate)
}

/// Lists the services, so many clients at a time; returns answers per second.
pub(crate) async fn reads<H: Hosts>(hosts: &H, role: Role, clients: usize, time: Duration) -> Outcome<f64> {
    busy(&one(hosts, role).await?, clients, time, |_| || ("GET", "/services".to_string(), String::new())).await
}

/// Creates services without replicas.
pub(crate) async fn fill<H: Hosts>(hosts: &H, services: usize) -> Outcome<()> {
    hosts::remove_all(hosts).await?;
    for number in 0..services {
        hosts::create(hosts, &format!("read-{number}"), 0).await?;
    }
    Ok(())
}

async fn one<H: Hosts>(hosts: &H, role: Role) -> Outcome<Api> {
    let leader = hosts::leader(hosts).await?;
    Ok(hosts.api(match role {
        Role::Leader => leader,
        Role::Follower => (leader + 1) % MANAGERS,
    }))
}

/// Keeps clients busy, each on a connection of its own; returns successes per second.
async fn busy<N>(api: &Api, clients: usize, time: Duration, next: impl Fn(usize) -> N) -> Outcome<f64>
where
    N: FnMut() -> Request + Send + 'static,
{
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut workers = tokio::task::JoinSet::new();
    for client in 0..clients {
        let (stop, count, mut next) = (stop.clone(), count.clone(), next(client));
        let mut connection = api.connect().await?;
        workers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let (method, path, body) = next();
                connection.raw(method, &path, body).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Ok(())
        });
    }
    // Not the first moments, in which caches and connections warm up.
    tokio::time::sleep(time / 4).await;
    let (began, before) = (Instant::now(), count.load(Ordering::Relaxed));
    tokio::time::sleep(time).await;
    let rate = (count.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|error| error.to_string())??;
    }
    Ok(rate)
}
