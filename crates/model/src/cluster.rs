//! The cluster object: one in every store.

use crate::{ClusterId, Meta, NodeId, Role, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The cluster itself: what all managers share beyond nodes and services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Version and times.
    pub meta: Meta,
    /// What a user can change.
    pub spec: ClusterSpec,
    /// The certificate authority.
    pub root_ca: RootCa,
    /// The secrets of the join tokens.
    pub join_tokens: JoinTokens,
    /// Gossip keys, the one to seal with first; older ones still open.
    pub gossip_keys: Vec<GossipKey>,
    /// Address pools for overlay networks, in CIDR form (`10.0.0.0/8` unless given at init).
    pub default_addr_pool: Vec<String>,
    /// Prefix length of the subnets cut from the pools.
    pub subnet_size: u32,
    /// UDP port of the data path.
    pub data_path_port: u16,
    /// Nodes that were removed, each until its last certificate has expired: such a certificate opens no door.
    #[serde(default)]
    pub removed_nodes: BTreeMap<NodeId, Timestamp>,
    /// What guards it beyond the root and the two tokens.
    #[serde(default)]
    pub security: ClusterSecurity,
}

/// What guards a cluster beyond its root and its two standing join tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterSecurity {
    /// The change of the root that is under way; `None` when the nodes all trust [`Cluster::root_ca`] alone.
    pub root_rotation: Option<RootRotation>,
    /// Docker's `ForceRotate`: a spec with another value asks for a new root.
    pub force_rotate: u64,
    /// What of the certificates that were issued so far is worth nothing any more.
    pub certificates: CertificateRecord,
    /// Join tokens that a user made, with an end of their own.
    pub tokens: BTreeMap<String, ExtraToken>,
    /// What unlocks a manager's disk. `None` when autolock is off.
    pub unlock_key: Option<UnlockKey>,
    /// When the gossip key to seal with was put first; `Timestamp(0)` counts from the cluster's creation.
    pub gossip_key_since: Timestamp,
    /// How far the rotation of the gossip keys has come, beyond what their order says.
    pub gossip_rotation: GossipRotation,
    /// What managers mark certificates with that they grant. `None` while nobody but they can sign any.
    pub grants: Option<GrantKey>,
}

/// The key of the marks that managers put into certificates, so that one which an authority elsewhere signed without being
/// asked is told from one that the swarm granted (docs/adr/0009). Made once, with the first such authority, and kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantKey {
    /// 32 bytes.
    pub key: [u8; 32],
    /// A certificate without a mark is worth nothing any more: every node has said that it has one.
    #[serde(default)]
    pub required: bool,
}

/// The rotation of the gossip keys. While the newest key is not the first, it is being handed out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GossipRotation {
    /// A user asked for a new key; false again when it is made.
    pub asked: bool,
    /// When the newest key was put behind the first, for everybody to have it before anybody seals with it.
    pub staged_at: Timestamp,
}

/// What managers have to remember of certificates that were issued: each is worth what the state says of its node, and these
/// say what the nodes alone do not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CertificateRecord {
    /// Nodes that were made managers: a manager's certificate that was granted from a state of this log index, or of an
    /// older one, is from before the promotion. It opens no manager's door, though the node is a manager (again).
    pub promoted_after: BTreeMap<NodeId, u64>,
    /// Raft ids of members that are in the group no more, and whose they were, the newest last. An id is never another
    /// node's.
    pub retired_raft_ids: Vec<(u64, NodeId)>,
    /// Before this time certificates may end that were issued under a longer validity than the spec's of now.
    pub longest_until: Timestamp,
}

/// A change from one root to another. Until it is finished, nodes trust both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    /// The root that will be.
    pub new: RootCa,
    /// The new root's key and name, signed by the old root: who trusts only the old one can verify certificates of the new.
    pub cross_signed_pem: String,
    /// When it began.
    pub started_at: Timestamp,
}

/// A join token with an end: by time, by uses, or by being revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraToken {
    /// The role that it admits to.
    pub role: Role,
    /// SHA-256 of the token's whole text. The text itself is shown once, when it is made, and kept nowhere.
    pub digest: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// How often it may still be used; `None` for any number.
    pub uses_left: Option<u32>,
    /// Labels that a node is born with.
    pub labels: BTreeMap<String, String>,
    /// The digest of the root that the token's text names, in the token's own spelling. It is no secret. After the root has
    /// changed, a joiner that holds the token finds another root than this one and goes no further.
    #[serde(default)]
    pub root_digest: String,
}

/// The key that managers' data keys are locked under, `SWMKEY-1-<base64>` at the API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockKey {
    /// Rises with every rotation.
    pub generation: u64,
    /// 32 bytes.
    pub key: [u8; 32],
}

// === impl Cluster ===

impl Cluster {
    /// The root that signs certificates from now on: the one that will be, while the root is being changed.
    pub fn signing_root(&self) -> &RootCa {
        self.security.root_rotation.as_ref().map_or(&self.root_ca, |r| &r.new)
    }

    /// The root certificates that nodes should trust, PEM, one or two. The first is the one that join tokens name, the last
    /// the one that signs new certificates.
    pub fn trusted_roots_pem(&self) -> String {
        match &self.security.root_rotation {
            None => self.root_ca.cert_pem.clone(),
            Some(rotation) => format!("{}{}", self.root_ca.cert_pem, rotation.new.cert_pem),
        }
    }

    /// The authorities elsewhere that sign under this root. While there is one, managers do not sign under it themselves.
    pub fn external_cas_of(&self, root: &RootCa) -> Vec<&ExternalCa> {
        let wanted = bare_pem(&root.cert_pem);
        let signs = |ca: &&ExternalCa| {
            let under = if ca.ca_cert_pem.trim().is_empty() { &self.root_ca.cert_pem } else { &ca.ca_cert_pem };
            bare_pem(under) == wanted
        };
        self.spec.external_cas.iter().filter(signs).collect()
    }

    /// Whether certificates are signed elsewhere: how long they are valid is not the cluster's to say then.
    pub fn signs_elsewhere(&self) -> bool {
        !self.external_cas_of(self.signing_root()).is_empty()
    }

    /// The time at which no certificate is valid any more that was issued until `now`, by the clocks of managers.
    pub fn certificates_end_by(&self, now: Timestamp) -> Timestamp {
        now.plus(self.spec.node_cert_expiry).max(self.security.certificates.longest_until)
    }

    /// Notes that a Raft id is out of the group for good, and whose it was.
    pub fn retire_raft_id(&mut self, raft_id: u64, node: &NodeId) {
        let retired = &mut self.security.certificates.retired_raft_ids;
        retired.retain(|(id, _)| *id != raft_id);
        retired.push((raft_id, node.clone()));
        let surplus = retired.len().saturating_sub(crate::limits::RETIRED_RAFT_IDS_MAX);
        retired.drain(..surplus);
    }

    /// Changes how long certificates are valid, and remembers what that means for those that are out there.
    pub fn set_node_cert_expiry(&mut self, expiry: Duration, now: Timestamp) {
        let until = self.certificates_end_by(now);
        if expiry < self.spec.node_cert_expiry {
            self.security.certificates.longest_until = until;
        }
        self.spec.node_cert_expiry = expiry;
    }
}

// === impl RootCa ===

impl RootCa {
    /// Whether it is the same certificate, however its text is broken into lines.
    pub fn is(&self, cert_pem: &str) -> bool {
        bare_pem(&self.cert_pem) == bare_pem(cert_pem)
    }

    /// Whether managers can sign with it.
    pub fn has_key(&self) -> bool {
        !self.key_pem.is_empty()
    }
}

// === impl ExtraToken ===

impl ExtraToken {
    /// True when its time is over or its uses are used up: it admits nobody any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.uses_left == Some(0) || self.expires_at.is_some_and(|end| end <= now)
    }
}

// === impl ClusterSecurity ===

impl ClusterSecurity {
    /// Forgets the tokens that admit nobody any more. For whoever changes the cluster object anyway.
    pub fn forget_old_tokens(&mut self, now: Timestamp) {
        self.tokens.retain(|_, token| !token.is_over(now));
    }
}

/// What a user can change about a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Always `default`, as Docker's.
    pub name: String,
    /// User labels.
    pub labels: BTreeMap<String, String>,
    /// Dead tasks kept for each slot; negative keeps all.
    pub task_history_retention_limit: i64,
    /// Log entries between snapshots.
    pub snapshot_interval: u64,
    /// How often a node's agent sends a heartbeat. Docker's default is 5 s; ours is shorter, see `Default`.
    pub heartbeat_period: Duration,
    /// Validity of a node certificate.
    pub node_cert_expiry: Duration,
    /// Managers' disks cannot be read without the unlock key.
    #[serde(default)]
    pub autolock: bool,
    /// Where the output of tasks goes that do not say.
    #[serde(default)]
    pub task_log_driver: Option<crate::LogDriver>,
    /// What may happen beyond what Docker does. From labels.
    #[serde(default)]
    pub policy: crate::ClusterPolicy,
    /// How the managers' Raft works, beyond how often it takes a snapshot.
    #[serde(default)]
    pub raft: crate::RaftSettings,
    /// Authorities elsewhere that sign nodes' certificates in the managers' place, in the order in which they are asked.
    #[serde(default)]
    pub external_cas: Vec<ExternalCa>,
}

/// An authority elsewhere, which speaks the signing protocol of cfssl over HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalCa {
    /// Where certificate requests are sent: an `https` URL.
    pub url: String,
    /// Kept for whoever set them; nothing reads them, as in SwarmKit.
    pub options: BTreeMap<String, String>,
    /// The root certificate that it signs under, PEM; empty for the cluster's root of now.
    pub ca_cert_pem: String,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        ClusterSpec {
            name: "default".into(),
            labels: BTreeMap::new(),
            task_history_retention_limit: crate::limits::TASK_HISTORY_DEFAULT,
            snapshot_interval: crate::limits::SNAPSHOT_INTERVAL_DEFAULT,
            // With Docker's 5 s a dead worker is seen after 13-16 s. One heartbeat a second from a few thousand nodes is
            // spread over all managers, so it costs little.
            heartbeat_period: Duration::from_secs(1),
            node_cert_expiry: Duration::from_secs(2160 * 3600),
            autolock: false,
            task_log_driver: None,
            policy: crate::ClusterPolicy::default(),
            raft: crate::RaftSettings::default(),
            external_cas: Vec::new(),
        }
    }
}

/// The cluster's certificate authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// The root certificate, PEM.
    pub cert_pem: String,
    /// The root key, PEM. Only managers hold it. Empty when it is an authority's elsewhere.
    pub key_pem: String,
}

/// The certificates of a PEM text without what may differ between two texts of the same: line breaks, and words around them.
fn bare_pem(text: &str) -> String {
    let bodies = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let bodies = bodies.filter_map(|part| part.split_once("-----END CERTIFICATE-----"));
    bodies.flat_map(|(body, _)| body.chars().filter(|c| !c.is_whitespace()).chain(['.'])).collect()
}

/// The secrets of the two join tokens, in their whole form `SWMTKN-1-<digest>-<secret>`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokens {
    /// Admits workers.
    pub worker: String,
    /// Admits managers.
    pub manager: String,
}

/// A key that seals gossip.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Rises with every rotation; travels in clear in each datagram.
    pub id: u32,
    /// 32 bytes.
    pub key: [u8; 32],
}

// Secrets never reach a log or an error through a derived `Debug`.
impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}
impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantKey").field("required", &self.required).finish_non_exhaustive()
    }
}
impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokens").finish_non_exhaustive()
    }
}
impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockKey").field("generation", &self.generation).finish_non_exhaustive()
    }
}
impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn root(name: &str) -> RootCa {
        RootCa { cert_pem: format!("{name}\n"), key_pem: String::new() }
    }

    fn cluster() -> Cluster {
        Cluster {
            id: "c".repeat(25).parse().unwrap(),
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            root_ca: root("old"),
            join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
            gossip_keys: Vec::new(),
            default_addr_pool: Vec::new(),
            subnet_size: 24,
            data_path_port: 4789,
            removed_nodes: BTreeMap::new(),
            security: ClusterSecurity::default(),
        }
    }

    #[test]
    fn during_a_change_of_the_root_both_are_trusted_and_the_new_one_signs() {
        let mut cluster = cluster();
        assert_eq!((cluster.trusted_roots_pem().as_str(), cluster.signing_root()), ("old\n", &root("old")));
        let rotation = RootRotation { new: root("new"), cross_signed_pem: String::new(), started_at: Timestamp(1) };
        cluster.security.root_rotation = Some(rotation);
        assert_eq!((cluster.trusted_roots_pem().as_str(), cluster.signing_root()), ("old\nnew\n", &root("new")));
    }

    #[test]
    fn an_authority_elsewhere_signs_under_the_root_that_it_names_or_the_one_of_now() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let ca = |url: &str, under: &str| ExternalCa {
            url: url.into(),
            options: BTreeMap::new(),
            ca_cert_pem: under.to_owned(),
        };
        let mut cluster = cluster();
        cluster.root_ca = root(&pem("OL\nD"));
        assert!(!cluster.signs_elsewhere());
        cluster.spec.external_cas =
            vec![ca("a", ""), ca("b", &format!("of the new root\r\n{}", pem("NE\r\nW"))), ca("c", &pem("OLD"))];
        let urls = |cluster: &Cluster| {
            cluster.external_cas_of(cluster.signing_root()).iter().map(|ca| ca.url.clone()).collect::<Vec<_>>()
        };
        assert_eq!(urls(&cluster), ["a", "c"]);
        let new = root(&pem("NEW"));
        cluster.security.root_rotation =
            Some(RootRotation { new, cross_signed_pem: String::new(), started_at: Timestamp(1) });
        assert_eq!(urls(&cluster), ["b"], "the one of now is still the old root");
        cluster.spec.external_cas.remove(1);
        assert!(!cluster.signs_elsewhere());
        assert!(cluster.root_ca.is(&pem("OLD")) && !cluster.root_ca.is(&pem("OL")) && !cluster.root_ca.is(""));
    }

    #[test]
    fn certificates_of_a_longer_validity_are_remembered_until_they_have_ended() {
        let mut cluster = cluster();
        let day = |n: u32| Timestamp(0).plus(DAY * n);
        assert_eq!(cluster.certificates_end_by(day(10)), day(100));
        cluster.set_node_cert_expiry(DAY, day(10));
        assert_eq!(cluster.certificates_end_by(day(11)), day(100), "issued on day 10 for 90 days");
        cluster.set_node_cert_expiry(2 * DAY, day(20));
        cluster.set_node_cert_expiry(DAY, day(30));
        assert_eq!(cluster.certificates_end_by(day(40)), day(100));
        assert_eq!(cluster.certificates_end_by(day(100)), day(101), "and no longer");
    }

    #[test]
    fn the_last_raft_ids_are_remembered_once_each() {
        let (mut cluster, node) = (cluster(), "n".repeat(25).parse::<NodeId>().unwrap());
        let max = crate::limits::RETIRED_RAFT_IDS_MAX as u64;
        (0..max + 3).for_each(|id| cluster.retire_raft_id(id, &node));
        cluster.retire_raft_id(5, &node);
        let retired = &cluster.security.certificates.retired_raft_ids;
        assert_eq!((retired.len() as u64, retired[0].0, retired[retired.len() - 1].0), (max, 3, 5));
    }
}
