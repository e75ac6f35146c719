//! The simulated network as the net seam: TCP as turmoil has it, UDP with loss, duplicates and detours of its own.

use crate::rng::{PerMille, SeededRand};
use async_trait::async_trait;
use parking_lot::Mutex;
use seams::{BoxStream, Datagrams, Listener, Net, Tasks};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What happens to datagrams, beside the delay and the partitions that befall everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpFaults {
    /// Lost.
    pub loss: PerMille,
    /// Sent twice.
    pub duplicate: PerMille,
    /// Sent up to half a second late, so that later ones overtake it.
    pub late: PerMille,
}

/// One machine's network. It outlives the node's crashes; sockets do not.
#[derive(Clone)]
pub struct SimNet {
    ip: IpAddr,
    rand: Arc<SeededRand>,
    udp: Arc<Mutex<UdpFaults>>,
    /// Of the node's present life: for datagrams that take a detour.
    tasks: Tasks,
}

struct SimListener(turmoil::net::TcpListener, SocketAddr);

struct SimUdp {
    socket: Arc<turmoil::net::UdpSocket>,
    local: SocketAddr,
    net: SimNet,
}

// === impl SimNet ===

impl SimNet {
    /// The network of a machine during one life of its node.
    pub fn new(ip: IpAddr, rand: Arc<SeededRand>, udp: Arc<Mutex<UdpFaults>>, tasks: Tasks) -> SimNet {
        SimNet { ip, rand, udp, tasks }
    }

    /// turmoil binds all addresses of a host, of which it has one.
    fn bindable(&self, on: SocketAddr) -> io::Result<SocketAddr> {
        let ours = on.ip().is_unspecified() || on.ip().is_loopback() || on.ip() == self.ip;
        if !ours {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                format!("{} is not an address of this machine", on.ip()),
            ));
        }
        Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), on.port()))
    }
}

#[async_trait]
impl Net for SimNet {
    async fn connect(&self, to: SocketAddr) -> io::Result<BoxStream> {
        Ok(Box::new(turmoil::net::TcpStream::connect(to).await?))
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = turmoil::net::TcpListener::bind(self.bindable(on)?).await?;
        let port = listener.local_addr()?.port();
        Ok(Box::new(SimListener(listener, SocketAddr::new(on.ip(), port))))
    }

    async fn bind_udp(&self, on: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        let socket = turmoil::net::UdpSocket::bind(self.bindable(on)?).await?;
        let port = socket.local_addr()?.port();
        Ok(Box::new(SimUdp { socket: Arc::new(socket), local: SocketAddr::new(on.ip(), port), net: self.clone() }))
    }
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.1)
    }
}

#[async_trait]
impl Datagrams for SimUdp {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let (faults, rand) = (*self.net.udp.lock(), &self.net.rand);
        if rand.chance(faults.loss) {
            return Ok(());
        }
        let copies = if rand.chance(faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            if rand.chance(faults.late) {
                let (socket, bytes, detour) = (self.socket.clone(), bytes.to_vec(), rand.millis(10, 500));
                self.net.tasks.spawn("datagram on a detour", async move {
                    tokio::time::sleep(detour).await;
                    let _lost = socket.send_to(&bytes, to).await;
                });
            } else {
                self.socket.send_to(bytes, to).await?;
            }
        }
        Ok(())
    }

    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buf).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn net(host: &str, faults: UdpFaults) -> SimNet {
        SimNet::new(
            turmoil::lookup(host),
            Arc::new(SeededRand::new(1, host)),
            Arc::new(Mutex::new(faults)),
            Tasks::new(),
        )
    }

    #[test]
    fn tcp_carries_bytes_and_a_foreign_address_is_refused() {
        let mut sim = turmoil::Builder::new().rng_seed(1).build();
        sim.host("server", || async {
            let net = net("server", UdpFaults::default());
            let own = SocketAddr::new(turmoil::lookup("server"), 2377);
            let listener = net.listen(own).await?;
            assert_eq!(listener.local_addr()?, own);
            assert!(net.listen("10.1.2.3:99".parse()?).await.is_err());
            let (mut stream, _) = listener.accept().await?;
            let mut buf = [0; 5];
            stream.read_exact(&mut buf).await?;
            stream.write_all(&buf).await?;
            std::future::pending().await
        });
        sim.client("client", async {
            let mut stream =
                net("client", UdpFaults::default()).connect(SocketAddr::new(turmoil::lookup("server"), 2377)).await?;
            stream.write_all(b"hello").await?;
            let mut buf = [0; 5];
            stream.read_exact(&mut buf).await?;
            assert_eq!(&buf, b"hello");
            Ok(())
        });
        sim.run().expect("it ends well");
    }

    /// How many datagrams of 200 arrive, and whether in order.
    fn datagrams(faults: UdpFaults) -> (usize, bool) {
        let arrived: Arc<Mutex<Vec<u8>>> = Arc::default();
        let seen = arrived.clone();
        let mut sim =
            turmoil::Builder::new().rng_seed(1).udp_capacity(1000).simulation_duration(Duration::from_secs(60)).build();
        sim.host("receiver", move || {
            let seen = seen.clone();
            async move {
                let socket = net("receiver", UdpFaults::default()).bind_udp("0.0.0.0:7946".parse()?).await?;
                let mut buf = [0; 1500];
                loop {
                    let (n, _) = socket.recv_from(&mut buf).await?;
                    assert_eq!(n, 1);
                    seen.lock().push(buf[0]);
                }
            }
        });
        sim.client("sender", async move {
            let socket = net("sender", faults).bind_udp("0.0.0.0:0".parse()?).await?;
            let to = SocketAddr::new(turmoil::lookup("receiver"), 7946);
            for n in 0..200 {
                socket.send_to(&[n], to).await?;
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(())
        });
        sim.run().expect("it ends well");
        let arrived = arrived.lock();
        (arrived.len(), arrived.is_sorted())
    }

    #[test]
    fn datagrams_are_lost_doubled_and_overtaken_as_told() {
        assert_eq!(datagrams(UdpFaults::default()), (200, true));
        let (count, _) = datagrams(UdpFaults { loss: 500, ..Default::default() });
        assert!((60..140).contains(&count), "{count}");
        let (count, sorted) = datagrams(UdpFaults { duplicate: 1000, ..Default::default() });
        assert_eq!((count, sorted), (400, true));
        let (count, sorted) = datagrams(UdpFaults { late: 300, ..Default::default() });
        assert_eq!((count, sorted), (200, false));
    }
}
