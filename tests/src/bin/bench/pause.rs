//! Rows 1 and 2: how long nobody can write when the leader goes.

use crate::hosts::{self, Hosts, LONG, MANAGERS};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use swarmlite_tests::cluster::service_spec;
use swarmlite_tests::{Api, ApiError, Outcome, image, wait};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// Clients that write all the time.
const PROBES: usize = 4;
/// How long one waits before it tries again.
const PROBE_PAUSE: Duration = Duration::from_millis(10);
/// How long a swarm that is whole again is left alone: long enough for what a new leader has to do at first.
const CALM: Duration = Duration::from_secs(2);

/// How a leader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The machine, or the process, at once.
    Killed,
    /// It is told to stop, and stops in good order.
    Stopped,
    /// It is made a worker.
    Demoted,
}

/// Takes the leader away so many times; returns how long writes paused each time.
pub(crate) async fn pauses<H: Hosts>(hosts: &mut H, loss: Loss, rounds: usize) -> Outcome<Vec<Duration>> {
    let mut pauses = Vec::new();
    for round in 1..=rounds {
        let pause = pause(hosts, loss).await?;
        eprintln!("  leader {loss:?}, {round} of {rounds}: {:.3} s", pause.as_secs_f64());
        pauses.push(pause);
        hosts.whole().await?;
        tokio::time::sleep(CALM).await;
    }
    hosts::remove_all(hosts).await?;
    Ok(pauses)
}

/// The longest time without an acknowledgement, from the loss of the leader until writes are acknowledged without it. Only
/// writes that were sent after the loss count, and only through the other managers.
async fn pause<H: Hosts>(hosts: &mut H, loss: Loss) -> Outcome<Duration> {
    let leader = hosts::leader(hosts).await?;
    let others: Vec<Api> = (0..MANAGERS).filter(|host| *host != leader).map(|host| hosts.api(host)).collect();
    let lost = Instant::now();
    match loss {
        Loss::Killed => hosts.kill(leader).await?,
        Loss::Stopped => hosts.ask_to_stop(leader)?,
        Loss::Demoted => {}
    }
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let mut probes = tokio::task::JoinSet::new();
    for probe in 0..PROBES {
        probes.spawn(write_on(others[probe % others.len()].clone(), report.clone()));
    }
    drop(report);
    let watched = tokio::time::timeout(LONG, async {
        let gone = async {
            match loss {
                Loss::Demoted => demote(hosts, leader, &others[0]).await?,
                Loss::Killed | Loss::Stopped => hosts.gone(leader).await?,
            }
            Outcome::Ok(Instant::now())
        };
        let mut gone = std::pin::pin!(gone);
        let (mut gone_at, mut acks) = (None, vec![lost]);
        loop {
            tokio::select! {
                biased;
                at = &mut gone, if gone_at.is_none() => gone_at = Some(at?),
                ack = reports.recv() => {
                    let (sent, acknowledged) = ack.ok_or("the writers are gone")?;
                    acks.push(acknowledged);
                    if gone_at.is_some_and(|gone| sent > gone) {
                        return Outcome::Ok(acks);
                    }
                }
            }
        }
    });
    let mut acks = watched.await.map_err(|_| "no write was acknowledged any more".to_string())??;
    probes.shutdown().await;
    acks.sort_unstable();
    let pause = acks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    match loss {
        Loss::Demoted => {
            settled_as_worker(&hosts.api(leader)).await?;
            set_role(&others[0], &hosts.node_id(leader), "manager").await?;
        }
        Loss::Killed | Loss::Stopped => hosts.start_again(leader).await?,
    }
    Ok(pause)
}

/// Creates and removes services for ever; reports when each acknowledged write was sent and acknowledged.
async fn write_on(api: Api, report: UnboundedSender<(Instant, Instant)>) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!("probe-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut sent = Instant::now();
        if api.post("/services/create", &service_spec(&name, image::WEB_1, 0)).await.is_ok() {
            if report.send((sent, Instant::now())).is_err() {
                return;
            }
            sent = Instant::now();
            if api.delete(&format!("/services/{name}")).await.is_ok() && report.send((sent, Instant::now())).is_err() {
                return;
            }
        }
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

/// Makes the leader a worker, and waits until another manager leads.
async fn demote<H: Hosts>(hosts: &H, leader: usize, through: &Api) -> Outcome<()> {
    set_role(through, &hosts.node_id(leader), "worker").await?;
    wait::until("another manager leads", LONG, || async {
        let now = hosts::leader_seen_by(hosts, through).await?;
        if now == leader { Err("it still leads".to_string()) } else { Ok(()) }
    })
    .await
}

/// Waits until a demoted manager has understood.
async fn settled_as_worker(api: &Api) -> Outcome<()> {
    wait::until("the demoted manager is a worker", LONG, || async {
        let info = api.get("/info").await?;
        if info["Swarm"]["ControlAvailable"] == false { Ok(()) } else { Err("it still acts as a manager".to_string()) }
    })
    .await
}

/// Promotes or demotes a node; again when its version has changed meanwhile, or the outcome is not known.
async fn set_role(through: &Api, id: &str, role: &str) -> Outcome<()> {
    wait::until(&format!("the node is a {role}"), LONG, || async {
        let node = through.get(&format!("/nodes/{id}")).await?;
        if node["Spec"]["Role"] == role {
            return Ok(());
        }
        let mut spec = node["Spec"].clone();
        spec["Role"] = role.into();
        let path = format!("/nodes/{id}/update?version={}", node["Version"]["Index"]);
        through.post(&path, &spec).await.map(drop).map_err(|error: ApiError| error.to_string())
    })
    .await
}
