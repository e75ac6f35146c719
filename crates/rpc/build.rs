//! Compiles the schemas in `proto/` with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schemas =
        ["raft", "ca", "cluster", "dispatcher", "logs", "exec"].map(|name| format!("../../proto/{name}.proto"));
    let descriptors = protox::compile(&schemas, ["../../proto"])?;
    // Their `Debug` is in src/redacted.rs: they carry keys and the data of secrets.
    let redacted = [
        "dispatcher.v1.AssignmentsMessage",
        "dispatcher.v1.GossipKey",
        "ca.v1.GossipKey",
        "ca.v1.IssueNodeCertificateRequest",
        "cluster.v1.ProposeRequest",
        "raft.v1.AppendRequest",
        "raft.v1.SnapshotChunk",
        "exec.v1.Create",
        "exec.v1.ManagerMessage",
        "exec.v1.AgentMessage",
    ]
    .map(|name| format!(".swarmlite.{name}"));
    tonic_prost_build::configure().skip_debug(redacted).compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=../../proto");
    Ok(())
}
