//! `cargo xtask …`: everything one does with this repository besides writing code.
//!
//! **Owns** the order of the checks, the house rules that no compiler knows ([`tidy`], [`licences`]), and the private
//! Docker Engine that tests and demo run on ([`docker`]).
//!
//! **Must never** hold product logic, or need a dependency.

#![forbid(unsafe_code)]
// A build tool runs on the real machine only; the seams are for what the simulation must reach.
#![allow(clippy::disallowed_methods)]

mod arrows;
mod bench;
mod deny;
mod docker;
mod everything;
mod fuzz;
mod licences;
mod matrix;
mod run;
mod security;
mod sim;
mod specification;
mod steps;
mod test;
mod tidy;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask demo                a cluster on this machine: see a service survive the death of its leader
cargo xtask test [STEP…]        all checks and tests, in order; ends with `N passed, N failed`
cargo xtask test --list         the steps
cargo xtask tidy                the house rules
cargo xtask licences            the licences of all dependencies
cargo xtask sim --seeds A..B    simulate a range of seeds
cargo xtask sim --seed N --trace   replay one, and print what happened
cargo xtask fuzz [--seconds N] [--target T] [--seed S]   bent inputs at every parser; --list says which
cargo xtask deny                sources, bans, licences and advisories of all dependencies
cargo xtask advisories          the advisories alone: needs a way to github.com, and says when it has none
cargo xtask chaos [SCENARIO…]   the chaos tests, on real processes and a real Docker Engine
cargo xtask conformance [TEST…] the unmodified docker CLI against a cluster
cargo xtask compare [--write]   the same commands to a real Docker Swarm: what differs without an explanation fails
cargo xtask bench [--quick] [--rows 1,2]   speed and size, beside Docker Swarm's in the same run
cargo xtask bench --help        what else it can do
cargo xtask docker up|down      the private Docker Engine that the tests use when the machine runs none
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = match args.split_first() {
        Some((verb, rest)) => (verb.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match verb {
        "test" => test::run(rest),
        "tidy" => tidy::command(),
        "licences" | "licenses" => licences::command(),
        "sim" => sim::command(rest),
        "fuzz" => fuzz::command(rest),
        "deny" => deny::command(),
        "advisories" => deny::advisories_command(),
        "demo" => tools::demo(rest),
        "chaos" => tools::chaos(rest),
        "conformance" => tools::conformance(rest),
        "compare" => tools::compare(rest),
        "bench" => bench::command(rest),
        "docker" => docker::command(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => Err(format!("unknown command `{other}`\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Empty when everything has been said.
            if !message.is_empty() {
                eprintln!("{message}");
            }
            ExitCode::FAILURE
        }
    }
}
