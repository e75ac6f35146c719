//! A scenario with a script of its own: a node is cut off until its certificate has expired. The others renew theirs in time and
//! go on; the one that comes back too late is let in nowhere, and the leader says that it is down.

use super::clock::{EPOCH, set_elapsed};
use super::http::{Answer, ask};
use super::machine::Machine;
use super::run::{Failure, count_step};
use super::user::found_with;
use crate::event;
use crate::trace::{self, Fingerprint};
use http::{Method, StatusCode};
use node::Canaries;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Three managers, and two workers of which the last one is cut off.
const MACHINES: usize = 5;
const MANAGERS: usize = 3;
/// The shortest validity that there is.
const EXPIRY: Duration = Duration::from_secs(3600);
/// All clocks are set forward by so much at a time: less than the fifth of the validity that is left when the last node renews.
const LEAP: Duration = Duration::from_secs(600);
/// After each leap there is time to notice: nodes look at their certificates at least once a minute.
const BETWEEN: Duration = Duration::from_secs(75);
/// Nine leaps are an hour and a half.
const LEAPS: u32 = 9;
/// In all.
const PATIENCE: Duration = Duration::from_secs(1500);

/// What the script and the cluster's user tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Founding,
    Leaping,
    Healed,
    Over,
}

/// Runs the scenario with a seed. Call it once in a process.
///
/// # Errors
/// What is not as it should be.
pub fn expiry(seed: u64, print: bool) -> Result<Fingerprint, Failure> {
    interpose::arm(seed);
    trace::begin(print);
    set_elapsed(Duration::ZERO);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .simulation_duration(PATIENCE * 2)
        .tick_duration(Duration::from_millis(5))
        .tcp_capacity(65_536)
        .udp_capacity(4096)
        .build();
    let mut machines = Vec::new();
    for n in 1..=MACHINES {
        let name = format!("n{n}");
        let machine = Machine::new(seed, &name, sim.lookup(name.as_str()), Canaries::default());
        let lives = machine.clone();
        sim.host(name.as_str(), move || lives.clone().live());
        machines.push(machine);
    }
    let stage = Arc::new(Mutex::new(Stage::Founding));
    let ips: Vec<IpAddr> = machines.iter().map(|m| m.ip).collect();
    sim.client("user", user(ips, stage.clone()));
    let late = &machines[MACHINES - 1];
    let (mut leaps, mut next) = (0, Duration::ZERO);
    while *stage.lock() != Stage::Over {
        let now = sim.elapsed();
        set_elapsed(now);
        if now > PATIENCE {
            let what = vec![format!("the scenario is not over; it is {:?} after {leaps} leaps", *stage.lock())];
            return Err(Failure::Liveness { what, at: now, after: PATIENCE });
        }
        if *stage.lock() == Stage::Leaping && now >= next {
            if leaps == 0 {
                event!("world", "{} is cut off", late.name);
                machines[..MACHINES - 1].iter().for_each(|m| sim.partition(late.name.as_str(), m.name.as_str()));
            }
            if leaps == LEAPS {
                event!("world", "{} is heard again", late.name);
                machines[..MACHINES - 1].iter().for_each(|m| sim.repair(late.name.as_str(), m.name.as_str()));
                *stage.lock() = Stage::Healed;
            } else {
                let by = i64::try_from(LEAP.as_millis()).unwrap_or(0);
                machines.iter().for_each(|m| m.clock.jump(by));
                leaps += 1;
                event!("world", "all clocks leap, for the {leaps}. time");
            }
            next = now + BETWEEN;
        }
        count_step();
        sim.step().map_err(|e| Failure::Broken(e.to_string()))?;
    }
    Ok(trace::fingerprint())
}

/// Makes the cluster, and looks at it in the end.
async fn user(ips: Vec<IpAddr>, stage: Arc<Mutex<Stage>>) -> turmoil::Result {
    let spec = json!({ "CAConfig": { "NodeCertExpiry": EXPIRY.as_nanos() as u64 } });
    found_with(Some(spec), ips[0], &ips[1..MANAGERS], &ips[MANAGERS..]).await?;
    service(&ips, "before").await?;
    *stage.lock() = Stage::Leaping;
    while *stage.lock() < Stage::Healed {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Time enough for whoever might be let in by mistake.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let states = states(&ips).await?;
    event!("user", "{states:?}");
    for (name, state) in &states {
        let expected = if *name == format!("n{MACHINES}") { "down" } else { "ready" };
        if state != expected {
            return Err(format!("{name} is {state}, and should be {expected}: {states:?}").into());
        }
    }
    if states.len() != MACHINES {
        return Err(format!("some nodes are gone: {states:?}").into());
    }
    // The cluster goes on with the certificates that it renewed.
    service(&ips, "after").await?;
    *stage.lock() = Stage::Over;
    Ok(())
}

async fn service(ips: &[IpAddr], name: &str) -> Result<(), String> {
    let spec = json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": "web:1" } },
        "Mode": { "Replicated": { "Replicas": 1 } },
    });
    match ask(ips[0], Method::POST, "/v1.44/services/create", Some(&spec)).await {
        Answer::Came(status, _) if status.is_success() => Ok(()),
        answer => Err(format!("the service {name} could not be created: {}", answer.message())),
    }
}

/// Each node's host name and state.
async fn states(ips: &[IpAddr]) -> Result<Vec<(String, String)>, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    match ask(ips[0], Method::GET, "/v1.44/nodes", None).await {
        Answer::Came(StatusCode::OK, Value::Array(nodes)) => {
            let mut states: Vec<_> =
                nodes.iter().map(|n| (text(&n["Description"]["Hostname"]), text(&n["Status"]["State"]))).collect();
            states.sort();
            Ok(states)
        }
        answer => Err(format!("no list of nodes: {}", answer.message())),
    }
}
