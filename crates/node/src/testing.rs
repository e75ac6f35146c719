//! What several modules' tests need.

use crate::world::{SledLogs, World};
use async_trait::async_trait;
use bytes::Bytes;
use engine::EmbeddedEngine;
use engine::embedded::EmbeddedOptions;
use model::{Cluster, ClusterSpec, GossipKey, Meta};
use seams::real::OsRand;
use seams::{Disk, RandExt as _};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

struct Loopback;

impl crate::Interfaces for Loopback {
    fn addresses(&self) -> Vec<(String, IpAddr)> {
        vec![("lo".into(), "127.65.0.1".parse().expect("an address"))]
    }
}

/// This machine, without an engine.
pub(crate) fn world() -> World {
    let seams = seams::real::seams();
    let engine = EmbeddedEngine::new(EmbeddedOptions::default(), seams.clock.clone(), seams.rand.clone());
    World {
        seams,
        engine: Arc::new(engine),
        engine_api: None,
        interfaces: Arc::new(Loopback),
        raft_logs: Arc::new(SledLogs),
    }
}

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

/// A disk that gets full just when a membership is to be written, and that takes its time to write: it finishes what nobody
/// waits for any more, as a thread that writes does.
pub(crate) struct OddDisk {
    inner: Arc<dyn Disk>,
    /// So many memberships are refused.
    pub(crate) refusals: AtomicU32,
    delay: Duration,
}

impl OddDisk {
    pub(crate) fn new(inner: Arc<dyn Disk>, delay: Duration) -> Arc<OddDisk> {
        Arc::new(OddDisk { inner, refusals: AtomicU32::new(0), delay })
    }
}

#[async_trait]
impl Disk for OddDisk {
    async fn read(&self, path: &Path) -> io::Result<Option<Bytes>> {
        self.inner.read(path).await
    }

    #[allow(clippy::disallowed_methods)] // the write outlives whoever asked for it
    async fn write_atomic(&self, path: &Path, bytes: Bytes, mode: u32) -> io::Result<()> {
        let refuse = |left: u32| left.checked_sub(1);
        let refused = || self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok();
        if path.ends_with("node.json") && refused() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (inner, path, delay) = (self.inner.clone(), path.to_owned(), self.delay);
        let written = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            inner.write_atomic(&path, bytes, mode).await
        });
        written.await.map_err(io::Error::other)?
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir).await
    }

    async fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir(dir).await
    }

    async fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.remove_dir(dir).await
    }
}
