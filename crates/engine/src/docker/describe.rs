//! What Docker says of itself and its machine, in our terms.

use bollard::models::{GenericResourcesInner, SystemInfo};
use model::{EngineDescription, GenericResource, NodeDescription, Platform, Resources};
use std::collections::BTreeSet;

/// `managed`: the plugins that the engine runs itself, as (type, name), which it does not tell with the others. `besides`: what
/// the machine has by our own settings, which count for a kind that both know.
pub(super) fn node(info: SystemInfo, managed: Vec<(String, String)>, besides: &[GenericResource]) -> NodeDescription {
    let generic = info.generic_resources.unwrap_or_default().into_iter().filter_map(generic);
    let generic = generic.filter(|g| besides.iter().all(|b| b.kind() != g.kind())).chain(besides.iter().cloned());
    let plugins = info.plugins.unwrap_or_default();
    // By kind and name, as Docker's nodes list them.
    let kinds = [
        ("Authorization", plugins.authorization),
        ("Log", plugins.log),
        ("Network", plugins.network),
        ("Volume", plugins.volume),
    ];
    let pairs = |(kind, names): (&str, Option<Vec<String>>)| {
        names.unwrap_or_default().into_iter().map(|name| (kind.to_owned(), name)).collect::<Vec<_>>()
    };
    let plugins: BTreeSet<(String, String)> = kinds.into_iter().flat_map(pairs).chain(managed).collect();
    let labels = info.labels.unwrap_or_default();
    let label = |l: String| l.split_once('=').map_or((l.clone(), String::new()), |(k, v)| (k.to_owned(), v.to_owned()));
    NodeDescription {
        hostname: info.name.unwrap_or_default(),
        platform: Platform {
            architecture: info.architecture.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
        },
        resources: Resources {
            nano_cpus: info.ncpu.unwrap_or_default().saturating_mul(1_000_000_000),
            memory_bytes: info.mem_total.unwrap_or_default(),
        },
        generic: generic.collect(),
        engine: EngineDescription {
            version: info.server_version.unwrap_or_default(),
            labels: labels.into_iter().map(label).collect(),
            plugins: plugins.into_iter().collect(),
        },
        tls: None,
    }
}

/// dockerd's `node-generic-resources`; one without a kind or a value is none.
fn generic(resource: GenericResourcesInner) -> Option<GenericResource> {
    if let Some(named) = resource.named_resource_spec {
        return Some(GenericResource::Named { kind: named.kind?, value: named.value? });
    }
    let discrete = resource.discrete_resource_spec?;
    Some(GenericResource::Discrete { kind: discrete.kind?, amount: discrete.value? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_says_of_its_machine_is_understood() {
        let json = r#"{"Name":"n1","NCPU":2,"MemTotal":1024,"OSType":"linux","Architecture":"x86_64","ServerVersion":"20.10",
            "Labels":["zone=a=b","bare"],"Plugins":{"Volume":["local"],"Network":["bridge"],"Authorization":null,"Log":["syslog","json-file"]},
            "GenericResources":[{"NamedResourceSpec":{"Kind":"GPU","Value":"u1"}},
                {"DiscreteResourceSpec":{"Kind":"SSD","Value":3}},{"NamedResourceSpec":{"Kind":"GPU"}}]}"#;
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(
            node(serde_json::from_str(json).unwrap(), vec![pair("Volume", "nfs:latest")], &[]),
            NodeDescription {
                hostname: "n1".into(),
                platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
                resources: Resources { nano_cpus: 2_000_000_000, memory_bytes: 1024 },
                generic: vec![
                    GenericResource::Named { kind: "GPU".into(), value: "u1".into() },
                    GenericResource::Discrete { kind: "SSD".into(), amount: 3 },
                ],
                engine: EngineDescription {
                    version: "20.10".into(),
                    labels: [pair("zone", "a=b"), pair("bare", "")].into(),
                    plugins: vec![
                        pair("Log", "json-file"),
                        pair("Log", "syslog"),
                        pair("Network", "bridge"),
                        pair("Volume", "local"),
                        pair("Volume", "nfs:latest"),
                    ],
                },
                tls: None,
            }
        );
        let ssds = [GenericResource::Discrete { kind: "SSD".into(), amount: 5 }];
        let generic = node(serde_json::from_str(json).unwrap(), Vec::new(), &ssds).generic;
        let kinds: Vec<&str> = generic.iter().map(GenericResource::kind).collect();
        assert_eq!((kinds, &generic[1..]), (vec!["GPU", "SSD"], &ssds[..]), "our own settings count");
    }
}
