//! `/secrets` and `/configs`: list, inspect, create, update, remove. A secret's data goes into the store and comes out at no
//! endpoint; a config's does.

use crate::reply::{Reply, empty, json, json_with};
use crate::request::{ApiVersion, Request};
use crate::{Api, convert, lookup, read};
use control::grants;
use docker_api::errors::Code;
use docker_api::{Driver, Failure, Filters, IdResponse, SecretOrConfig, SecretOrConfigSpec};
use http::StatusCode;
use model::{Config, ConfigSpec, ContainerSpec, Data, Secret, SecretSpec, ServiceSpec, Template, Templating, UpdateBy};
use seams::RandExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Conflict, ProposeError, Snapshot, Transaction};

/// The first version of the API that has templates.
const TEMPLATING_SINCE: ApiVersion = ApiVersion(1, 37);
/// All secrets' and configs' data together, versions that are still in use included. Every manager holds them in memory, and a
/// snapshot beyond 512 MiB would be taken by no manager and restored from no backup; this leaves room for all else. It is judged
/// by what this manager knows, so that requests at the same moment may exceed it by a little.
const DATA_BYTES_IN_ALL_MAX: usize = 128 << 20;
/// How often a removal is judged again because a service came to use it meanwhile.
const ATTEMPTS: usize = 4;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Secrets.
    Secrets,
    /// Configs.
    Configs,
}

/// One of either.
#[derive(Debug, Clone)]
enum Either {
    Secret(Arc<Secret>),
    Config(Arc<Config>),
}

// === impl Which ===

impl Which {
    /// Docker's word for one.
    fn word(self) -> &'static str {
        match self {
            Which::Secrets => "secret",
            Which::Configs => "config",
        }
    }

    /// 404 where the version of the API that the client speaks has no such thing.
    fn check_version(self, request: &Request) -> Result<(), Failure> {
        let since = match self {
            Which::Secrets => ApiVersion(1, 25),
            Which::Configs => ApiVersion(1, 30),
        };
        match request.path.version {
            Some(version) if version < since => Err(Failure::page_not_found()),
            _ => Ok(()),
        }
    }

    fn all(self, snapshot: &Snapshot) -> Box<dyn Iterator<Item = Either> + '_> {
        match self {
            Which::Secrets => Box::new(snapshot.secrets().cloned().map(Either::Secret)),
            Which::Configs => Box::new(snapshot.configs().cloned().map(Either::Config)),
        }
    }

    /// By id, else by name, else by the beginning of an id.
    fn find(self, snapshot: &Snapshot, what: &str) -> Result<Either, Failure> {
        let exactly = match self {
            Which::Secrets => {
                let by_id = what.parse().ok().and_then(|id| snapshot.secret(&id));
                let found = by_id.or_else(|| what.parse().ok().and_then(|name| snapshot.secret_named(&name)));
                found.cloned().map(Either::Secret)
            }
            Which::Configs => {
                let by_id = what.parse().ok().and_then(|id| snapshot.config(&id));
                let found = by_id.or_else(|| what.parse().ok().and_then(|name| snapshot.config_named(&name)));
                found.cloned().map(Either::Config)
            }
        };
        if let Some(found) = exactly {
            return Ok(found);
        }
        let beginning: Vec<Either> = self.all(snapshot).filter(|e| e.id().starts_with(what)).collect();
        lookup::only(self.word(), what, beginning.iter()).cloned()
    }

    fn data(self, bytes: Vec<u8>) -> Result<Data, Failure> {
        match self {
            Which::Secrets => Data::of_secret(bytes),
            Which::Configs => Data::of_config(bytes),
        }
        .map_err(Failure::invalid)
    }

    /// Docker's secrets may live in a plugin; a config has no such field, and what there is none of is not looked at.
    fn check_driver(self, driver: Option<&Driver>) -> Result<(), Failure> {
        match driver {
            Some(d) if self == Which::Secrets && d.name.is_empty() => {
                Err(Failure::invalid("secret driver must have a name"))
            }
            Some(_) if self == Which::Secrets => Err(Failure::bad_request(
                "Driver is not supported by this release of Swarmlite: secrets are kept by the swarm itself; leave it out, and give the secret its data",
            )),
            _ => Ok(()),
        }
    }
}

// === impl Either ===

impl Either {
    fn id(&self) -> &str {
        match self {
            Either::Secret(s) => s.id.as_str(),
            Either::Config(c) => c.id.as_str(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Either::Secret(s) => s.spec.name.as_str(),
            Either::Config(c) => c.spec.name.as_str(),
        }
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        match self {
            Either::Secret(s) => &s.spec.labels,
            Either::Config(c) => &c.spec.labels,
        }
    }

    fn templating(&self) -> Option<Templating> {
        match self {
            Either::Secret(s) => s.spec.templating,
            Either::Config(c) => c.spec.templating,
        }
    }

    fn version(&self) -> u64 {
        match self {
            Either::Secret(s) => s.meta.version,
            Either::Config(c) => c.meta.version,
        }
    }

    fn shown(&self, snapshot: &Snapshot) -> SecretOrConfig {
        match self {
            Either::Secret(s) => convert::secret(s),
            Either::Config(c) => convert::config(c, snapshot.payload(&c.payload_id()).map(|p| &p.data)),
        }
    }

    fn matches(&self, filters: &Filters) -> bool {
        filters.any("names", |n| self.name() == n)
            && filters.any("name", |n| self.name().starts_with(n))
            && filters.any("id", |id| self.id().starts_with(id))
            && filters.labels("label", self.labels())
    }
}

/// `GET /secrets`, `GET /configs`
pub(crate) async fn list(api: &Api, request: &Request, which: Which) -> Result<Reply, Failure> {
    which.check_version(request)?;
    let filters = request.query.filters()?;
    filters.allow_only(&["names", "name", "id", "label"])?;
    let snapshot = api.read(request).await?;
    let found = which.all(&snapshot).filter(|e| e.matches(&filters));
    Ok(json(&found.map(|e| e.shown(&snapshot)).collect::<Vec<_>>()))
}

/// `GET /secrets/{id}`, `GET /configs/{id}`
pub(crate) async fn inspect(api: &Api, request: &Request, which: Which, what: &str) -> Result<Reply, Failure> {
    which.check_version(request)?;
    let snapshot = api.read(request).await?;
    Ok(json(&which.find(&snapshot, what)?.shown(&snapshot)))
}

/// `POST /secrets/create`, `POST /configs/create`
pub(crate) async fn create(api: &Api, mut request: Request, which: Which) -> Result<Reply, Failure> {
    which.check_version(&request)?;
    let sent: SecretOrConfigSpec = request.json().await?;
    if let Some(version) = request.path.version.filter(|v| *v < TEMPLATING_SINCE && sent.templating.is_some()) {
        let kind = which.word();
        return Err(Failure::bad_request(format_args!(
            "{kind} templating is not supported on the specified API version: {version}"
        )));
    }
    let mut tx = api.transaction();
    let id = api.deps().seams.rand.id25();
    let bytes = sent.data.0.len();
    add_new(&mut tx, which, &id, sent)?;
    let store = api.store()?;
    check_room(&store.local(), bytes)?;
    store.propose(tx).await.map_err(read::propose_failure)?;
    Ok(json_with(StatusCode::CREATED, &IdResponse { id }))
}

/// There is room for that many more bytes of data.
fn check_room(snapshot: &Snapshot, bytes: usize) -> Result<(), Failure> {
    let held: usize = snapshot.payloads().map(|p| p.data.expose().len()).sum();
    if held.saturating_add(bytes) <= DATA_BYTES_IN_ALL_MAX {
        return Ok(());
    }
    Err(Failure::rpc(
        Code::FailedPrecondition,
        format_args!(
            "the secrets and configs of the swarm hold {held} bytes, and can hold {DATA_BYTES_IN_ALL_MAX} together: remove some that \
             no service uses"
        ),
    ))
}

fn add_new(tx: &mut Transaction, which: Which, id: &str, sent: SecretOrConfigSpec) -> Result<(), Failure> {
    which.check_driver(sent.driver.as_ref())?;
    let templating = convert::templating(sent.templating.as_ref())?;
    let labels = sent.labels;
    checked_labels(&labels)?;
    match which {
        Which::Secrets => {
            let name = sent.name.parse().map_err(Failure::invalid)?;
            let data = which.data(sent.data.0)?;
            checked_template(templating, &data)?;
            let id = id.parse().expect("id25 makes ids");
            grants::create_secret(tx, id, SecretSpec { name, labels, templating }, data);
        }
        Which::Configs => {
            let name = sent.name.parse().map_err(Failure::invalid)?;
            let data = which.data(sent.data.0)?;
            checked_template(templating, &data)?;
            let id = id.parse().expect("id25 makes ids");
            grants::create_config(tx, id, ConfigSpec { name, labels, templating }, data);
        }
    }
    Ok(())
}

/// A template that no task could be given is refused before it is kept.
fn checked_template(templating: Option<Templating>, data: &Data) -> Result<(), Failure> {
    match templating {
        Some(Templating::Golang) => Template::parse(data.expose()).map(drop).map_err(Failure::invalid),
        None => Ok(()),
    }
}

/// The label that is ours says something that can be done.
pub(crate) fn checked_labels(labels: &BTreeMap<String, String>) -> Result<(), Failure> {
    UpdateBy::of_labels(labels).map(drop).map_err(Failure::invalid)
}

/// `POST /secrets/{id}/update`, `POST /configs/{id}/update`: labels; and, beyond Docker, the data. No data is no change of
/// it, and neither is the same data, which is what a `docker stack deploy` of an unchanged stack sends.
pub(crate) async fn update(api: &Api, mut request: Request, which: Which, what: &str) -> Result<Reply, Failure> {
    which.check_version(&request)?;
    let sent: SecretOrConfigSpec = request.json().await?;
    let version = request.query.version(which.word())?;
    let (store, snapshot) = api.read_to_write().await?;
    let now = which.find(&snapshot, what)?;
    if sent.name != now.name() {
        return Err(Failure::only_labels());
    }
    which.check_driver(sent.driver.as_ref())?;
    if sent.templating.is_some() && convert::templating(sent.templating.as_ref())? != now.templating() {
        return Err(Failure::only_labels());
    }
    checked_labels(&sent.labels)?;
    let data = if sent.data.0.is_empty() { None } else { Some(which.data(sent.data.0)?) };
    if let Some(data) = &data {
        checked_template(now.templating(), data)?;
    }
    if version != now.version() {
        return Err(Failure::out_of_sequence());
    }
    let bytes = data.as_ref().map_or(0, |data| data.expose().len());
    let mut tx = api.transaction();
    let changed = match &now {
        Either::Secret(s) => grants::update_secret(&mut tx, &snapshot, s, sent.labels, data),
        Either::Config(c) => grants::update_config(&mut tx, &snapshot, c, sent.labels, data),
    };
    if changed.map_err(|e| Failure::rpc(Code::FailedPrecondition, e))? {
        check_room(&snapshot, bytes)?;
    }
    store.propose(tx).await.map_err(read::propose_failure)?;
    Ok(empty())
}

/// `DELETE /secrets/{id}`, `DELETE /configs/{id}`
pub(crate) async fn remove(api: &Api, request: &Request, which: Which, what: &str) -> Result<Reply, Failure> {
    which.check_version(request)?;
    for attempt in 1.. {
        let (store, snapshot) = api.read_to_write().await?;
        let mut tx = api.transaction();
        match which.find(&snapshot, what)? {
            Either::Secret(s) => grants::remove_secret(&mut tx, &snapshot, &s),
            Either::Config(c) => grants::remove_config(&mut tx, &snapshot, &c),
        }
        .map_err(Failure::invalid)?;
        match store.propose(tx).await {
            Ok(_) => {
                let mut reply = empty();
                *reply.status_mut() = StatusCode::NO_CONTENT;
                return Ok(reply);
            }
            // Changed, or in use since we looked: the caller named no version, so it is looked at again.
            Err(ProposeError::Conflict(Conflict::Referenced { .. } | Conflict::Changed { .. }))
                if attempt < ATTEMPTS => {}
            Err(e) => return Err(read::propose_failure(e)),
        }
    }
    unreachable!("the last attempt returns")
}

/// Refuses a service that is to be given what is not there, and makes the transaction depend on what is. `behind` is a state
/// that may be: what is not in it is looked for again.
pub(crate) async fn check_granted(
    api: &Api,
    behind: &Snapshot,
    spec: &ServiceSpec,
    tx: &mut Transaction,
) -> Result<(), Failure> {
    let Some(container) = spec.task.container() else { return Ok(()) };
    if are_there(behind, container).is_err() {
        are_there(&api.read_to_write().await?.1, container)?;
    }
    grants::check_granted(tx, spec);
    Ok(())
}

/// What a container is to be given is there, under the names that it says.
fn are_there(snapshot: &Snapshot, c: &ContainerSpec) -> Result<(), Failure> {
    let is = |name: Option<&str>, said: &str| name == Some(said);
    let missing = c.secrets.iter().filter(|r| {
        let found = snapshot.secret(&r.secret_id);
        !is(found.map(|s| s.spec.name.as_str()), r.secret_name.as_str())
    });
    refuse("secret", missing.map(|r| r.secret_name.to_string()).collect())?;
    let missing = c.configs.iter().filter(|r| {
        let found = snapshot.config(&r.config_id);
        !is(found.map(|s| s.spec.name.as_str()), r.config_name.as_str())
    });
    refuse("config", missing.map(|r| r.config_name.to_string()).collect())
}

fn refuse(kind: &str, missing: Vec<String>) -> Result<(), Failure> {
    if missing.is_empty() { Ok(()) } else { Err(Failure::references_not_found(kind, &missing)) }
}
