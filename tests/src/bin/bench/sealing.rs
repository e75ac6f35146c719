//! Row 11: what encryption at rest costs. The same product, built once as it is and once without sealing, by turns.

use crate::hosts::Hosts as _;
use crate::lite::Lite;
use crate::pause::{self, Loss};
use crate::plan::Rounds;
use crate::rates::{self, Role};
use crate::table::{Column, Figure, Table};
use std::path::PathBuf;
use std::time::Duration;
use swarmlite_tests::Outcome;

pub(crate) const ROW: u8 = 11;
/// The build that does not seal.
const ENV_UNSEALED: &str = "SWARMLITE_BENCH_UNSEALED";
const WORKERS: usize = 2;
/// Clusters of each build, by turns: what the machine does beside it should meet both.
const TURNS: usize = 3;

/// What one build was measured to do.
#[derive(Default)]
struct Build {
    /// Writes a second with one client and with many, a pair for each turn.
    writes: Vec<(f64, f64)>,
    pauses: Vec<Duration>,
}

pub(crate) async fn measure(rounds: &Rounds, table: &mut Table) {
    match compare(rounds).await {
        Ok((sealed, unsealed)) => {
            let one = ("sealed-writes-1", sealed.one(), unsealed.one());
            let many = ("sealed-writes-16", sealed.many(), unsealed.many());
            for (id, with, without) in [one, many] {
                table.put(Column::Lite, id, Figure::with(without / with, format!("{without:.0} /s, {with:.0} /s")));
            }
            let (with, without) = (median(&sealed.pauses), median(&unsealed.pauses));
            let detail = format!("{with:.2} s, {without:.2} s, medians of {}", sealed.pauses.len());
            table.put(Column::Lite, "sealed-killed", Figure::with(with / without, detail));
        }
        Err(reason) => table.miss(Column::Lite, ROW, &reason),
    }
}

async fn compare(rounds: &Rounds) -> Outcome<(Build, Build)> {
    let binary = std::env::var_os(ENV_UNSEALED).map(PathBuf::from);
    let binary = binary.ok_or("there is no build without sealing to compare with: `cargo xtask bench` makes one")?;
    let (mut sealed, mut unsealed) = (Build::default(), Build::default());
    for turn in 1..=TURNS {
        eprintln!("swarmlite: row {ROW}, turn {turn} of {TURNS} …");
        sealed.measure(None, rounds).await?;
        unsealed.measure(Some(binary.clone()), rounds).await?;
    }
    Ok((sealed, unsealed))
}

fn median(pauses: &[Duration]) -> f64 {
    Figure::median(pauses).value
}

/// Of the middle turn.
fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

// === impl Build ===

impl Build {
    async fn measure(&mut self, binary: Option<PathBuf>, rounds: &Rounds) -> Outcome<()> {
        let time = Duration::from_secs(rounds.seconds);
        let mut hosts = Lite::embedded_with(WORKERS, binary).await?;
        let one = rates::writes(&hosts, Role::Leader, 1, time).await?;
        let many = rates::writes(&hosts, Role::Leader, 16, time).await?;
        self.writes.push((one, many));
        self.pauses.extend(pause::pauses(&mut hosts, Loss::Killed, rounds.kills).await?);
        hosts.tear_down().await
    }

    fn one(&self) -> f64 {
        middle(self.writes.iter().map(|turn| turn.0).collect())
    }

    fn many(&self) -> f64 {
        middle(self.writes.iter().map(|turn| turn.1).collect())
    }
}
