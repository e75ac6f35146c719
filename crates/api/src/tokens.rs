//! `/swarmlite/tokens`: join tokens with an end. Only a digest is stored; the text is in the answer to its creation and
//! nowhere else.

use crate::cluster::no_cluster;
use crate::reply::{Reply, json, json_with};
use crate::request::Request;
use crate::{Api, read};
use docker_api::errors::Code;
use docker_api::{Failure, GoTime, Secret, TokenCreateRequest, TokenCreateResponse, TokenSummary};
use http::StatusCode;
use model::{Cluster, ExtraToken, Role, Timestamp, limits};
use seams::RandExt as _;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use store::{Conflict, ProposeError};

/// How often a change is tried again when the cluster object was changed at the same moment.
const ATTEMPTS: usize = 8;

/// `GET /swarmlite/tokens`
pub(crate) async fn list(api: &Api, request: &Request) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let cluster = snapshot.cluster().ok_or_else(no_cluster)?;
    let (now, root) = (api.now(), root_digest(cluster));
    let mut live: Vec<_> = cluster.security.tokens.iter().filter(|(_, token)| !token.is_over(now)).collect();
    live.sort_by_key(|(_, token)| token.created_at);
    let shown: Vec<TokenSummary> = live.into_iter().map(|(id, token)| summary(id, token, root)).collect();
    Ok(json(&shown))
}

fn summary(id: &str, token: &ExtraToken, root: &str) -> TokenSummary {
    let time = |t: Timestamp| GoTime::from_unix_ns(t.0);
    TokenSummary {
        id: id.to_owned(),
        role: word(token.role).into(),
        created_at: time(token.created_at),
        expires_at: token.expires_at.map(time),
        uses_left: token.uses_left.map(u64::from),
        labels: token.labels.clone(),
        old_root: token.root_digest != root,
    }
}

/// `POST /swarmlite/tokens`
pub(crate) async fn create(api: &Api, mut request: Request) -> Result<Reply, Failure> {
    let sent: TokenCreateRequest = request.json().await?;
    let wanted = Wanted::parse(sent)?;
    let rand = &api.deps().seams.rand;
    let (id, secret) = (rand.id25(), rand.id25());
    let mut text = String::new();
    change(api, |cluster, now| {
        if cluster.security.tokens.len() >= limits::JOIN_TOKENS_MAX {
            let max = limits::JOIN_TOKENS_MAX;
            return Err(Failure::rpc(
                Code::FailedPrecondition,
                format_args!(
                    "there are {max} join tokens already, the most there can be; revoke one that is not needed any more"
                ),
            ));
        }
        let root = root_digest(cluster).to_owned();
        text = format!("SWMTKN-1-{root}-{secret}");
        cluster.security.tokens.insert(
            id.clone(),
            ExtraToken {
                role: wanted.role,
                digest: Sha256::digest(text.as_bytes()).into(),
                created_at: now,
                expires_at: wanted.ttl.map(|ttl| now.plus(ttl)),
                uses_left: wanted.uses,
                labels: wanted.labels.clone(),
                root_digest: root,
            },
        );
        Ok(())
    })
    .await?;
    Ok(json_with(StatusCode::CREATED, &TokenCreateResponse { id, token: Secret(text) }))
}

/// `DELETE /swarmlite/tokens/{id}`: from now on it admits nobody. Nodes that it has admitted stay.
pub(crate) async fn revoke(api: &Api, id: &str) -> Result<Reply, Failure> {
    change(api, |cluster, _| {
        let tokens = &mut cluster.security.tokens;
        let shown: String = id.chars().take(128).collect();
        let mut found = tokens.keys().filter(|k| !id.is_empty() && k.starts_with(id));
        let full = match (found.next().cloned(), found.count()) {
            (None, _) => return Err(Failure::not_found("token", &shown)),
            (Some(full), 0) => full,
            (Some(_), more) => return Err(Failure::ambiguous("token", &shown, more + 1)),
        };
        tokens.remove(&full);
        Ok(())
    })
    .await?;
    Ok(json_with(StatusCode::NO_CONTENT, &()).map(|_| crate::reply::full("")))
}

/// What a request asks for, checked.
struct Wanted {
    role: Role,
    ttl: Option<std::time::Duration>,
    uses: Option<u32>,
    labels: BTreeMap<String, String>,
}

// === impl Wanted ===

impl Wanted {
    fn parse(sent: TokenCreateRequest) -> Result<Wanted, Failure> {
        let role = match sent.role.as_str() {
            "worker" => Role::Worker,
            "manager" => Role::Manager,
            other => {
                let shown: String = other.chars().take(64).collect();
                return Err(Failure::invalid(format_args!("unknown role {shown:?}: must be worker or manager")));
            }
        };
        let ttl = sent
            .ttl
            .to_std()
            .ok_or_else(|| Failure::invalid("TTL must not be negative; leave it out for a token without an end"))?;
        let uses = u32::try_from(sent.uses).map_err(|_| {
            Failure::invalid(format_args!("Uses must be at most {}; leave it out for any number", u32::MAX))
        })?;
        check_labels(&sent.labels)?;
        Ok(Wanted {
            role,
            ttl: Some(ttl).filter(|t| !t.is_zero()),
            uses: Some(uses).filter(|n| *n > 0),
            labels: sent.labels,
        })
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Failure> {
    let bytes: usize = labels.iter().map(|(k, v)| k.len() + v.len()).sum();
    if labels.len() > limits::JOIN_TOKEN_LABELS_MAX || bytes > limits::JOIN_TOKEN_LABEL_BYTES_MAX {
        return Err(Failure::invalid(format_args!(
            "a join token gives at most {} labels of {} bytes together, these are {} of {bytes} bytes",
            limits::JOIN_TOKEN_LABELS_MAX,
            limits::JOIN_TOKEN_LABEL_BYTES_MAX,
            labels.len()
        )));
    }
    match labels
        .iter()
        .find(|(k, v)| k.trim().is_empty() || k.contains(char::is_control) || v.contains(char::is_control))
    {
        Some((key, _)) => {
            Err(Failure::invalid(format_args!("invalid label {key:?}: it needs a name, and no control characters")))
        }
        None => Ok(()),
    }
}

/// Changes the cluster object, and forgets the tokens that are over. For changes of which the caller has seen nothing before: they
/// are made again when somebody else changes the object at the same moment.
pub(crate) async fn change(
    api: &Api,
    mut what: impl FnMut(&mut Cluster, Timestamp) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for _ in 0..ATTEMPTS {
        let (store, snapshot) = api.read_to_write().await?;
        let mut tx = api.transaction();
        let mut cluster = Cluster::clone(snapshot.cluster().ok_or_else(no_cluster)?);
        cluster.security.forget_old_tokens(tx.at);
        what(&mut cluster, tx.at)?;
        tx.update(cluster);
        match store.propose(tx).await {
            Ok(_) => return Ok(()),
            // Somebody joined, or the swarm was updated: nothing of what the caller saw is at stake.
            Err(ProposeError::Conflict(Conflict::Changed { .. })) => {}
            Err(e) => return Err(read::propose_failure(e)),
        }
    }
    Err(Failure::rpc(Code::Unavailable, "the swarm is being changed too often at the moment; try again"))
}

/// The digest that the standing tokens name: that of the root which joiners are to find. `SWMTKN-1-<digest>-<secret>`.
fn root_digest(cluster: &Cluster) -> &str {
    cluster.join_tokens.worker.split('-').nth(2).unwrap_or_default()
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    }
}
