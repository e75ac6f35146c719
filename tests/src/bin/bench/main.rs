//! The figures behind `cargo xtask bench`: Swarmlite's, and Docker Swarm's in the same run on the same machine.
//!
//! `--rows 1,2` takes these rows only, `--quick` fewer rounds; `--no-swarm` and `--no-lite` leave one out;
//! `--format json` prints for programs. Progress goes to standard error, the table to standard output.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)] // the real machine

mod containers;
mod hosts;
mod idle;
mod lines;
mod lite;
mod pause;
mod plan;
mod rates;
mod rolling;
mod sealing;
mod still;
mod swarm;
mod table;

use hosts::{Hosts, MANAGERS};
use lite::Lite;
use pause::Loss;
use plan::{Format, Plan, Rounds};
use rates::Role;
use std::process::ExitCode;
use std::time::Duration;
use swarm::DockerSwarm;
use swarmlite_tests::Outcome;
use table::{Column, Figure, Table};
use tokio::signal::unix::{SignalKind, signal};

/// Rows for which a cluster that pretends to run its containers will do. The idle manager comes first: it should not have
/// been busy before.
const EMBEDDED_ROWS: &[u8] = &[9, 6, 7, 1, 2];
/// Rows that need containers.
const DOCKER_ROWS: &[u8] = &[5, 12, 13, 3, 4];
/// Docker Swarm has one kind of cluster only; what takes it apart comes last.
const SWARM_ROWS: &[u8] = &[5, 9, 12, 13, 6, 7, 3, 4, 1, 2];
const WORKERS: usize = 2;
/// How long one row may take: Docker Swarm needs up to half a minute for each of its rounds.
const ROW_LIMIT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match Plan::parse(&args) {
        Ok(plan) => interruptible(plan).await,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures until it is done or told to stop; either way nothing is left behind.
async fn interruptible(plan: Plan) -> ExitCode {
    let mut table = Table::new();
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        eprintln!("cannot wait for signals");
        return ExitCode::FAILURE;
    };
    let finished = tokio::select! {
        biased;
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        () = measure(&plan, &mut table) => true,
    };
    match plan.format {
        Format::Table => print!("{}", table.render()),
        Format::Json => println!("{:#}", table.json()),
    }
    if finished {
        ExitCode::SUCCESS
    } else {
        eprintln!("interrupted: the rest is not measured");
        ExitCode::FAILURE
    }
}

async fn measure(plan: &Plan, table: &mut Table) {
    still::measure(plan, table);
    if plan.lite {
        let rounds = plan.lite_rounds();
        rows(Column::Lite, &plan.of(EMBEDDED_ROWS), &rounds, table, || Lite::embedded(WORKERS)).await;
        rows(Column::Lite, &plan.of(DOCKER_ROWS), &rounds, table, || Lite::on_docker(WORKERS)).await;
    }
    if plan.lite && plan.rows.contains(&sealing::ROW) {
        sealing::measure(&plan.lite_rounds(), table).await;
    }
    if plan.swarm {
        let rounds = plan.swarm_rounds();
        rows(Column::Swarm, &plan.of(SWARM_ROWS), &rounds, table, || DockerSwarm::start(MANAGERS, WORKERS)).await;
    }
}

/// Measures rows on one cluster after the other: one that failed is replaced, and its row says so.
async fn rows<H: Hosts>(
    column: Column,
    rows: &[u8],
    rounds: &Rounds,
    table: &mut Table,
    start: impl AsyncFn() -> Outcome<H>,
) {
    let mut cluster: Option<H> = None;
    for (index, number) in rows.iter().enumerate() {
        let mut hosts = match cluster.take() {
            Some(hosts) => hosts,
            None => match start().await {
                Ok(hosts) => hosts,
                Err(reason) => {
                    rows[index..].iter().for_each(|row| table.miss(column, *row, &reason));
                    return;
                }
            },
        };
        eprintln!("{column}: row {number} (load average {:.1}) …", table::load_average());
        let measured = tokio::time::timeout(ROW_LIMIT, row(*number, &mut hosts, column, rounds, table)).await;
        match measured.unwrap_or_else(|_| Err(format!("not within {} s", ROW_LIMIT.as_secs()))) {
            Ok(()) => cluster = Some(hosts),
            Err(reason) => {
                table.miss(column, *number, &reason);
                end(hosts).await;
            }
        }
    }
    if let Some(hosts) = cluster {
        end(hosts).await;
    }
}

async fn end<H: Hosts>(hosts: H) {
    if let Err(error) = hosts.tear_down().await {
        eprintln!("  cannot clean up: {error}");
    }
}

/// Measures one row.
async fn row<H: Hosts>(number: u8, hosts: &mut H, column: Column, rounds: &Rounds, table: &mut Table) -> Outcome<()> {
    let seconds = Duration::from_secs(rounds.seconds);
    match number {
        1 => {
            let pauses = pause::pauses(hosts, Loss::Killed, rounds.kills).await?;
            table.put(column, "killed", Figure::median(&pauses));
            table.put(column, "killed-worst", Figure::worst(&pauses));
        }
        2 => {
            let pauses = pause::pauses(hosts, Loss::Stopped, rounds.stops).await?;
            table.put(column, "stopped", Figure::median(&pauses));
            table.put(column, "stopped-worst", Figure::worst(&pauses));
            let pauses = pause::pauses(hosts, Loss::Demoted, rounds.demotions).await?;
            table.put(column, "demoted", Figure::median(&pauses));
            table.put(column, "demoted-worst", Figure::worst(&pauses));
        }
        3 => {
            let times = containers::workers_lost(hosts, rounds.worker_kills).await?;
            table.put(column, "worker", Figure::median(&times));
        }
        4 => {
            let restarted = containers::restarted(hosts, rounds.leader_changes).await?;
            let detail = format!("in {} leader changes", rounds.leader_changes);
            table.put(column, "restarted", Figure::with(restarted as f64, detail));
        }
        5 => creation(hosts, column, rounds, table).await?,
        6 => {
            for (role, clients, id) in cases(["writes-1", "writes-16", "writes-1-follower", "writes-16-follower"]) {
                table.put(column, id, Figure::of(rates::writes(hosts, role, clients, seconds).await?));
            }
        }
        7 => {
            rates::fill(hosts, 100).await?;
            for (role, clients, id) in cases(["reads-1", "reads-16", "reads-1-follower", "reads-16-follower"]) {
                table.put(column, id, Figure::of(rates::reads(hosts, role, clients, seconds).await?));
            }
            hosts::remove_all(hosts).await?;
        }
        9 => {
            let idle = idle::idle(hosts, Duration::from_secs(rounds.idle_seconds)).await?;
            let own = format!("{:.1} MB without binary and libraries", idle.own_bytes as f64 / 1e6);
            table.put(column, "memory", Figure::with(idle.bytes as f64 / 1e6, own));
            table.put(column, "cpu", Figure::of(idle.cpu * 100.0));
        }
        12 => {
            let mut updates = Vec::new();
            for _ in 0..rounds.creates {
                updates.push(rolling::update(hosts).await?);
            }
            let times: Vec<Duration> = updates.iter().map(|update| update.took).collect();
            table.put(column, "update", Figure::median(&times));
            let missing = updates.iter().map(|update| update.missing).max().unwrap_or_default();
            let looks: usize = updates.iter().map(|update| update.looks).sum();
            table.put(column, "update-missing", Figure::with(missing as f64, format!("at {looks} looks")));
        }
        13 => {
            let (mut scaled, mut run) = (Vec::new(), Vec::new());
            for _ in 0..rounds.creates {
                let (one, other) = rolling::grow(hosts).await?;
                scaled.push(one);
                run.push(other);
            }
            let (scaled, run) = (Figure::median(&scaled), Figure::median(&run));
            let ratio = scaled.value / run.value;
            table.put(column, "scale", scaled);
            table.put(column, "run-50", run);
            table.put(column, "scale-ratio", Figure::of(ratio));
        }
        other => return Err(format!("row {other} needs no cluster")),
    }
    Ok(())
}

/// Row 5.
async fn creation<H: Hosts>(hosts: &H, column: Column, rounds: &Rounds, table: &mut Table) -> Outcome<()> {
    let engines = hosts.engines();
    // The first container of an engine takes longer than the others.
    containers::bare_run(&engines, engines.len()).await?;
    let mut three = Vec::new();
    for _ in 0..rounds.creates {
        three.push(containers::create(hosts, 3).await?);
    }
    table.put(column, "create-3", Figure::median(&three));
    let hundred = containers::create(hosts, 100).await?.as_secs_f64();
    table.put(column, "create-100", Figure::of(hundred));
    let bare = containers::bare_run(&engines, 100).await?.as_secs_f64();
    let run = containers::docker_run(&engines, 100).await?.as_secs_f64();
    table.put(column, "run-100", Figure::with(run, format!("as bare API calls {bare:.1} s")));
    let detail = format!("{:.2} × the bare API calls", hundred / bare);
    table.put(column, "create-ratio", Figure::with(hundred / run, detail));
    Ok(())
}

/// The four ways to ask, each with the line that it belongs to.
fn cases(ids: [&str; 4]) -> impl Iterator<Item = (Role, usize, &str)> {
    [(Role::Leader, 1), (Role::Leader, 16), (Role::Follower, 1), (Role::Follower, 16)]
        .into_iter()
        .zip(ids)
        .map(|((role, clients), id)| (role, clients, id))
}
