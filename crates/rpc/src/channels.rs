//! Channels to managers.

use crate::connector::{ConnectError, Connector, TlsSource};
use crate::proto::ca::GetRootCertificateRequest;
use crate::server::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::services::node_ca_client;
use crate::status::describe;
use ca::{ExpectedServer, Identity, JoinToken, TlsError, WrongRoot};
use model::{GrantKey, NodeId};
use parking_lot::Mutex;
use seams::Seams;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// Channels kept. A cluster has at most a dozen managers; beyond this the cache starts over.
const CHANNELS_MAX: usize = 128;
/// A root certificate has about 600 bytes.
const ROOT_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Makes channels to managers and keeps them. Cheap to clone; clones share the channels.
///
/// A channel connects when it is first used and connects again by itself. A channel that was made under an identity that
/// has since been renewed is replaced at the next request for it.
#[derive(Clone)]
pub struct Channels {
    shared: Arc<Shared>,
}

struct Shared {
    seams: Seams,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    timings: ChannelTimings,
    kept: Mutex<BTreeMap<Key, Kept>>,
    /// A manager's own: the key of the marks in certificates.
    marks: watch::Sender<Option<GrantKey>>,
}

type Key = (SocketAddr, Option<NodeId>);

struct Kept {
    /// The identity it was made under; `None` when there was none yet.
    identity: Option<Arc<Identity>>,
    channel: Channel,
}

/// How long a channel waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelTimings {
    /// TCP and TLS together.
    pub connect_timeout: Duration,
    /// Between HTTP/2 pings. A connection that a partition has half killed is found by these and by nothing else.
    pub keep_alive_interval: Duration,
    /// For the answer to a ping.
    pub keep_alive_timeout: Duration,
    /// For the whole call of [`Channels::fetch_root`].
    pub fetch_root_timeout: Duration,
}

impl Default for ChannelTimings {
    fn default() -> Self {
        ChannelTimings {
            connect_timeout: Duration::from_secs(3),
            // 5 s to notice a dead path: slower than elections and sessions, which have timeouts of their own, and slow
            // enough that a busy small machine does not lose its connections.
            keep_alive_interval: Duration::from_secs(2),
            keep_alive_timeout: Duration::from_secs(3),
            fetch_root_timeout: Duration::from_secs(10),
        }
    }
}

/// Not an address that can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: give an IP address and a port, as in 192.0.2.1:2377 (host names are not resolved)")]
pub struct InvalidAddress(pub String);

/// The cluster's root certificate could not be had from a manager.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// It is another cluster's.
    #[error(transparent)]
    WrongRoot(#[from] WrongRoot),
    /// The manager did not answer.
    #[error("cannot get the root certificate from {addr}: {why}")]
    NoAnswer {
        /// The manager.
        addr: String,
        /// In words.
        why: String,
    },
}

// === impl Channels ===

impl Channels {
    /// Channels that show the identity in `identity` (its latest value, at each new connection).
    pub fn new(seams: Seams, identity: watch::Receiver<Option<Arc<Identity>>>, timings: ChannelTimings) -> Channels {
        Channels {
            shared: Arc::new(Shared {
                seams,
                identity,
                timings,
                kept: Mutex::default(),
                marks: watch::Sender::new(None),
            }),
        }
    }

    /// A channel to whichever manager of our cluster listens at `addr` (`IP:port`). Does not wait: connecting happens at
    /// the first call, and fails that call with `UNAVAILABLE` (see [`crate::describe`] and [`crate::not_sent`]).
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn manager(&self, addr: &str) -> Result<Channel, InvalidAddress> {
        Ok(self.kept(parse(addr)?, None))
    }

    /// As [`Channels::manager`], but the other end must be this very node.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn manager_node(&self, addr: &str, node: &NodeId) -> Result<Channel, InvalidAddress> {
        Ok(self.kept(parse(addr)?, Some(node.clone())))
    }

    /// As [`Channels::manager_node`], but a connection of its own that is not kept: for a caller whose messages must not wait
    /// behind others'.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn own_manager_node(&self, addr: &str, node: &NodeId) -> Result<Channel, InvalidAddress> {
        let to = parse(addr)?;
        Ok(self.open(to, self.member_settings(to, Some(node.clone()))))
    }

    /// For a manager: from now on new connections are judged by this key of the marks in certificates, too (docs/adr/0009).
    pub fn judge_by(&self, marks: Option<GrantKey>) {
        let changed = self.shared.marks.send_if_modified(|known| {
            let changed = *known != marks;
            *known = marks;
            changed
        });
        if changed {
            self.shared.kept.lock().clear();
        }
    }

    /// Changes with the key that new connections are judged by: whoever keeps a channel of its own has to open another one then, since
    /// connections that stand were judged by the key of before, or by none.
    pub fn judged_by(&self) -> watch::Receiver<Option<GrantKey>> {
        self.shared.marks.subscribe()
    }

    /// Forgets the channels to an address, so that the next one connects afresh. Calls under way are not disturbed.
    pub fn forget(&self, addr: &str) {
        if let Ok(addr) = parse(addr) {
            self.shared.kept.lock().retain(|(kept, _), _| *kept != addr);
        }
    }

    /// For a joiner: fetches the root certificate (PEM) from a manager that may be anybody, and checks it against the
    /// token. Nothing but the empty request is sent.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn fetch_root(&self, addr: &str, token: &JoinToken) -> Result<String, JoinError> {
        let to = parse(addr)?;
        let no_answer = |why: String| JoinError::NoAnswer { addr: addr.to_owned(), why };
        let clock = self.shared.seams.clock.clone();
        let channel = self.open(to, settings(to, move || ca::unverified_client_config(clock.clone())));
        let mut client = node_ca_client(channel).max_decoding_message_size(ROOT_ANSWER_BYTES_MAX);
        let bound = self.shared.timings.fetch_root_timeout;
        let answer = match tokio::time::timeout(bound, client.get_root_certificate(GetRootCertificateRequest {})).await
        {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(no_answer(describe(&status))),
            Err(_elapsed) => return Err(no_answer(format!("no answer within {} s", bound.as_secs()))),
        };
        token.check_root(&answer.certificate_pem)?;
        Ok(answer.certificate_pem)
    }

    /// For a joiner that knows the root: a channel without a client certificate to a manager of that root's cluster.
    /// Not kept.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn anonymous(&self, addr: &str, root_pem: &str) -> Result<Channel, InvalidAddress> {
        let to = parse(addr)?;
        let (clock, root_pem) = (self.shared.seams.clock.clone(), root_pem.to_owned());
        Ok(self.open(to, settings(to, move || ca::anonymous_client_config(&root_pem, clock.clone()))))
    }

    fn kept(&self, to: SocketAddr, node: Option<NodeId>) -> Channel {
        let identity = self.shared.identity.borrow().clone();
        let mut kept = self.shared.kept.lock();
        let key = (to, node);
        if let Some(found) = kept.get(&key)
            && same(&found.identity, &identity)
        {
            return found.channel.clone();
        }
        if kept.len() >= CHANNELS_MAX {
            kept.clear();
        }
        let channel = self.open(to, self.member_settings(to, key.1.clone()));
        kept.insert(key, Kept { identity, channel: channel.clone() });
        channel
    }

    fn member_settings(&self, to: SocketAddr, node: Option<NodeId>) -> TlsSource {
        let (identity, clock) = (self.shared.identity.clone(), self.shared.seams.clock.clone());
        let expected = node.map_or(ExpectedServer::AnyManager, ExpectedServer::Manager);
        let shared = Arc::downgrade(&self.shared);
        Arc::new(move || {
            let marks = shared.upgrade().and_then(|shared| shared.marks.borrow().clone());
            let identity = identity.borrow().clone().ok_or(ConnectError::NoIdentity { to })?;
            let whose = format!("this node ({})", identity.node_id);
            if let Some(why) = ca::not_valid(&whose, identity.validity(), clock.unix_now()) {
                return Err(ConnectError::NotValid { to, why });
            }
            ca::judging_client_config(&identity, clock.clone(), &expected, marks)
                .map_err(|source| ConnectError::Settings { to, source })
        })
    }

    fn open(&self, to: SocketAddr, tls: TlsSource) -> Channel {
        let ChannelTimings { connect_timeout, keep_alive_interval, keep_alive_timeout, .. } = self.shared.timings;
        let net = self.shared.seams.net.clone();
        // TLS is the connector's, so the scheme is plain as far as tonic knows. The authority is not used by anybody.
        Endpoint::from_static("http://swarm-manager")
            .http2_keep_alive_interval(keep_alive_interval)
            .keep_alive_timeout(keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector_lazy(Connector { net, to, timeout: connect_timeout, tls })
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

fn settings<F>(to: SocketAddr, make: F) -> TlsSource
where
    F: Fn() -> Result<Arc<rustls::ClientConfig>, TlsError> + Send + Sync + 'static,
{
    Arc::new(move || make().map_err(|source| ConnectError::Settings { to, source }))
}

fn parse(addr: &str) -> Result<SocketAddr, InvalidAddress> {
    addr.parse().map_err(|_| InvalidAddress(addr.chars().take(256).collect()))
}

fn same(a: &Option<Arc<Identity>>, b: &Option<Arc<Identity>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
