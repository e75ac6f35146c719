//! `swarmlite swarm`.

use crate::client::{ClientError, decode};
use crate::commands::plan::{self, PlanFlag};
use crate::commands::swarm_policy::PolicyFlags;
use crate::commands::{backup, join_token, swarm_ca, unlock};
use crate::context::Context;
use crate::error::CliError;
use crate::opts::{self, ExternalCaFlag};
use clap::{Args, Subcommand};
use docker_api::{GoDuration, InitRequest, JoinRequest, Node, Swarm, SwarmInfo, SwarmSpec};
use serde::Deserialize;

/// The verbs of `swarm`.
#[derive(Subcommand, Debug)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) enum SwarmCommand {
    /// Display and rotate the root CA
    Ca(swarm_ca::CaArgs),
    /// Initialize a swarm
    Init(Box<InitArgs>),
    /// Join a swarm as a node and/or manager
    Join(JoinArgs),
    /// Manage join tokens
    JoinToken(join_token::JoinTokenArgs),
    /// Leave the swarm
    Leave(LeaveArgs),
    /// Replace the key that seals gossip between the nodes
    RotateGossipKey(backup::RotateGossipKeyArgs),
    /// Unlock swarm
    Unlock(unlock::UnlockArgs),
    /// Manage the unlock key
    UnlockKey(unlock::UnlockKeyArgs),
    /// Update the swarm
    Update(Box<UpdateArgs>),
}

/// What `init` and `update` can both set.
#[derive(Args, Debug)]
pub(crate) struct SpecFlags {
    /// Change manager autolocking setting (true|false)
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = opts::go_bool,
        value_name = "bool"
    )]
    autolock: Option<bool>,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = opts::duration, value_name = "duration")]
    cert_expiry: Option<GoDuration>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h)
    #[arg(long, value_parser = opts::duration, value_name = "duration")]
    dispatcher_heartbeat: Option<GoDuration>,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long, value_parser = opts::external_ca, value_name = "external-ca")]
    external_ca: Vec<ExternalCaFlag>,
    /// Number of additional Raft snapshots to retain
    #[arg(long, value_parser = opts::uint, value_name = "uint")]
    max_snapshots: Option<u64>,
    /// Number of log entries between Raft snapshots
    #[arg(long, value_parser = opts::uint, value_name = "uint")]
    snapshot_interval: Option<u64>,
    /// Task history retention limit
    #[arg(long, value_parser = opts::int, value_name = "int", allow_hyphen_values = true)]
    task_history_limit: Option<i64>,
}

/// `swarm init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long, value_name = "string", default_value = "active")]
    availability: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Port number to use for data path traffic (1024 - 49151); 0 for the daemon's own
    #[arg(long, value_name = "uint32", default_value = "0", value_parser = data_path_port)]
    data_path_port: u32,
    /// Default address pool in CIDR format
    #[arg(long, value_name = "ipNetSlice", value_delimiter = ',')]
    default_addr_pool: Vec<String>,
    /// Default address pool subnet mask length
    #[arg(long, value_name = "uint32", default_value = "24", value_parser = clap::value_parser!(u32).range(1..=29))]
    default_addr_pool_mask_length: u32,
    /// Force create a new cluster from current state
    #[arg(long)]
    force_new_cluster: bool,
    /// Listen address (format: "<ip|interface>[:port]"); the daemon's own when not given
    #[arg(long, value_name = "node-addr", default_value = "", hide_default_value = true)]
    listen_addr: String,
    #[command(flatten)]
    spec: SpecFlags,
}

/// `swarm join`.
#[derive(Args, Debug)]
pub(crate) struct JoinArgs {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    advertise_addr: String,
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long, value_name = "string", default_value = "active")]
    availability: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    data_path_addr: String,
    /// Listen address (format: "<ip|interface>[:port]"); the daemon's own when not given
    #[arg(long, value_name = "node-addr", default_value = "", hide_default_value = true)]
    listen_addr: String,
    /// Token for entry into the swarm
    #[arg(long, value_name = "string", default_value = "", hide_default_value = true)]
    token: String,
    /// A manager of the swarm
    #[arg(value_name = "HOST:PORT")]
    remote: String,
}

/// `swarm leave`.
#[derive(Args, Debug)]
pub(crate) struct LeaveArgs {
    /// Force this node to leave the swarm, ignoring warnings
    #[arg(short, long)]
    force: bool,
}

/// `swarm update`.
#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    spec: SpecFlags,
    #[command(flatten)]
    policy: PolicyFlags,
    #[command(flatten)]
    plan: PlanFlag,
}

/// The part of `/info` that we need.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(crate) struct Info {
    #[serde(rename = "Swarm")]
    pub(crate) swarm: SwarmInfo,
}

fn data_path_port(text: &str) -> Result<u32, String> {
    match opts::uint(text)? {
        0 => Ok(0),
        port @ 1024..=49151 => Ok(port as u32),
        port => Err(format!("invalid data path port number: {port}: it must be between 1024 and 49151")),
    }
}

/// Runs a verb.
pub(crate) async fn run(ctx: &Context, command: SwarmCommand) -> Result<(), CliError> {
    match command {
        SwarmCommand::Init(args) => init(ctx, *args).await,
        SwarmCommand::Join(args) => join(ctx, args).await,
        SwarmCommand::JoinToken(args) => join_token::run(ctx, args).await,
        SwarmCommand::Leave(args) => {
            let query = if args.force { vec![("force", "1".to_owned())] } else { vec![] };
            ctx.client.post("/swarm/leave", &query, &serde_json::json!({})).await?;
            ctx.line("Node left the swarm.")
        }
        SwarmCommand::Update(args) => update(ctx, &args).await,
        SwarmCommand::Ca(args) => swarm_ca::run(ctx, &args).await,
        SwarmCommand::RotateGossipKey(args) => backup::rotate_gossip_key(ctx, &args).await,
        SwarmCommand::Unlock(args) => unlock::unlock(ctx, &args).await,
        SwarmCommand::UnlockKey(args) => unlock::unlock_key(ctx, &args).await,
    }
}

// === impl SpecFlags ===

impl SpecFlags {
    /// `root` is the swarm's root certificate of now, empty when there is none yet.
    async fn apply(&self, ctx: &Context, spec: &mut SwarmSpec, root: &str) -> Result<(), CliError> {
        if !self.external_ca.is_empty() {
            spec.ca_config.external_cas = opts::external_cas(ctx, &self.external_ca, root).await?;
        }
        let autolock = &mut spec.encryption_config.auto_lock_managers;
        *autolock = self.autolock.unwrap_or(*autolock);
        spec.ca_config.node_cert_expiry = self.cert_expiry.unwrap_or(spec.ca_config.node_cert_expiry);
        spec.dispatcher.heartbeat_period = self.dispatcher_heartbeat.unwrap_or(spec.dispatcher.heartbeat_period);
        spec.raft.keep_old_snapshots = self.max_snapshots.or(spec.raft.keep_old_snapshots);
        spec.raft.snapshot_interval = self.snapshot_interval.unwrap_or(spec.raft.snapshot_interval);
        spec.orchestration.task_history_retention_limit =
            self.task_history_limit.or(spec.orchestration.task_history_retention_limit);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.autolock.is_none()
            && self.cert_expiry.is_none()
            && self.dispatcher_heartbeat.is_none()
            && self.external_ca.is_empty()
            && self.max_snapshots.is_none()
            && self.snapshot_interval.is_none()
            && self.task_history_limit.is_none()
    }
}

async fn init(ctx: &Context, args: InitArgs) -> Result<(), CliError> {
    let mut spec = SwarmSpec::default();
    args.spec.apply(ctx, &mut spec, "").await?;
    let request = InitRequest {
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr,
        data_path_addr: args.data_path_addr,
        data_path_port: args.data_path_port,
        force_new_cluster: args.force_new_cluster,
        auto_lock_managers: spec.encryption_config.auto_lock_managers,
        spec,
        availability: opts::availability(&args.availability).map_err(CliError::Text)?,
        default_addr_pool: Some(args.default_addr_pool),
        subnet_size: args.default_addr_pool_mask_length,
    };
    let locks = request.auto_lock_managers;
    let answer = ctx.client.post("/swarm/init", &[], &request).await.map_err(with_address_hint)?;
    let id: String = decode("POST /swarm/init", &answer)?;
    ctx.line(format!("Swarm initialized: current node ({id}) is now a manager.\n"))?;
    join_command(ctx, &id, "worker").await?;
    ctx.line("To add a manager to this swarm, run 'swarmlite swarm join-token manager' and follow the instructions.")?;
    if locks {
        ctx.line("")?;
        unlock::show(ctx).await?;
    }
    Ok(())
}

/// The daemon says that it cannot tell its own address; which flag helps is the client's to know, as with Docker.
fn with_address_hint(error: ClientError) -> CliError {
    let text = error.to_string();
    let unclear = ["could not choose an IP address to advertise", "could not find the system's IP address"]
        .map(|w| text.contains(w));
    match unclear.contains(&true) {
        true => CliError::text(format!("{text} - specify one with --advertise-addr")),
        false => error.into(),
    }
}

async fn join(ctx: &Context, args: JoinArgs) -> Result<(), CliError> {
    let request = JoinRequest {
        listen_addr: args.listen_addr,
        advertise_addr: args.advertise_addr,
        data_path_addr: args.data_path_addr,
        remote_addrs: vec![args.remote],
        join_token: args.token.into(),
        availability: opts::availability(&args.availability).map_err(CliError::Text)?,
    };
    ctx.client.post("/swarm/join", &[], &request).await.map_err(with_address_hint)?;
    let info: Info = ctx.client.get("/info", &[]).await?;
    let role = if info.swarm.control_available { "manager" } else { "worker" };
    ctx.line(format!("This node joined a swarm as a {role}."))
}

/// The standing token of a role. The daemon shows it to administrators only.
pub(crate) fn token<'a>(swarm: &'a Swarm, role: &str) -> Result<&'a str, CliError> {
    let tokens = &swarm.join_tokens;
    let token = if role == "worker" { &tokens.worker.0 } else { &tokens.manager.0 };
    match token.as_str() {
        "" => Err(CliError::text(
            "the daemon does not show join tokens to a viewer's certificate: use an administrator's",
        )),
        token => Ok(token),
    }
}

pub(crate) async fn join_command(ctx: &Context, node_id: &str, role: &str) -> Result<(), CliError> {
    let node: Node = ctx.client.get(&format!("/nodes/{node_id}"), &[]).await?;
    let swarm: Swarm = ctx.client.get("/swarm", &[]).await?;
    if let Some(manager) = &node.manager_status {
        let token = token(&swarm, role)?;
        ctx.line(format!(
            "To add a {role} to this swarm, run the following command:\n\n    swarmlite swarm join --token {token} {}\n",
            manager.addr
        ))?;
    }
    Ok(())
}

async fn update(ctx: &Context, args: &UpdateArgs) -> Result<(), CliError> {
    let flags = &args.spec;
    if flags.is_empty() && args.policy.is_empty() {
        return Err(CliError::text(
            "nothing to update: give at least one of the flags that `swarmlite swarm update --help` lists",
        ));
    }
    let swarm: Swarm = ctx.client.get("/swarm", &[]).await?;
    let mut spec = swarm.spec.clone();
    flags.apply(ctx, &mut spec, &swarm.tls_info.trust_root).await?;
    args.policy.apply(&mut spec.labels)?;
    let query = [
        ("version", swarm.version.index.to_string()),
        ("rotateWorkerToken", "false".to_owned()),
        ("rotateManagerToken", "false".to_owned()),
        ("rotateManagerUnlockKey", "false".to_owned()),
    ];
    if args.plan.plan {
        return plan::post(ctx, "/swarm/update", &query, &spec, &[]).await;
    }
    ctx.client.post("/swarm/update", &query, &spec).await?;
    ctx.line("Swarm updated.")?;
    if spec.encryption_config.auto_lock_managers && !swarm.spec.encryption_config.auto_lock_managers {
        unlock::show(ctx).await?;
    }
    Ok(())
}
