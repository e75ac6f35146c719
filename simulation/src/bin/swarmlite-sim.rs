//! The simulator's program.

fn main() -> std::process::ExitCode {
    swarmlite_simulation::cli::main()
}
