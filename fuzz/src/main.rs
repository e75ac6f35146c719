//! `swarmlite-fuzz`: see [`swarmlite_fuzz::cli`].

fn main() -> std::process::ExitCode {
    swarmlite_fuzz::cli::main()
}
