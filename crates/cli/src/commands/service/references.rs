//! `--secret`, `--config` and `--network`: the daemon wants ids beside the names.

use super::flags::Flags;
use crate::client::escape;
use crate::context::Context;
use crate::error::CliError;
use crate::opts;
use docker_api::{
    ConfigReference, ContainerSpec, FileTarget, NetworkAttachmentConfig, SecretOrConfig, SecretReference, TaskSpec,
};
use std::collections::{BTreeMap, BTreeSet};

/// `service create --secret … --config … --network … --credential-spec config://…`
pub(crate) async fn create(ctx: &Context, flags: &Flags, task: &mut TaskSpec) -> Result<(), CliError> {
    networks(ctx, &mut task.networks).await;
    let c = task.container_spec.get_or_insert_default();
    c.secrets = resolve(ctx, "secret", flags.many::<SecretReference>("secret")).await?;
    let mut configs = flags.many::<ConfigReference>("config");
    configs.extend(credential_config(c));
    c.configs = resolve(ctx, "config", configs).await?;
    set_credential_id(c);
    Ok(())
}

/// `service update --secret-rm … --secret-add …`, and of configs: what is removed goes first, so that one flag each can
/// replace a reference.
pub(crate) async fn update(ctx: &Context, flags: &Flags, task: &mut TaskSpec) -> Result<(), CliError> {
    update_networks(ctx, flags, &mut task.networks).await?;
    if task.plugin_spec.is_some() {
        let given = ["secret-add", "secret-rm", "config-add", "config-rm"].into_iter().find(|flag| flags.given(flag));
        return given.map_or(Ok(()), |flag| {
            Err(CliError::text(format!(
                "--{flag}: the tasks of this service are plugins, which are given no secrets and configs"
            )))
        });
    }
    let c = task.container_spec.get_or_insert_default();
    let gone = flags.many::<String>("secret-rm");
    c.secrets.retain(|r| !gone.contains(&r.secret_name));
    c.secrets.extend(resolve(ctx, "secret", flags.many::<SecretReference>("secret-add")).await?);
    let gone = flags.many::<String>("config-rm");
    // A config for the engine itself goes with what it is for, which is the credentials alone.
    c.configs.retain(|r| r.runtime.is_some() || !gone.contains(&r.config_name));
    let mut configs = flags.many::<ConfigReference>("config-add");
    if flags.given("credential-spec") {
        c.configs.retain(|r| r.runtime.is_none());
        configs.extend(credential_config(c));
    }
    c.configs.extend(resolve(ctx, "config", configs).await?);
    if flags.given("credential-spec") {
        set_credential_id(c);
    }
    Ok(())
}

/// The config that holds the credentials, when that is where they are. Until it is resolved, its name stands for its id.
fn credential_config(c: &ContainerSpec) -> Option<ConfigReference> {
    let spec = c.privileges.as_ref()?.credential_spec.as_ref()?;
    (!spec.config.is_empty()).then(|| ConfigReference {
        config_name: spec.config.clone(),
        runtime: Some(serde_json::json!({})),
        ..ConfigReference::default()
    })
}

fn set_credential_id(c: &mut ContainerSpec) {
    let spec = c.privileges.as_mut().and_then(|p| p.credential_spec.as_mut());
    let config = c.configs.iter().find(|r| r.runtime.is_some());
    if let (Some(spec), Some(config)) = (spec.filter(|s| !s.config.is_empty()), config) {
        spec.config.clone_from(&config.config_id);
    }
}

/// Puts ids in the place of the networks' names. A network that the daemon does not show keeps its name: the daemon is the
/// one to say what is wrong with it.
async fn networks(ctx: &Context, networks: &mut [NetworkAttachmentConfig]) {
    for network in networks.iter_mut() {
        network.target = network_id(ctx, &network.target).await;
    }
    networks.sort_by(|a, b| a.target.cmp(&b.target));
}

async fn network_id(ctx: &Context, name: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Found {
        #[serde(rename = "Id", default)]
        id: String,
    }
    let path = format!("/networks/{}", escape(name));
    let found = ctx.client.get::<Found>(&path, &[("scope", "swarm".to_owned())]).await;
    found.map(|f| f.id).ok().filter(|id| !id.is_empty()).unwrap_or_else(|| name.to_owned())
}

async fn update_networks(
    ctx: &Context,
    flags: &Flags,
    attached: &mut Vec<NetworkAttachmentConfig>,
) -> Result<(), CliError> {
    let added = flags.many::<NetworkAttachmentConfig>("network-add").into_iter().map(|n| n.target);
    let mut ids = BTreeMap::new();
    for name in flags.many::<String>("network-rm").into_iter().chain(added) {
        let id = network_id(ctx, &name).await;
        ids.insert(name, id);
    }
    attach(flags, attached, &ids)
}

/// `--network-rm` and `--network-add`. `ids` has the networks whose ids are known, by name.
pub(super) fn attach(
    flags: &Flags,
    attached: &mut Vec<NetworkAttachmentConfig>,
    ids: &BTreeMap<String, String>,
) -> Result<(), CliError> {
    if !flags.any_given(&["network-add", "network-rm"]) {
        return Ok(());
    }
    let id = |name: &String| ids.get(name).unwrap_or(name).clone();
    for name in flags.many::<String>("network-rm") {
        attached.retain(|n| n.target != id(&name) && n.target != name);
    }
    for mut new in flags.many::<NetworkAttachmentConfig>("network-add") {
        let name = std::mem::take(&mut new.target);
        new.target = id(&name);
        if attached.iter().any(|n| n.target == new.target) {
            return Err(CliError::text(format!("service is already attached to network {name}")));
        }
        attached.push(new);
    }
    attached.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(())
}

/// A reference of either kind.
trait Reference {
    fn name(&self) -> &str;
    fn file(&self) -> Option<&FileTarget>;
    fn set_id(&mut self, id: String);
}

impl Reference for SecretReference {
    fn name(&self) -> &str {
        &self.secret_name
    }
    fn file(&self) -> Option<&FileTarget> {
        self.file.as_ref()
    }
    fn set_id(&mut self, id: String) {
        self.secret_id = id;
    }
}

impl Reference for ConfigReference {
    fn name(&self) -> &str {
        &self.config_name
    }
    fn file(&self) -> Option<&FileTarget> {
        self.file.as_ref()
    }
    fn set_id(&mut self, id: String) {
        self.config_id = id;
    }
}

/// Fills in the ids, having asked for all of them at once.
async fn resolve<R: Reference>(ctx: &Context, kind: &str, mut wanted: Vec<R>) -> Result<Vec<R>, CliError> {
    let mut targets = BTreeSet::new();
    if let Some(twice) = wanted.iter().find(|r| r.file().is_some_and(|f| !targets.insert(f.name.clone()))) {
        return Err(CliError::text(format!("duplicate {kind} target for {} not allowed", twice.name())));
    }
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let names: Vec<(String, String)> = wanted.iter().map(|r| ("name".to_owned(), r.name().to_owned())).collect();
    let found: Vec<SecretOrConfig> = ctx.client.get(&format!("/{kind}s"), &opts::filters_query(&names)).await?;
    let ids: BTreeMap<String, String> = found.into_iter().map(|s| (s.spec.name, s.id)).collect();
    for reference in &mut wanted {
        let Some(id) = ids.get(reference.name()) else {
            return Err(CliError::text(format!("{kind} not found: {}", reference.name())));
        };
        reference.set_id(id.clone());
    }
    Ok(wanted)
}
