//! Tasks that are plugins: Docker's JSON to the model and back. Docker takes such services only from daemons that run with
//! `experimental`; the refusals are its words (moby `daemon/cluster/convert`), but that what a node would refuse, and what a
//! plugin cannot have, is refused at once.

use super::image::is_reference;
use docker_api::{Failure, Filters};
use model::{HostAccess, PluginPrivilege, PluginSpec, RegistryAuth, TaskSpec};

/// The mode of a service of plugins: one on each node, also when nothing was said.
pub(super) fn mode(mode: docker_api::ServiceMode) -> Result<docker_api::ServiceMode, Failure> {
    if mode.replicated.is_some() {
        return Err(Failure::bad_request("plugins must not use replicated mode"));
    }
    Ok(docker_api::ServiceMode { global: Some(docker_api::GlobalService {}), ..mode })
}

/// A plugin, with the registry's credentials.
pub(super) fn plugin_in(p: docker_api::PluginSpec, auth: Option<RegistryAuth>) -> Result<PluginSpec, Failure> {
    if p == docker_api::PluginSpec::default() {
        return Err(Failure::invalid("Generic runtime has an empty payload"));
    }
    if !is_reference(&p.remote) {
        return Err(Failure::invalid(format_args!(
            "PluginSpec: error parsing remote reference {:?}: invalid reference format",
            p.remote
        )));
    }
    if !p.name.is_empty() && (!is_reference(&p.name) || p.name.contains('@')) {
        return Err(Failure::invalid(format_args!(
            "PluginSpec: invalid plugin name {:?}: invalid reference format",
            p.name
        )));
    }
    if let Some(bad) = p.env.iter().position(|e| e.split_once('=').is_none_or(|(key, _)| key.is_empty())) {
        // Not the text: it may be a password that lacks its name.
        return Err(Failure::invalid(format_args!("PluginSpec: entry {bad} of Env is not KEY=value")));
    }
    let privileges =
        p.privileges.into_iter().map(|p| PluginPrivilege { name: p.name, description: p.description, value: p.value });
    Ok(PluginSpec {
        name: p.name,
        remote: p.remote,
        privileges: privileges.collect(),
        disabled: p.disabled,
        env: p.env,
        registry_auth: auth,
    })
}

/// Refuses what a service cannot have whose tasks are plugins.
pub(super) fn check(access: &HostAccess, endpoint: Option<&model::EndpointSpec>) -> Result<(), Failure> {
    if *access != HostAccess::default() {
        return Err(Failure::invalid(
            "the labels of the service give its containers access to their nodes, and its tasks are plugins: leave the labels \
             out, and say in PluginSpec.Privileges what the plugins may do",
        ));
    }
    if endpoint.is_some_and(|e| !e.ports.is_empty()) {
        return Err(Failure::invalid("EndpointSpec: a plugin publishes no ports: leave them out"));
    }
    Ok(())
}

/// A plugin, without credentials.
pub(super) fn plugin_out(p: &PluginSpec) -> docker_api::PluginSpec {
    let privileges = p.privileges.iter().map(|p| docker_api::PluginPrivilege {
        name: p.name.clone(),
        description: p.description.clone(),
        value: p.value.clone(),
    });
    docker_api::PluginSpec {
        name: p.name.clone(),
        remote: p.remote.clone(),
        privileges: privileges.collect(),
        disabled: p.disabled,
        env: p.env.clone(),
    }
}

/// Whether the `runtime` filter lets it through. As in Docker, only containers are shown to those who do not ask: clients take it
/// for granted that there is an image.
pub(crate) fn is_of_runtime(filters: &Filters, spec: &TaskSpec) -> bool {
    let word = spec.runtime.as_str();
    if filters.has("runtime") {
        filters.values("runtime").any(|wanted| wanted == word)
    } else {
        spec.plugin().is_none()
    }
}
