//! `--secret` and `--config`: the daemon wants ids beside the names.

use super::flags::Flags;
use crate::context::Context;
use crate::error::CliError;
use crate::opts;
use docker_api::{ConfigReference, ContainerSpec, FileTarget, SecretOrConfig, SecretReference};
use std::collections::{BTreeMap, BTreeSet};

/// `service create --secret … --config …`
pub(crate) async fn create(ctx: &Context, flags: &Flags, c: &mut ContainerSpec) -> Result<(), CliError> {
    c.secrets = resolve(ctx, "secret", flags.many::<SecretReference>("secret")).await?;
    c.configs = resolve(ctx, "config", flags.many::<ConfigReference>("config")).await?;
    Ok(())
}

/// `service update --secret-rm … --secret-add …`, and of configs: what is removed goes first, so that one flag each can
/// replace a reference.
pub(crate) async fn update(ctx: &Context, flags: &Flags, c: &mut ContainerSpec) -> Result<(), CliError> {
    let gone = flags.many::<String>("secret-rm");
    c.secrets.retain(|r| !gone.contains(&r.secret_name));
    c.secrets.extend(resolve(ctx, "secret", flags.many::<SecretReference>("secret-add")).await?);
    let gone = flags.many::<String>("config-rm");
    c.configs.retain(|r| !gone.contains(&r.config_name));
    c.configs.extend(resolve(ctx, "config", flags.many::<ConfigReference>("config-add")).await?);
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
