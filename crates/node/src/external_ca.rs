//! Who signs a certificate: this manager, or an authority elsewhere, which is asked over HTTPS (SwarmKit ca/external.go). What is
//! asked and how answers are judged is the `ca` crate's; here is the way there and back.

use crate::ca_rotation::{self, Change};
use api::{NewRoot, SwarmError};
use ca::{CertificateGrant, Csr, Identity, Signer, external_client_config};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use model::{Cluster, NodeId, RootCa};
use parking_lot::Mutex;
use seams::{BoxStream, Seams};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Status;

/// For all authorities together, so that whoever waits for a certificate still hears what is wrong with them.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer (SwarmKit `CertificateMaxSize`).
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Of what all of them say that is told: it travels in a header of the answer.
const WORDS_MAX: usize = 1500;
/// Addresses of one host name that are tried.
const ADDRS_MAX: usize = 4;
/// For a connection to one of them while there is another: a host that cannot be reached at one may be well at the next.
const TRY_MAX: Duration = Duration::from_secs(1);
/// Certificates that are asked for at once. All nodes come within seconds when the first authority elsewhere is named.
const TURNS_MAX: usize = 32;

/// Signs certificates as the cluster says.
#[derive(Clone)]
pub(crate) struct Signers {
    seams: Seams,
    /// Proves to an authority elsewhere who asks.
    identity: watch::Receiver<Option<Arc<Identity>>>,
    turns: Arc<Semaphore>,
    /// The nodes for which an authority elsewhere is being asked.
    asking: Arc<Mutex<BTreeSet<NodeId>>>,
}

/// Somebody's turn to ask an authority elsewhere: one for a node, so that none floods it or takes the turns of the others.
struct Turn {
    asking: Arc<Mutex<BTreeSet<NodeId>>>,
    node: NodeId,
}

/// There is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    /// Nothing here to sign with.
    #[error("{0}")]
    Here(String),
    /// The authorities elsewhere gave none.
    #[error("there is no certificate from the swarm's external certificate authority: {0}")]
    Elsewhere(String),
}

impl From<SignError> for Status {
    fn from(e: SignError) -> Status {
        match e {
            SignError::Here(_) => Status::internal(e.to_string()),
            SignError::Elsewhere(_) => Status::unavailable(e.to_string()),
        }
    }
}

/// A place to send requests to.
struct Target {
    uri: Uri,
    host: String,
    port: u16,
}

fn here(e: impl std::fmt::Display) -> SignError {
    SignError::Here(e.to_string())
}

// === impl Signers ===

impl Signers {
    pub(crate) fn new(seams: Seams, identity: watch::Receiver<Option<Arc<Identity>>>) -> Signers {
        Signers { seams, identity, turns: Arc::new(Semaphore::new(TURNS_MAX)), asking: Arc::default() }
    }

    /// A node without an identity, which can show none.
    pub(crate) fn anonymous(seams: Seams) -> Signers {
        Signers::new(seams, watch::channel(None).1)
    }

    /// A certificate that the state of this log index grants, with what leads from it to the roots.
    pub(crate) async fn sign(
        &self,
        cluster: &Cluster,
        state_index: u64,
        csr: &Csr,
        grant: &CertificateGrant,
    ) -> Result<String, SignError> {
        let now = self.seams.clock.unix_now();
        match Signer::of(cluster).map_err(here)? {
            Signer::Here(authority) => {
                authority.issue_from(state_index, csr, grant, now, &*self.seams.rand).map_err(here)
            }
            Signer::Elsewhere(authority) => {
                let end = Instant::now() + PATIENCE;
                let _turn = self.turn(&grant.node_id, end).await?;
                let request = authority.request(state_index, csr, grant).map_err(here)?;
                let judge = |status, body: &[u8]| {
                    request.judge(status, body, self.seams.clock.unix_now()).map_err(|e| e.to_string())
                };
                self.ask_each(end, authority.root_pem(), authority.urls(), request.body(), judge).await
            }
        }
    }

    /// Waits until this node's certificate may be asked for.
    async fn turn(&self, node: &NodeId, end: Instant) -> Result<(Turn, OwnedSemaphorePermit), SignError> {
        if !self.asking.lock().insert(node.clone()) {
            return Err(SignError::Elsewhere(format!("it is being asked for one for node {node} already, try again")));
        }
        let turn = Turn { asking: self.asking.clone(), node: node.clone() };
        match tokio::time::timeout_at(end, self.turns.clone().acquire_owned()).await {
            Ok(permit) => Ok((turn, permit.map_err(here)?)),
            Err(_elapsed) => {
                let text = format!("{TURNS_MAX} others are waited for at this manager already, try again");
                Err(SignError::Elsewhere(text))
            }
        }
    }

    /// Asks the authorities one after the other, each for its share of the time that is left, until one gives what was asked for.
    async fn ask_each<T>(
        &self,
        end: Instant,
        root_pem: &str,
        urls: &[String],
        body: &str,
        judge: impl Fn(u16, &[u8]) -> Result<T, String>,
    ) -> Result<T, SignError> {
        let tls = self.tls(root_pem)?;
        let mut refusals = Vec::new();
        for (n, url) in urls.iter().enumerate() {
            let left = u32::try_from(urls.len() - n).unwrap_or(u32::MAX);
            let share = end.saturating_duration_since(Instant::now()) / left;
            let asked = tokio::time::timeout(share, self.ask(url, tls.clone(), body)).await;
            let late = |_elapsed| Err(format!("no answer within {:.1} s", share.as_secs_f32()));
            match asked.unwrap_or_else(late).and_then(|(status, answer)| judge(status, &answer)) {
                Ok(judged) => return Ok(judged),
                Err(why) => {
                    tracing::warn!(url, why, "an external certificate authority gave no certificate");
                    refusals.push(format!("{url}: {why}"));
                }
            }
        }
        Err(SignError::Elsewhere(refusals.join("; ").chars().take(WORDS_MAX).collect()))
    }

    fn tls(&self, root_pem: &str) -> Result<Arc<ClientConfig>, SignError> {
        let identity = self.identity.borrow().clone();
        external_client_config(root_pem, identity.as_deref(), self.seams.clock.clone()).map_err(here)
    }

    /// Whether one of these is there, with a certificate of this root (SwarmKit `validateExternalCAURL`).
    pub(crate) async fn is_one_there(&self, root_pem: &str, urls: &[&str]) -> bool {
        let Ok(tls) = self.tls(root_pem) else { return false };
        let knock = |url: &&str| {
            let (target, tls) = (Target::parse(url), tls.clone());
            async move { self.connect(&target?, tls).await.map(drop) }
        };
        let knocks: FuturesUnordered<_> = urls.iter().map(knock).collect();
        // The first one is enough: another may be silent for as long as one listens.
        let answered = knocks.any(|knocked| std::future::ready(knocked.is_ok()));
        tokio::time::timeout(PATIENCE, answered).await.unwrap_or(false)
    }

    async fn ask(&self, url: &str, tls: Arc<ClientConfig>, body: &str) -> Result<(u16, Bytes), String> {
        let target = Target::parse(url)?;
        let stream = self.connect(&target, tls).await?;
        exchange(stream, target.request(body)?).await
    }

    async fn connect(&self, to: &Target, tls: Arc<ClientConfig>) -> Result<TlsStream<BoxStream>, String> {
        let name =
            ServerName::try_from(to.host.clone()).map_err(|_| "its host is no name and no address".to_owned())?;
        let addrs = match to.host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::from((ip, to.port))],
            Err(_) => {
                self.seams.net.resolve(&to.host, to.port).await.map_err(|e| format!("it cannot be found: {e}"))?
            }
        };
        let mut last = "its name has no address".to_owned();
        let mut addrs = addrs.into_iter().take(ADDRS_MAX).peekable();
        while let Some(addr) = addrs.next() {
            let bound = if addrs.peek().is_some() { TRY_MAX } else { PATIENCE };
            let late = |_elapsed| Err(std::io::ErrorKind::TimedOut.into());
            let tried = tokio::time::timeout(bound, self.seams.net.connect(addr)).await;
            let stream = match tried.unwrap_or_else(late) {
                Ok(stream) => stream,
                Err(e) => {
                    last = format!("it cannot be reached at {addr}: {e}");
                    continue;
                }
            };
            let shaken = TlsConnector::from(tls.clone()).connect(name.clone(), stream).await;
            return shaken.map_err(|e| {
                format!("no TLS connection: {e} (its certificate must be of the root that it signs under)")
            });
        }
        Err(last)
    }
}

// --- changes of the root ---

impl Signers {
    /// The cluster with a change to another root begun (SwarmKit controlapi/ca_rotation.go `validateCAConfig`). Where the old root's
    /// key is elsewhere, an authority elsewhere vouches for the new one.
    pub(crate) async fn begin_rotation(&self, cluster: &Cluster, new_root: NewRoot) -> Result<Cluster, SwarmError> {
        let brings_key = matches!(&new_root, NewRoot::Given { cert_pem, .. } if cluster.root_ca.is(cert_pem));
        if !cluster.root_ca.has_key() && !brings_key {
            self.must_answer(cluster, &cluster.root_ca, "current").await?;
        }
        let elsewhere = matches!(new_root, NewRoot::Elsewhere { .. });
        let (now, rand) = (self.seams.clock.unix_now(), &*self.seams.rand);
        let new = match ca_rotation::change(cluster, new_root, now, rand)? {
            Change::Settled(cluster) => {
                if elsewhere {
                    self.must_answer(&cluster, cluster.signing_root(), "desired").await?;
                }
                return Ok(*cluster);
            }
            Change::To(new) => new,
        };
        if elsewhere {
            self.must_answer(cluster, &new, "desired").await?;
        }
        let crossed = if cluster.root_ca.has_key() {
            ca::cross_sign(&new, &cluster.root_ca, now, rand).map_err(ca_rotation::rejected)?
        } else {
            self.cross_signed_elsewhere(cluster, &new).await?
        };
        Ok(ca_rotation::begun(cluster, new, crossed, now))
    }

    /// For each root whose key is elsewhere, one authority must answer.
    pub(crate) async fn check(&self, cluster: &Cluster) -> Result<(), SwarmError> {
        let next = cluster.security.root_rotation.as_ref().map(|r| (&r.new, "next"));
        for (root, which) in [Some((&cluster.root_ca, "current")), next].into_iter().flatten() {
            if !root.has_key() {
                self.must_answer(cluster, root, which).await?;
            }
        }
        Ok(())
    }

    async fn must_answer(&self, cluster: &Cluster, root: &RootCa, which: &str) -> Result<(), SwarmError> {
        let urls: Vec<&str> = cluster.external_cas_of(root).into_iter().map(|ca| ca.url.as_str()).collect();
        if self.is_one_there(&root.cert_pem, &urls).await {
            return Ok(());
        }
        Err(SwarmError::Invalid(format!(
            "there must be at least one valid, reachable external CA corresponding to the {which} CA certificate"
        )))
    }

    async fn cross_signed_elsewhere(&self, cluster: &Cluster, new: &RootCa) -> Result<String, SwarmError> {
        let body = ca::cross_sign_request(new).map_err(ca_rotation::rejected)?;
        let urls: Vec<String> =
            cluster.external_cas_of(&cluster.root_ca).into_iter().map(|ca| ca.url.clone()).collect();
        let judge = |status, answer: &[u8]| {
            let (now, rand) = (self.seams.clock.unix_now(), &*self.seams.rand);
            ca::cross_signed(new, &cluster.root_ca, (status, answer), now, rand).map_err(|e| e.to_string())
        };
        let end = Instant::now() + PATIENCE;
        self.ask_each(end, &cluster.root_ca.cert_pem, &urls, &body, judge).await.map_err(|e| {
            SwarmError::Internal(format!("unable to generate a cross-signed certificate for root rotation: {e}"))
        })
    }
}

// === impl Turn ===

impl Drop for Turn {
    fn drop(&mut self) {
        self.asking.lock().remove(&self.node);
    }
}

/// Sends a request, and reads the answer whole.
async fn exchange(stream: TlsStream<BoxStream>, request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| no_answer(&e))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                format!("its answer is longer than {} KiB", ANSWER_BYTES_MAX >> 10)
            } else {
                format!("its answer broke off: {e}")
            }
        })?;
        // The connection ends with its sender.
        drop(sender);
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        // The other end closed it; what it sent before may still be there to read.
        ended = &mut connection => answer.await.map_err(|why| ended.err().map_or(why, |e| no_answer(&e))),
        answered = &mut answer => answered,
    }
}

/// With what is behind it: a server that does not want the certificate it was shown says so only now.
fn no_answer(error: &hyper::Error) -> String {
    let mut text = format!("no answer: {error}");
    let mut behind = std::error::Error::source(error);
    while let Some(cause) = behind {
        text.push_str(&format!(": {cause}"));
        behind = cause.source();
    }
    text
}

// === impl Target ===

impl Target {
    fn parse(url: &str) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|e| format!("it is not a URL: {e}"))?;
        if uri.scheme_str() != Some("https") {
            return Err("it is not an https URL".into());
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err("it names no host".into());
        }
        let port = uri.port_u16().unwrap_or(443);
        Ok(Target { uri, host, port })
    }

    fn request(&self, body: &str) -> Result<Request<Full<Bytes>>, String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        Request::post(path)
            .header(header::HOST, self.uri.authority().map(ToString::to_string).unwrap_or_default())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|e| format!("it cannot be asked: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_authority_is_asked_once_for_a_node_and_for_so_many_at_once() {
        let signers = Signers::anonymous(seams::real::seams());
        let node = |n: usize| format!("{n:025}").parse::<NodeId>().unwrap();
        let turn = async |n: usize| signers.turn(&node(n), Instant::now() + PATIENCE).await;
        let mut turns = Vec::new();
        for n in 0..TURNS_MAX {
            turns.push(turn(n).await.unwrap());
        }
        let refused = |turn: Result<_, SignError>| turn.map(drop).expect_err("refused").to_string();
        let (again, began) = (refused(turn(0).await), Instant::now());
        assert!(again.contains("for node 0000000000000000000000000 already"), "{again}");
        let late = refused(turn(99).await);
        assert!(late.contains("32 others are waited for") && began.elapsed() >= PATIENCE, "{late}");
        turns.pop();
        assert!(turn(99).await.is_ok(), "who waited in vain may come again");
        assert!(turn(0).await.is_err() && turn(TURNS_MAX - 1).await.is_ok());
    }

    #[test]
    fn only_https_urls_are_asked() {
        let port = |url: &str| Target::parse(url).map(|t| (t.host, t.port));
        assert_eq!(port("https://ca.example.org/api/v1/cfssl/sign"), Ok(("ca.example.org".into(), 443)));
        assert_eq!(port("https://[::1]:8888"), Ok(("::1".into(), 8888)));
        for bad in
            ["", "ca.example.org", "http://ca.example.org", "https://", "https:///sign", "https://too:many:colons:1"]
        {
            assert!(port(bad).is_err(), "{bad}: {:?}", port(bad));
        }
        let request = Target::parse("https://ca:1/sign?x=y").unwrap().request("{}").unwrap();
        assert_eq!(
            (request.uri().to_string().as_str(), request.headers()["host"].to_str().unwrap()),
            ("/sign?x=y", "ca:1")
        );
        assert_eq!(Target::parse("https://ca").unwrap().request("{}").unwrap().uri(), "/");
    }
}
