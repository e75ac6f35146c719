//! A root, identities, a clock that stands still, and a handshake.
#![allow(dead_code)] // each test file uses some of it

use model::{ClusterId, NodeId, Role, RootCa};
use seams::Clock;
use seams::real::OsRand;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_ca::{Authority, CertificateGrant, Csr, Identity, NodeKey, Peer, generate_root, manager_server_name};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) const NOW: Duration = Duration::from_secs(1_800_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A clock that stands still.
pub(crate) struct At(pub(crate) Duration);

impl Clock for At {
    fn unix_now(&self) -> Duration {
        self.0
    }
}

pub(crate) fn id<T: std::str::FromStr>(c: char) -> T
where
    T::Err: std::fmt::Debug,
{
    String::from(c).repeat(25).parse().unwrap()
}

pub(crate) fn issue(root: &RootCa, cluster: char, node: char, role: Role) -> Identity {
    let key = NodeKey::generate().unwrap();
    let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
    let authority = Authority::new(root, id::<ClusterId>(cluster)).unwrap();
    let grant = CertificateGrant { node_id: id::<NodeId>(node), role, expiry: 2 * HOUR };
    let chain = authority.issue(&csr, &grant, NOW, &OsRand).unwrap();
    Identity::new(chain, key.key_pem(), root.cert_pem.clone()).unwrap()
}

pub(crate) fn root() -> RootCa {
    generate_root(NOW, &OsRand).unwrap()
}

/// Shakes hands and sends a byte each way; the peer that the server saw, or the first error of either end.
pub(crate) async fn shake(
    server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
) -> Result<Option<Peer>, std::io::Error> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let serve = async {
        let mut tls = TlsAcceptor::from(server).accept(far).await?;
        let (_, session) = tls.get_ref();
        let peer = session.peer_certificates().map(|c| Peer::from_certificate(&c[0]).unwrap());
        let byte = tls.read_u8().await?;
        tls.write_u8(byte).await?;
        tls.flush().await?;
        Ok(peer)
    };
    let call = async {
        let mut tls = TlsConnector::from(client).connect(manager_server_name(), near).await?;
        tls.write_u8(7).await?;
        tls.flush().await?;
        assert_eq!(tls.read_u8().await?, 7);
        Ok::<(), std::io::Error>(())
    };
    let (served, called) = tokio::join!(serve, call);
    called?;
    served
}
