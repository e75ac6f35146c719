//! `swarmlite swarm ca`: shows the root certificate, and changes it.

use crate::context::Context;
use crate::error::CliError;
use crate::opts::{self, ExternalCaFlag};
use clap::Args;
use docker_api::{GoDuration, Node, Swarm, SwarmSpec, TlsInfo};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::time::Duration;

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// Nodes named in the line of those that are waited for.
const NAMED_MAX: usize = 5;

/// `swarm ca`.
#[derive(Args, Debug)]
pub(crate) struct CaArgs {
    /// Path to the PEM-formatted root CA certificate to use for the new cluster
    #[arg(long, value_name = "pem-file")]
    ca_cert: Option<PathBuf>,
    /// Path to the PEM-formatted root CA key to use for the new cluster
    #[arg(long, value_name = "pem-file")]
    ca_key: Option<PathBuf>,
    /// Validity period for node certificates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = opts::duration, value_name = "duration")]
    cert_expiry: Option<GoDuration>,
    /// Exit immediately instead of waiting for the root rotation to converge
    #[arg(short, long)]
    detach: bool,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long, value_parser = opts::external_ca, value_name = "external-ca")]
    external_ca: Vec<ExternalCaFlag>,
    /// Suppress progress output
    #[arg(short, long)]
    quiet: bool,
    /// Rotate the swarm CA - if no certificate or key are provided, new ones will be generated
    #[arg(long)]
    rotate: bool,
}

/// How far a change of the root has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    digest: String,
    certificates: usize,
    roots: usize,
    nodes: usize,
    /// Names of nodes that are not there yet, and how they are.
    awaited: Vec<String>,
    done: bool,
}

/// Runs the verb.
pub(crate) async fn run(ctx: &Context, args: &CaArgs) -> Result<(), CliError> {
    args.check()?;
    let swarm: Swarm = ctx.client.get("/swarm", &[]).await?;
    if !args.rotate {
        return show_root(ctx, &swarm);
    }
    let mut spec = swarm.spec.clone();
    let given = args.read(ctx).await?;
    if let (Some((cert, _)), false) = (&given, args.external_ca.is_empty()) {
        spec.ca_config.external_cas = opts::external_cas(ctx, &args.external_ca, cert).await?;
    }
    ask(&mut spec, args.cert_expiry, given);
    let query = [
        ("version", swarm.version.index.to_string()),
        ("rotateWorkerToken", "false".to_owned()),
        ("rotateManagerToken", "false".to_owned()),
        ("rotateManagerUnlockKey", "false".to_owned()),
    ];
    ctx.client.post("/swarm/update", &query, &spec).await?;
    if args.detach { Ok(()) } else { wait(ctx, args.quiet).await }
}

/// What is sent for a change of the root: the given one (without its key when that is an authority's elsewhere), or the wish for a
/// new one.
fn ask(spec: &mut SwarmSpec, expiry: Option<GoDuration>, given: Option<(String, String)>) {
    let config = &mut spec.ca_config;
    config.node_cert_expiry = expiry.unwrap_or(config.node_cert_expiry);
    match given {
        Some((cert, key)) => {
            config.signing_ca_cert = cert;
            config.signing_ca_key = key.into();
        }
        None => config.force_rotate = config.force_rotate.wrapping_add(1).max(1),
    }
}

fn show_root(ctx: &Context, swarm: &Swarm) -> Result<(), CliError> {
    let root = swarm.tls_info.trust_root.trim();
    if root.is_empty() {
        return Err(CliError::text("no CA information available"));
    }
    ctx.line(root)
}

/// Watches until every node has moved over, or the user has seen enough (Ctrl-C).
async fn wait(ctx: &Context, quiet: bool) -> Result<(), CliError> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut shown: Option<Progress> = None;
    loop {
        let look = async {
            let swarm: Swarm = ctx.client.get("/swarm", &[]).await?;
            let nodes: Vec<Node> = ctx.client.get("/nodes", &[]).await?;
            Ok::<_, CliError>((swarm, nodes))
        };
        let (swarm, nodes) = tokio::select! {
            biased;
            _ = &mut interrupted => return ctx.line("Operation continuing in background."),
            seen = look => seen?,
        };
        let now = progress(&swarm.tls_info, swarm.root_rotation_in_progress, &nodes);
        if !quiet && shown.as_ref() != Some(&now) {
            ctx.out(&paint(&now, shown.as_ref(), ctx.is_terminal()))?;
        }
        if now.done {
            return if quiet { Ok(()) } else { show_root(ctx, &swarm) };
        }
        shown = Some(now);
        tokio::select! {
            biased;
            _ = &mut interrupted => return ctx.line("Operation continuing in background."),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

/// How far it is, as Docker counts it: first every node has to have a certificate of the wanted root, then the old root goes,
/// then every node has to trust the new one alone.
fn progress(wanted: &TlsInfo, rotating: bool, nodes: &[Node]) -> Progress {
    let has_certificate = |node: &Node| {
        let tls = &node.description.tls_info;
        (&tls.cert_issuer_public_key, &tls.cert_issuer_subject)
            == (&wanted.cert_issuer_public_key, &wanted.cert_issuer_subject)
    };
    let has_root = |node: &Node| node.description.tls_info.trust_root == wanted.trust_root;
    let certificates = nodes.iter().filter(|n| has_certificate(n)).count();
    let moved = certificates == nodes.len() && !rotating;
    // Before, a node that trusts both roots is right, and counts for nothing yet.
    let roots = if moved { nodes.iter().filter(|n| has_root(n)).count() } else { 0 };
    let awaited = nodes.iter().filter(|n| !has_certificate(n) || (moved && !has_root(n)));
    Progress {
        digest: format!("sha256:{}", hex(&Sha256::digest(wanted.trust_root.as_bytes()))),
        certificates,
        roots,
        nodes: nodes.len(),
        awaited: awaited.map(name_of).collect(),
        done: moved && roots == nodes.len(),
    }
}

fn name_of(node: &Node) -> String {
    let name = if node.description.hostname.is_empty() { &node.id } else { &node.description.hostname };
    match node.status.state.as_str() {
        "ready" => name.clone(),
        other => format!("{name} ({other}: bring it back or remove it)"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The lines, over the old ones on a terminal.
fn paint(now: &Progress, before: Option<&Progress>, in_place: bool) -> String {
    let mut text = String::new();
    if in_place && before.is_some() {
        // Up over the lines of before, and clear what is below.
        text.push_str("\x1b[4A\x1b[J");
    }
    let mut awaited = now.awaited.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if now.awaited.len() > NAMED_MAX {
        awaited.push_str(", …");
    }
    if in_place || before.is_none_or(|b| b.digest != now.digest) {
        text.push_str(&format!("desired root digest: {}\n", now.digest));
    }
    text.push_str(&format!("  rotated TLS certificates:  {}/{} nodes\n", now.certificates, now.nodes));
    text.push_str(&format!("  rotated CA certificates:   {}/{} nodes\n", now.roots, now.nodes));
    if in_place || !awaited.is_empty() {
        text.push_str(&format!("  waiting for: {}\n", if awaited.is_empty() { "nobody" } else { &awaited }));
    }
    text
}

// === impl CaArgs ===

impl CaArgs {
    /// Flags that make no sense together, in Docker's words.
    fn check(&self) -> Result<(), CliError> {
        let given = [
            ("ca-cert", self.ca_cert.is_some()),
            ("ca-key", self.ca_key.is_some()),
            ("cert-expiry", self.cert_expiry.is_some()),
            ("external-ca", !self.external_ca.is_empty()),
        ];
        if let (false, Some((flag, _))) = (self.rotate, given.iter().find(|(_, given)| *given)) {
            return Err(CliError::text(format!("`--{flag}` flag requires the `--rotate` flag to update the CA")));
        }
        if !self.external_ca.is_empty() && self.ca_cert.is_none() {
            return Err(CliError::text(
                "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - to add an \
                 external CA with the current root CA certificate, use the `update` command instead",
            ));
        }
        match (&self.ca_cert, &self.ca_key) {
            (Some(_), None) if self.external_ca.is_empty() => Err(CliError::text(
                "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well",
            )),
            (None, Some(_)) => {
                Err(CliError::text("the --ca-key flag requires that a --ca-cert flag be provided as well"))
            }
            _ => Ok(()),
        }
    }

    async fn read(&self, ctx: &Context) -> Result<Option<(String, String)>, CliError> {
        let Some(cert) = &self.ca_cert else { return Ok(None) };
        let key = match &self.ca_key {
            Some(key) => ctx.read_text(key).await?,
            None => String::new(),
        };
        Ok(Some((ctx.read_text(cert).await?, key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(root: &str, issuer: &str) -> TlsInfo {
        TlsInfo {
            trust_root: root.into(),
            cert_issuer_subject: "subject".into(),
            cert_issuer_public_key: issuer.into(),
        }
    }

    fn node(name: &str, state: &str, root: &str, issuer: &str) -> Node {
        let mut node = Node { id: format!("id of {name}"), ..Node::default() };
        node.description.hostname = name.into();
        node.description.tls_info = tls(root, issuer);
        node.status.state = state.into();
        node
    }

    #[test]
    fn a_change_is_followed_as_docker_follows_it() {
        let before = [node("a", "ready", "old", "k1"), node("b", "down", "old", "k1")];
        let half = [node("a", "ready", "old new", "k2"), node("b", "down", "old", "k1")];
        let moved = [node("a", "ready", "old new", "k2"), node("b", "ready", "old new", "k2")];
        let last = [node("a", "ready", "new", "k2"), node("b", "ready", "old new", "k2")];
        let all = [node("a", "ready", "new", "k2"), node("b", "ready", "new", "k2")];
        for (what, wanted, rotating, nodes, certificates, roots, awaited, done) in [
            ("begun", tls("old", "k2"), true, &before, 0, 0, vec!["a", "b (down: bring it back or remove it)"], false),
            ("half", tls("old", "k2"), true, &half, 1, 0, vec!["b (down: bring it back or remove it)"], false),
            ("all certificates", tls("old", "k2"), true, &moved, 2, 0, vec![], false),
            ("the old root is gone", tls("new", "k2"), false, &last, 2, 1, vec!["b"], false),
            ("done", tls("new", "k2"), false, &all, 2, 2, vec![], true),
        ] {
            let seen = progress(&wanted, rotating, nodes);
            assert_eq!((seen.certificates, seen.roots, seen.nodes), (certificates, roots, 2), "{what}");
            assert_eq!((seen.awaited, seen.done), (awaited.iter().map(ToString::to_string).collect(), done), "{what}");
        }
    }

    #[test]
    fn lines_are_written_over_on_a_terminal_and_one_after_the_other_elsewhere() {
        let nodes: Vec<Node> = (0..7).map(|n| node(&format!("n{n}"), "ready", "old", "k1")).collect();
        let first = progress(&tls("old", "k2"), true, &nodes);
        let text = paint(&first, None, false);
        assert_eq!(text.lines().count(), 4);
        assert!(text.ends_with("  waiting for: n0, n1, n2, n3, n4, …\n"), "{text}");
        let second = Progress { certificates: 7, awaited: vec![], ..first.clone() };
        assert_eq!(
            paint(&second, Some(&first), false),
            "  rotated TLS certificates:  7/7 nodes\n  rotated CA certificates:   0/7 nodes\n"
        );
        assert!(paint(&second, Some(&first), true).starts_with("\x1b[4A\x1b[Jdesired root digest: sha256:"));
        assert_eq!(paint(&second, None, true).lines().count(), 4, "always as many as are written over");
    }

    #[test]
    fn a_new_root_is_asked_for_or_given() {
        let mut spec = SwarmSpec::default();
        ask(&mut spec, None, None);
        assert_eq!(spec.ca_config.force_rotate, 1);
        ask(&mut spec, Some(GoDuration(7)), Some(("cert".into(), "key".into())));
        let config = &spec.ca_config;
        assert_eq!(
            (config.force_rotate, config.signing_ca_cert.as_str(), config.node_cert_expiry),
            (1, "cert", GoDuration(7))
        );
        assert_eq!(config.signing_ca_key.0, "key");
    }

    #[test]
    fn flags_that_make_no_sense_are_refused_in_dockers_words() {
        let none = || CaArgs {
            ca_cert: None,
            ca_key: None,
            cert_expiry: None,
            detach: false,
            external_ca: vec![],
            quiet: false,
            rotate: true,
        };
        let external = || vec![opts::external_ca("protocol=cfssl,url=https://ca").unwrap()];
        assert!(none().check().is_ok());
        assert!(CaArgs { ca_cert: Some("c".into()), external_ca: external(), ..none() }.check().is_ok());
        for (args, words) in [
            (
                CaArgs { rotate: false, ca_cert: Some("c".into()), ..none() },
                "`--ca-cert` flag requires the `--rotate` flag to update the CA",
            ),
            (
                CaArgs { ca_cert: Some("c".into()), ..none() },
                "the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well",
            ),
            (CaArgs { ca_key: Some("k".into()), ..none() }, "the --ca-key flag requires that a --ca-cert flag"),
            (
                CaArgs { external_ca: external(), ..none() },
                "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert",
            ),
            (
                CaArgs { external_ca: external(), rotate: false, ..none() },
                "`--external-ca` flag requires the `--rotate` flag to update the CA",
            ),
        ] {
            let refused = args.check().unwrap_err().to_string();
            assert!(refused.starts_with(words), "{refused}");
        }
    }
}
