//! Backups: the whole replicated state in one sealed file, and the way back from it to a running cluster.
//!
//! ```text
//! clear:   "SWMLBAK1" | length u32 | head (JSON: format, cluster, when, Raft term and index, a check of the key)
//! sealed:  the state as `Store::encode` writes it                                       (context: all of the above)
//! ```
//! Numbers are big-endian. The state holds everything: the root's key, the join tokens, the unlock key, every secret.

use crate::addr::AddrError;
use crate::daemon::{DaemonError, MachineInterfaces, lock};
use crate::external_ca::Signers;
use crate::force_new::{ForceNewError, Founder, found, raft_of};
use crate::keys::DiskKeys;
use crate::node::Node;
use crate::state::{FORMAT as MEMBERSHIP_FORMAT, KnownManager, Layout, Membership, StateError};
use crate::world::{NodeConfig, SledLogs, World};
use crate::{addr, join};
use api::SwarmError;
use bytes::{BufMut as _, Bytes, BytesMut};
use ca::{Authority, CertificateGrant, Csr, Identity, NodeKey};
use engine::EmbeddedEngine;
use engine::embedded::EmbeddedOptions;
use model::{Cluster, ClusterId, NodeId, Role};
use raft::LogPosition;
use seal::{InvalidKey, Key, KeyForm, OpenError};
use seams::{RandExt as _, Seams};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use store::{Snapshot, Store, StoreClient as _};

/// The format that this release writes and reads.
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"SWMLBAK1";
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The longest backup: the longest snapshot that Raft sends (512 MiB), and what is around it.
pub const BACKUP_BYTES_MAX: usize = (512 << 20) + (1 << 20);
/// What a key opens that it fits.
const KEY_CHECK: &[u8] = b"backup key check";

/// What a backup is sealed under. Never shown by `Debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupKey(Key);

/// What can be read of a backup without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BackupHead {
    /// Format of the whole file.
    pub format: u32,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The manager that made it.
    pub node_id: NodeId,
    /// The release that made it.
    pub version: String,
    /// When, seconds since the Unix epoch, by that manager's clock.
    pub created_at: u64,
    /// The manager's Raft term.
    pub term: u64,
    /// The log index that the state reflects.
    pub index: u64,
    /// Hex; opens with the right key only.
    key_check: String,
}

/// A backup that was opened.
#[derive(Debug, Clone)]
pub struct Backup {
    /// What it says of itself.
    pub head: BackupHead,
    /// The state.
    pub state: Snapshot,
}

/// A backup that cannot be used. Each says why.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another kind of file.
    #[error("this is no backup of Swarmlite")]
    NotABackup,
    /// A newer release's.
    #[error(
        "the backup has format {found}, this release reads format {FORMAT}: use the release that made it, or a newer one"
    )]
    Format {
        /// Its format.
        found: u32,
    },
    /// It was cut off or changed.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The key is another backup's.
    #[error("the key does not fit this backup of cluster {cluster} (made at {created_at}, Unix time)")]
    WrongKey {
        /// The cluster.
        cluster: ClusterId,
        /// When it was made.
        created_at: u64,
    },
    /// The text is no key.
    #[error(transparent)]
    Key(#[from] InvalidKey),
}

/// A restore that was not done. The data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The directory is in use.
    #[error(
        "the data directory {path} is not empty (it holds {found}): a backup is restored into an empty one. Move it away, or give another --data-dir"
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// The addresses.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// The disk said no.
    #[error("cannot use the data directory {path}: {source}")]
    Disk {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The new Raft group.
    #[error(transparent)]
    Group(#[from] ForceNewError),
    /// The files of the node.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another daemon runs on the directory, or it cannot be made.
    #[error(transparent)]
    Locked(#[from] DaemonError),
    /// The key of the disk.
    #[error(transparent)]
    Seal(#[from] seal::KeyStoreError),
    /// The certificate of the new manager.
    #[error("cannot make the certificate of the new manager: {0}")]
    Certificate(String),
}

/// A cluster that was brought back.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The backup that it is made of.
    pub head: BackupHead,
    /// Its state, as the new manager will begin with it.
    pub state: Snapshot,
    /// The new manager.
    pub node_id: NodeId,
    /// Where others will reach it.
    pub advertise_addr: std::net::SocketAddr,
}

// === impl BackupKey ===

impl BackupKey {
    /// A new random key.
    pub fn generate(rand: &dyn seams::Rand) -> BackupKey {
        BackupKey(Key::generate(rand))
    }

    /// Reads `SWMBAK-1-…`.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<BackupKey, BackupError> {
        Ok(BackupKey(Key::parse(KeyForm::Backup, text)?))
    }

    /// `SWMBAK-1-…`: a secret.
    pub fn to_text(&self) -> String {
        self.0.to_text(KeyForm::Backup)
    }
}

// === impl Backup ===

impl Backup {
    /// Seals a state under a key.
    pub(crate) fn seal(mut head: BackupHead, state: &Snapshot, key: &Key, rand: &dyn seams::Rand) -> Bytes {
        head.key_check = hex(&key.seal(rand, KEY_CHECK, &[]));
        let head = serde_json::to_vec(&head).expect("a head is plain data, which always encodes");
        let mut file = BytesMut::with_capacity(head.len() + 64);
        file.put_slice(MAGIC);
        file.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
        file.put_slice(&head);
        let sealed = key.seal(rand, &file, &Store::encode(state));
        file.put_slice(&sealed);
        file.freeze()
    }

    /// Opens a file and reads all of it.
    ///
    /// # Errors
    /// [`BackupError`]: nothing of it is used then.
    pub fn open(file: &Bytes, BackupKey(key): &BackupKey) -> Result<Backup, BackupError> {
        let (head, sealed) = BackupHead::split(file)?;
        let check = unhex(&head.key_check).ok_or_else(|| damaged("its key check is no text of ours"))?;
        match key.open(KEY_CHECK, check.into()) {
            Ok(_) => {}
            Err(OpenError::Broken) => {
                return Err(BackupError::WrongKey { cluster: head.cluster_id, created_at: head.created_at });
            }
            Err(e) => return Err(damaged(format_args!("its key check is damaged: {e}"))),
        }
        let context = file.slice(..file.len() - sealed.len());
        let plain = key.open(&context, sealed).map_err(damaged)?;
        let store = Store::new();
        store.restore(&plain).map_err(damaged)?;
        let state = store.snapshot();
        match state.cluster() {
            Some(cluster) if cluster.id == head.cluster_id => Ok(Backup { head, state }),
            _ => Err(damaged("it does not hold the cluster that it names")),
        }
    }
}

// === impl BackupHead ===

impl BackupHead {
    /// What a file says of itself, which nothing vouches for until it is opened, and its sealed rest.
    fn split(file: &Bytes) -> Result<(BackupHead, Bytes), BackupError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Format {
            format: u32,
        }
        if !file.starts_with(MAGIC) {
            return Err(BackupError::NotABackup);
        }
        if file.len() > BACKUP_BYTES_MAX {
            return Err(damaged(format_args!("its {} bytes are too many", file.len())));
        }
        let cut_off = || damaged("it is cut off");
        let length = file[MAGIC.len()..].first_chunk::<4>().ok_or_else(cut_off)?;
        let length = u32::from_be_bytes(*length) as usize;
        let begin = MAGIC.len() + 4;
        if length > HEAD_BYTES_MAX {
            return Err(damaged("its head is too long"));
        }
        let head = file.get(begin..begin + length).ok_or_else(cut_off)?;
        let unreadable = |e: serde_json::Error| damaged(format_args!("its head cannot be read: {e}"));
        let format: Format = serde_json::from_slice(head).map_err(unreadable)?;
        if format.format != FORMAT {
            return Err(BackupError::Format { found: format.format });
        }
        Ok((serde_json::from_slice(head).map_err(unreadable)?, file.slice(begin + length..)))
    }
}

fn damaged(why: impl std::fmt::Display) -> BackupError {
    BackupError::Damaged(why.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|d| (d[0] << 4) | d[1]).collect())
}

// === impl Node (backup) ===

impl Node {
    /// The state as a linearizable read sees it, sealed under the user's key. The cluster goes on meanwhile.
    pub(crate) async fn make_backup(&self, key: &Key) -> Result<Bytes, SwarmError> {
        let member = self.member().ok_or(SwarmError::NotInSwarm)?;
        let manager = member.manager();
        let manager = manager.ok_or_else(|| {
            SwarmError::Unavailable("this node is not a manager: a backup is made on a manager".into())
        })?;
        let state = manager.client.current().await.map_err(|e| SwarmError::Unavailable(e.to_string()))?;
        let cluster = state.cluster();
        let cluster = cluster.ok_or_else(|| SwarmError::Unavailable("this manager has no state yet".into()))?;
        let seams = &self.world().seams;
        let head = BackupHead {
            format: FORMAT,
            cluster_id: cluster.id.clone(),
            node_id: member.identity().node_id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            created_at: seams.clock.unix_now().as_secs(),
            term: manager.raft.view().term,
            index: state.index(),
            key_check: String::new(),
        };
        let file = Backup::seal(head, &state, key, &*seams.rand);
        if file.len() > BACKUP_BYTES_MAX {
            return Err(SwarmError::Internal(format!("a backup of {} bytes is too large", file.len())));
        }
        Ok(file)
    }
}

// --- the way back ---

/// Prepares an empty data directory for a manager of the cluster in a backup: a new node with a certificate of that
/// cluster's root, alone in a new Raft group, with everything that the backup holds. A daemon that is started on it runs it.
///
/// # Errors
/// [`RestoreError`]: the directory is as empty as it was.
pub async fn restore(
    file: &Bytes,
    key: &BackupKey,
    config: &NodeConfig,
    world: &World,
) -> Result<Restored, RestoreError> {
    let backup = Backup::open(file, key)?;
    let layout = Layout::new(&config.data_dir);
    refuse_not_empty(&layout, &world.seams).await?;
    let listen_addr = addr::parse(&config.listen_addr, addr::CONTROL_PORT, &*world.interfaces)?;
    let advertise_addr = addr::advertise(&config.advertise_addr, listen_addr, &*world.interfaces)?;
    let member = Membership {
        format: MEMBERSHIP_FORMAT,
        cluster_id: backup.head.cluster_id.clone(),
        node_id: world.seams.rand.id25().parse().expect("id25 makes ids"),
        raft_id: join::new_raft_id(&*world.seams.rand),
        listen_addr,
        advertise_addr,
        gossip_port: config.gossip_port,
        data_path_port: config.data_path_port,
        data_path_addr: None,
        managers: Vec::new(),
        gossip_keys: Vec::new(),
        raft_ticks: Default::default(),
    };
    let restored = write(backup, &layout, world, member).await;
    if restored.is_err()
        && let Err(e) = layout.wipe(&*world.seams.disk).await
    {
        tracing::warn!(error = %e, "what is left of the failed restore could not be removed");
    }
    restored
}

/// [`restore`] on this machine, with the data directory taken as a daemon takes it.
///
/// # Errors
/// [`RestoreError`]: the directory is as empty as it was.
pub async fn restore_here(file: &Bytes, key: &BackupKey, config: &NodeConfig) -> Result<Restored, RestoreError> {
    let seams = seams::real::seams();
    // It runs nothing; a world has to have one.
    let engine = EmbeddedEngine::new(EmbeddedOptions::default(), seams.clock.clone(), seams.rand.clone());
    let world = World {
        seams,
        engine: Arc::new(engine),
        engine_api: None,
        interfaces: Arc::new(MachineInterfaces),
        raft_logs: Arc::new(SledLogs),
    };
    // Before anything is made: a wrong file or key leaves no trace.
    Backup::open(file, key)?;
    let _held = lock(&config.data_dir)?;
    restore(file, key, config, &world).await
}

async fn refuse_not_empty(layout: &Layout, seams: &Seams) -> Result<(), RestoreError> {
    let path = layout.root().to_owned();
    let list = seams.disk.list(&path).await;
    let list = list.map_err(|source| RestoreError::Disk { path: path.clone(), source })?;
    match list.into_iter().find(|p| *p != layout.lock()) {
        None => Ok(()),
        Some(found) => {
            let found = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(RestoreError::NotEmpty { path, found })
        }
    }
}

async fn write(
    backup: Backup,
    layout: &Layout,
    unsealed: &World,
    mut member: Membership,
) -> Result<Restored, RestoreError> {
    let Backup { head, state } = backup;
    let cluster = state.cluster().cloned().ok_or(ForceNewError::NoCluster)?;
    let node_id = member.node_id.clone();
    // Under the cluster's unlock key from the first moment, if it has one.
    let world = DiskKeys::create(layout, unsealed, cluster.security.unlock_key.as_ref()).await?.world(unsealed);
    let disk = &*world.seams.disk;
    let addr = member.advertise_addr.to_string();
    let founder = Founder { node_id: node_id.clone(), raft_id: member.raft_id, addr };
    let last = LogPosition { term: head.term, index: head.index };
    let store: Arc<Store> = state.into();
    let raft = raft_of(layout, &world).await.map_err(ForceNewError::from)?;
    let state = found(&raft, &store, last, &founder, &world.seams).await?;
    let identity = identity(&cluster, state.index(), &node_id, &world.seams).await?;
    let saved = identity.save(disk, layout.root()).await;
    saved.map_err(|e| RestoreError::Certificate(e.to_string()))?;
    member.data_path_port = cluster.data_path_port;
    member.managers = vec![KnownManager { node_id: node_id.clone(), addr: member.advertise_addr }];
    member.gossip_keys = state.cluster().map(|c| c.gossip_keys.clone()).unwrap_or_default();
    member.raft_ticks = state.cluster().map(|c| c.spec.raft.ticks).unwrap_or_default();
    // Last: its presence makes the directory a member's.
    member.save(layout, disk).await?;
    Ok(Restored { head, state, node_id, advertise_addr: member.advertise_addr })
}

/// The new manager's certificate, granted by the state that the new cluster begins with. An authority elsewhere is asked only where
/// the root's key is not in the backup.
async fn identity(
    cluster: &Cluster,
    granted_at: u64,
    node_id: &NodeId,
    seams: &Seams,
) -> Result<Identity, RestoreError> {
    let failed = |e: &dyn std::fmt::Display| RestoreError::Certificate(e.to_string());
    let key = NodeKey::generate().map_err(|e| failed(&e))?;
    let csr = key.csr_pem().map_err(|e| failed(&e))?;
    let csr = Csr::parse(&csr).map_err(|e| failed(&e))?;
    let expiry = cluster.spec.node_cert_expiry;
    let grant = CertificateGrant { node_id: node_id.clone(), role: Role::Manager, expiry };
    let chain = if cluster.signing_root().has_key() {
        let authority = Authority::of(cluster).map_err(|e| failed(&e))?;
        let chain = authority.issue_from(granted_at, &csr, &grant, seams.clock.unix_now(), &*seams.rand);
        chain.map_err(|e| failed(&e))?
    } else {
        let signers = Signers::anonymous(seams.clone());
        signers.sign(cluster, granted_at, &csr, &grant).await.map_err(|e| failed(&e))?
    };
    Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).map_err(|e| failed(&e))
}
