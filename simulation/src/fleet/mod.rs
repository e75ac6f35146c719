//! A fleet: real managers, each in a process of its own as in production, around simulated machines.
//!
//! The managers are whole nodes: Raft over mutual TLS on loopback addresses, sled and sealed files on the disk, dispatcher,
//! control loops. Each machine is a real agent with a real session and an engine in memory; hundreds of them share a process.
//! They are enrolled by the first manager (a node object and a certificate each) instead of joining one by one, and they do
//! not gossip: on one computer a thousand gossiping processes would measure each other.
//!
//! Unlike the rest of the simulation this runs by the machine's own clock: it measures.

mod agents;
mod manager;
mod protocol;

use agents::Fleet;
use clap::Args;
use manager::Child;
use protocol::{Answer, Order};
use serde::Serialize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub use manager::ManagerArgs;

/// Runs a cluster of simulated machines around real managers, and measures it.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// Machines.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Zones that the machines are spread over; the last one is lost in the end.
    #[arg(long, default_value_t = 10)]
    zones: usize,
    /// Tasks before the zone is lost.
    #[arg(long, default_value_t = 20_000)]
    tasks: u64,
    /// Tasks to which the services are scaled at last, when the memory is measured; 0 leaves that out.
    #[arg(long, default_value_t = 100_000)]
    most_tasks: u64,
    /// Services that the tasks belong to.
    #[arg(long, default_value_t = 20)]
    services: u64,
    /// Managers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    managers: u8,
    /// Seconds after which a step is given up.
    #[arg(long, default_value_t = 600)]
    patience_s: u64,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What was measured. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Default, Serialize)]
struct Figures {
    nodes: usize,
    managers: u8,
    tasks: u64,
    /// From the services' creation until every task has a node, and until every task runs.
    assigned_ms: u64,
    running_ms: u64,
    /// Machines of the zone that was lost, and tasks that they had.
    lost_nodes: usize,
    lost_tasks: u64,
    /// From the loss until the first machine is known to be down.
    detected_ms: u64,
    /// From then until each lost task has another node, and until it runs there.
    replanned_ms: u64,
    running_again_ms: u64,
    /// Of the leader, before there were tasks, with `tasks`, and with `most_tasks`.
    memory_empty_bytes: u64,
    memory_bytes: u64,
    most_tasks: u64,
    memory_most_bytes: u64,
}

/// Does what the command line says.
pub fn main(args: &FleetArgs) -> ExitCode {
    match measure(args) {
        Ok(figures) => {
            print(&figures, args.json);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("the fleet FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The part of a manager's process.
pub fn manager_main(args: &ManagerArgs) -> ExitCode {
    manager::main(args)
}

#[allow(clippy::disallowed_methods)] // it measures by the machine's own clock, outside any simulated world
fn measure(args: &FleetArgs) -> Result<Figures, String> {
    let patience = Duration::from_secs(args.patience_s);
    if args.zones == 0 || args.nodes < args.zones * 2 {
        return Err("there must be at least two machines in each zone, and one zone".into());
    }
    let dir = protocol::Scratch::new()?;
    let began = Instant::now();
    let say = |what: &str| eprintln!("[{:7.1} s] {what}", began.elapsed().as_secs_f64());
    say(&format!("starting {} managers", args.managers));
    let mut managers = start_managers(args, &dir, patience)?;
    say(&format!("enrolling {} machines", args.nodes));
    let leader = &mut managers[0];
    let Answer::Enrolled { file } = leader.ask(&Order::Enrol { nodes: args.nodes, zones: args.zones }, patience)?
    else {
        return Err("the manager did not enrol the machines".into());
    };
    let addrs = (1..=args.managers).map(protocol::manager_addr).collect();
    let mut fleet = Fleet::start(&file, args.zones, addrs)?;
    let mut figures = Figures { nodes: args.nodes, managers: args.managers, tasks: args.tasks, ..Figures::default() };
    leader.ask(&Order::AwaitReady { nodes: args.nodes }, patience)?;
    figures.memory_empty_bytes = memory(leader, patience)?;
    say("all machines are ready; creating services");
    let each = args.tasks / args.services.max(1);
    let create = Order::Services { count: args.services, replicas: each };
    let Answer::Placed { assigned_ms, running_ms } = leader.ask(&create, patience)? else {
        return Err("the manager did not say how tasks were placed".into());
    };
    (figures.assigned_ms, figures.running_ms, figures.tasks) = (assigned_ms, running_ms, each * args.services);
    figures.memory_bytes = memory(leader, patience)?;
    say(&format!("{} tasks run; a zone is lost", figures.tasks));
    leader.send(&Order::AwaitLoss { zone: args.zones - 1 })?;
    figures.lost_nodes = fleet.lose(args.zones - 1);
    let Answer::Replanned { lost_tasks, detected_ms, replanned_ms, running_ms } = leader.answer(patience)? else {
        return Err("the manager did not say how tasks were planned anew".into());
    };
    (figures.lost_tasks, figures.detected_ms) = (lost_tasks, detected_ms);
    (figures.replanned_ms, figures.running_again_ms) = (replanned_ms, running_ms);
    if args.most_tasks > 0 {
        say(&format!("scaling to {} tasks", args.most_tasks));
        let each = args.most_tasks / args.services.max(1);
        leader.ask(&Order::Scale { count: args.services, replicas: each }, patience)?;
        figures.most_tasks = each * args.services;
        figures.memory_most_bytes = memory(leader, patience)?;
    }
    say("done");
    Ok(figures)
}

fn start_managers(args: &FleetArgs, dir: &protocol::Scratch, patience: Duration) -> Result<Vec<Child>, String> {
    let mut founder = Child::start(1, dir)?;
    let Answer::Token { token } = founder.ask(&Order::Init, patience)? else {
        return Err("the first manager did not make a swarm".into());
    };
    let mut managers = vec![founder];
    for n in 2..=args.managers {
        let mut other = Child::start(n, dir)?;
        other.ask(&Order::Join { addr: protocol::manager_addr(1), token: token.clone() }, patience)?;
        managers.push(other);
    }
    Ok(managers)
}

fn memory(leader: &mut Child, patience: Duration) -> Result<u64, String> {
    match leader.ask(&Order::Memory, patience)? {
        Answer::Memory { bytes } => Ok(bytes),
        _ => Err("the manager did not say how much memory it has".into()),
    }
}

fn print(f: &Figures, json: bool) {
    if json {
        println!("{}", serde_json::to_string_pretty(f).expect("figures are plain data"));
        return;
    }
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let ms = |ms: u64| format!("{ms} ms");
    let mut rows = vec![
        (format!("{} tasks on {} nodes: all have a node after", f.tasks, f.nodes), ms(f.assigned_ms)),
        ("all run after".into(), ms(f.running_ms)),
        (
            format!("{} nodes with {} tasks lost: first known to be down after", f.lost_nodes, f.lost_tasks),
            ms(f.detected_ms),
        ),
        ("from then: all lost tasks have another node after".into(), ms(f.replanned_ms)),
        ("from then: all of them run after".into(), ms(f.running_again_ms)),
        ("memory of the leader, no tasks".into(), mib(f.memory_empty_bytes)),
        (format!("memory of the leader, {} tasks", f.tasks), mib(f.memory_bytes)),
    ];
    if f.most_tasks > f.tasks {
        rows.push((format!("memory of the leader, {} tasks", f.most_tasks), mib(f.memory_most_bytes)));
        let growth = f.memory_most_bytes.saturating_sub(f.memory_bytes) / (f.most_tasks - f.tasks);
        rows.push(("growth for each task".into(), format!("{growth} bytes")));
    }
    let width = rows.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    rows.iter().for_each(|(what, figure)| println!("{what:width$}  {figure}"));
}
