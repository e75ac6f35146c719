//! Where the API listens: a Unix socket that belongs to root and a group, and a TCP port behind mutual TLS.

use crate::daemon::DaemonError;
use api::{Caller, Gate, Right};
use async_trait::async_trait;
use seams::{BoxStream, Clock, Disk, Listener};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

/// The group that gets the socket when none was named and there is one of this name.
const GROUP_DEFAULT: &str = "swarmlite";
/// How long nothing comes over the port from a client before it is asked whether it is still there, how often then, and how
/// many times without an answer. A machine that has vanished would otherwise hold what it followed open for ever.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);
/// Where the machine's groups are.
const GROUP_FILE: &str = "/etc/group";

/// How the API is reached, besides the socket's path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiAccess {
    /// The group that may use the socket, by name or number; `None` for `swarmlite`, or root alone when there is no such group.
    pub socket_group: Option<String>,
    /// The TCP port, if there is to be one.
    pub tcp: Option<ApiTcp>,
}

/// The API's TCP port. There is none without all of this: whoever reaches it is root on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiTcp {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The authority that signs clients' certificates, PEM. It must not be the swarm's own.
    pub ca: PathBuf,
    /// The server's certificate, PEM, with its intermediates.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// The API's Unix socket.
pub(crate) struct ApiSocket(UnixListener);

/// The API's TCP port.
struct ApiPort(TcpListener);

/// Lets in who shows a certificate of the right authority.
struct TlsGate(TlsAcceptor);

// === impl ApiSocket ===

#[async_trait]
impl Listener for ApiSocket {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, _) = self.0.accept().await?;
        // A unix socket has no address; the peer is local by nature.
        Ok((Box::new(stream), SocketAddr::from(([127, 0, 0, 1], 0))))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// Listens on the socket. From its first moment on only its owner and the group can open it.
#[allow(clippy::disallowed_methods)] // the API's socket is this shell's own; the simulation has its own listener
pub(crate) async fn bind_socket(path: &Path, group: Option<&str>) -> Result<ApiSocket, DaemonError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed = |source| DaemonError::Socket { path: path.to_owned(), source };
    if UnixStream::connect(path).await.is_ok() {
        return Err(DaemonError::SocketInUse { path: path.to_owned() });
    }
    let gid = socket_group(group)?;
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(failed)?;
    // A new socket has the mode that the umask leaves it. It is made where nobody else can reach it, and moved when it has
    // the right one.
    let nursery = dir.join(format!(".sw{}", std::process::id()));
    let _left_by_a_namesake = std::fs::remove_dir_all(&nursery);
    std::fs::DirBuilder::new().mode(0o700).create(&nursery).map_err(failed)?;
    let made = nursery.join("s");
    let bound = UnixListener::bind(&made).and_then(|listener| {
        std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    });
    let ready = bound.map_err(failed).and_then(|listener| {
        give_to_group(&made, gid, group)?;
        // Nobody answers: what is there was left by a daemon that died.
        remove_socket(path);
        // Onto nothing: a mistyped --socket must not cost anybody a file.
        if std::fs::symlink_metadata(path).is_ok() {
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name")));
        }
        std::fs::rename(&made, path).map_err(failed)?;
        Ok(ApiSocket(listener))
    });
    let _nothing_is_in_it = std::fs::remove_dir_all(&nursery);
    ready
}

/// The group id for the socket: `None` leaves it to root's own group.
#[allow(clippy::disallowed_methods)] // one small file of the machine's, read once, by the shell of the real world
fn socket_group(group: Option<&str>) -> Result<Option<u32>, DaemonError> {
    if let Some(id) = group.and_then(|g| g.parse().ok()) {
        return Ok(Some(id));
    }
    let known = std::fs::read(GROUP_FILE).unwrap_or_default();
    match (find_group(&String::from_utf8_lossy(&known), group.unwrap_or(GROUP_DEFAULT)), group) {
        (Some(id), _) => Ok(Some(id)),
        (None, None) => Ok(None),
        (None, Some(group)) => Err(DaemonError::NoGroup { group: group.to_owned() }),
    }
}

/// Looks a group up in the text of `/etc/group`: lines of `name:password:id:members`.
fn find_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next()? == name && !name.is_empty();
        let id = fields.nth(1)?.parse().ok()?;
        is_it.then_some(id)
    })
}

fn give_to_group(socket: &Path, gid: Option<u32>, named: Option<&str>) -> Result<(), DaemonError> {
    let Some(gid) = gid else { return Ok(()) };
    match (std::os::unix::fs::chown(socket, None, Some(gid)), named) {
        (Ok(()), _) => Ok(()),
        // A daemon that is not root, on a machine that happens to have the group.
        (Err(error), None) => {
            tracing::warn!(%error, group = GROUP_DEFAULT, "the socket is not given to the group");
            Ok(())
        }
        (Err(source), Some(group)) => Err(DaemonError::GroupDenied { group: group.to_owned(), source }),
    }
}

/// Removes the socket, and nothing that is none.
#[allow(clippy::disallowed_methods)] // as in `bind_socket`
pub(crate) fn remove_socket(path: &Path) {
    use std::os::unix::fs::FileTypeExt as _;
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        let _absent_is_fine = std::fs::remove_file(path);
    }
}

/// Listens on the TCP port, with the gate that its files make.
pub(crate) async fn bind_tcp(
    tcp: &ApiTcp,
    seams: &seams::Seams,
) -> Result<(Box<dyn Listener>, Arc<dyn Gate>), DaemonError> {
    let gate = TlsGate::load(tcp, &*seams.disk, seams.clock.clone()).await?;
    let failed = |source| DaemonError::ApiAddr { addr: tcp.addr, source };
    Ok((Box::new(ApiPort::bind(tcp.addr).await.map_err(failed)?), Arc::new(gate)))
}

// === impl ApiPort ===

impl ApiPort {
    #[allow(clippy::disallowed_methods)] // as the socket: this shell's own
    async fn bind(addr: SocketAddr) -> io::Result<ApiPort> {
        let listener = TcpListener::bind(addr).await?;
        let (time, interval, retries) = KEEPALIVE;
        let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
        // What is accepted has it from the listener (tcp(7)).
        SockRef::from(&listener).set_tcp_keepalive(&keepalive)?;
        Ok(ApiPort(listener))
    }
}

#[async_trait]
impl Listener for ApiPort {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, remote) = self.0.accept().await?;
        // A connection that is gone already ends with its first read.
        let _gone = stream.set_nodelay(true);
        Ok((Box::new(stream), remote))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

// === impl TlsGate ===

impl TlsGate {
    async fn load(tcp: &ApiTcp, disk: &dyn Disk, clock: Arc<dyn Clock>) -> Result<TlsGate, DaemonError> {
        let read = async |path: &Path| {
            let failed = |reason: String| DaemonError::ApiTlsFile { path: path.to_owned(), reason };
            let bytes = disk.read(path).await.map_err(|e| failed(e.to_string()))?;
            let bytes = bytes.ok_or_else(|| failed("no such file".into()))?;
            String::from_utf8(bytes.into()).map_err(|_| failed("it is not a text".into()))
        };
        let (ca, cert, key) = (read(&tcp.ca).await?, read(&tcp.cert).await?, read(&tcp.key).await?);
        let config = ca::api_server_config(&ca, &cert, &key, clock).map_err(DaemonError::ApiTls)?;
        Ok(TlsGate(TlsAcceptor::from(config)))
    }
}

#[async_trait]
impl Gate for TlsGate {
    async fn admit(&self, stream: BoxStream) -> io::Result<(BoxStream, Caller)> {
        let tls = self.0.accept(stream).await?;
        let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        // The settings let nobody through without; should they ever, nobody is nobody.
        let leaf = leaf.ok_or_else(|| io::Error::other("no client certificate was shown"))?;
        let certificate = ca::api_certificate(leaf).map_err(io::Error::other)?;
        let right = match certificate.right {
            ca::ApiRight::Admin => Right::Admin,
            ca::ApiRight::Viewer => Right::Viewer,
        };
        let caller = Caller { right, name: certificate.name, until: Some(certificate.expires_at) };
        Ok((Box::new(tls), caller))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str =
        "root:x:0:\nadm:x:4:syslog,ada\nbroken\nswarmlite:x:990:ada\n:x:7:\nnumberless:x:what:\nlate:x:991";

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        for (name, found) in [
            ("swarmlite", Some(990)),
            ("root", Some(0)),
            ("late", Some(991)),
            ("swarm", None),
            ("ada", None),
            ("broken", None),
            ("numberless", None),
            ("", None),
            ("swarmlite:x:990", None),
        ] {
            assert_eq!(find_group(GROUPS, name), found, "{name}");
        }
        assert_eq!(find_group("", "root"), None);
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods)] // a client of the port
    async fn a_client_that_has_vanished_is_noticed() {
        let port = ApiPort::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let _client = tokio::net::TcpStream::connect(port.local_addr().expect("an address")).await.expect("connected");
        let (accepted, _) = port.0.accept().await.expect("accepted");
        let accepted = SockRef::from(&accepted);
        let (time, interval, retries) = KEEPALIVE;
        assert!(accepted.keepalive().expect("an option"));
        assert_eq!(accepted.tcp_keepalive_time().expect("an option"), time);
        assert_eq!(accepted.tcp_keepalive_interval().expect("an option"), interval);
        assert_eq!(accepted.tcp_keepalive_retries().expect("an option"), retries);
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_and_the_group_alone_and_replaces_a_dead_one() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("api.sock");
        let own_group = std::fs::metadata(dir.path()).expect("metadata").gid().to_string();
        for _ in 0..2 {
            let socket = bind_socket(&path, Some(&own_group)).await.expect("a socket");
            let meta = std::fs::metadata(&path).expect("metadata");
            assert_eq!((meta.permissions().mode() & 0o777, meta.gid().to_string()), (0o660, own_group.clone()));
            assert!(matches!(bind_socket(&path, None).await, Err(DaemonError::SocketInUse { .. })));
            assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing is left beside it");
            // Dropped without being removed, as by a daemon that dies: the next one takes its place.
            drop(socket);
        }
        let missing = bind_socket(&path, Some("no-such-group")).await.err().expect("refused").to_string();
        assert!(missing.contains("there is no group no-such-group"), "{missing}");
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods)] // a file in the way of a socket is made and looked at
    async fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").expect("written");
        let refused = bind_socket(&path, None).await.err().expect("refused").to_string();
        assert!(refused.contains("there is a file of that name"), "{refused}");
        assert_eq!(std::fs::read(&path).expect("still there"), b"data");
    }
}
