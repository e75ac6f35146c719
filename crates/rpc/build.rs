//! Compiles the schemas in `proto/` with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas = ["raft", "ca", "cluster", "dispatcher", "logs"].map(|name| format!("../../proto/{name}.proto"));
    let descriptors = protox::compile(&schemas, ["../../proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=../../proto");
    Ok(())
}
