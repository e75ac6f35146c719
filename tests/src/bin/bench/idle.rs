//! Row 9: what a manager costs that has nothing to do.

use crate::hosts::{self, Hosts, MANAGERS};
use std::time::Duration;
use swarmlite_tests::Outcome;

/// Tasks in the cluster.
const TASKS: usize = 100;
/// How long what follows the start of the tasks may take.
const SETTLE: Duration = Duration::from_secs(5);
/// Clock ticks of `/proc/PID/stat` per second, the same on all Linux platforms.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the managers cost.
pub(crate) struct Idle {
    /// The largest resident memory of one, in bytes.
    pub(crate) bytes: u64,
    /// How much of it is its own, and not pages of the binary and of libraries, which the kernel can drop and share.
    pub(crate) own_bytes: u64,
    /// The largest share of a core that one used.
    pub(crate) cpu: f64,
}

pub(crate) async fn idle<H: Hosts>(hosts: &H, time: Duration) -> Outcome<Idle> {
    hosts::create(hosts, "hundred", TASKS).await?;
    hosts::until_running(hosts, "hundred", TASKS, |_| true).await?;
    tokio::time::sleep(SETTLE).await;
    let processes = (0..MANAGERS).map(|host| hosts.process(host)).collect::<Outcome<Vec<u32>>>()?;
    let before = processes.iter().map(|pid| ticks(*pid)).collect::<Outcome<Vec<f64>>>()?;
    tokio::time::sleep(time).await;
    let mut idle = Idle { bytes: 0, own_bytes: 0, cpu: 0.0 };
    for (pid, before) in processes.iter().zip(before) {
        idle.bytes = idle.bytes.max(memory(*pid, "VmRSS:")?);
        idle.own_bytes = idle.own_bytes.max(memory(*pid, "RssAnon:")?);
        idle.cpu = idle.cpu.max((ticks(*pid)? - before) / TICKS_PER_SECOND / time.as_secs_f64());
    }
    hosts::remove_all(hosts).await?;
    Ok(idle)
}

/// One of the figures that the kernel keeps of a process's memory, in bytes.
fn memory(pid: u32, which: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).ok_or_else(|| format!("no {which}"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("{which} is {line}"))?;
    Ok(kib * 1024)
}

/// CPU time used so far, in ticks.
fn ticks(pid: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| error.to_string())?;
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    // utime and stime are fields 14 and 15; the list begins with field 3.
    Ok(field(11) + field(12))
}
