//! What several modules' tests need.

use model::{Cluster, ClusterSpec, GossipKey, Meta};
use seams::RandExt as _;
use seams::real::OsRand;
use std::time::Duration;

/// A cluster as a founder makes it, in November 2023.
pub(crate) fn cluster() -> Cluster {
    let root_ca = ca::generate_root(Duration::from_secs(1_700_000_000), &OsRand).expect("a root");
    Cluster {
        id: OsRand.id25().parse().expect("an id"),
        meta: Meta::default(),
        spec: ClusterSpec::default(),
        join_tokens: ca::generate_join_tokens(&root_ca.cert_pem, &OsRand),
        root_ca,
        gossip_keys: vec![GossipKey { id: 1, key: [1; 32] }],
        default_addr_pool: vec!["10.0.0.0/8".into()],
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: Default::default(),
        security: Default::default(),
    }
}
