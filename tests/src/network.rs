//! How the nodes of a cluster reach each other: over loopback addresses, or each from a network namespace of its own with
//! a cable that can be pulled.

use crate::Outcome;
use std::net::SocketAddr;
use std::process::Command;

/// Which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 127.0.x.y: no privileges needed, no faults possible.
    Loopback,
    /// Namespaces joined by a switch: needs root, and links can be cut.
    Namespaces,
}

/// The network of one cluster.
#[derive(Debug)]
pub struct Network {
    kind: Kind,
    /// Tells clusters at the same time apart: in the names of namespaces, and in the addresses' third byte.
    number: u8,
    hosts: usize,
}

// === impl Network ===

impl Network {
    /// Makes a network for so many hosts.
    pub fn new(kind: Kind, hosts: usize) -> Outcome<Self> {
        let network = Self { kind, number: free_number()?, hosts };
        if kind == Kind::Namespaces {
            network
                .build()
                .map_err(|error| format!("{error} (network namespaces need root and the `ip` command of iproute2)"))?;
        }
        Ok(network)
    }

    fn build(&self) -> Outcome<()> {
        let switch = self.switch();
        // The switch has a namespace of its own: in the machine's, Docker's firewall would drop what it forwards.
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for host in 0..self.hosts {
            let (name, port) = (self.namespace(host), port(host));
            ip(&["netns", "add", &name])?;
            ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            ip(&["-n", &name, "addr", "add", &format!("{}/24", self.address(host)), "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> String {
        match self.kind {
            Kind::Loopback => format!("127.1.{}.{}", self.number, host + 1),
            Kind::Namespaces => format!("10.213.{}.{}", self.number, host + 1),
        }
    }

    /// A command that runs on a host.
    pub fn command(&self, host: usize, program: &std::path::Path) -> Command {
        match self.kind {
            Kind::Loopback => Command::new(program),
            Kind::Namespaces => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{}", self.namespace(host))).arg("--").arg(program);
                command
            }
        }
    }

    /// Pulls a host's cable.
    pub fn cut(&self, host: usize) -> Outcome<()> {
        self.only_namespaces()?;
        ip(&["-n", &self.switch(), "link", "set", &port(host), "down"])
    }

    /// Lets a host send but not receive.
    pub fn deafen(&self, host: usize) -> Outcome<()> {
        self.only_namespaces()?;
        self.firewall(host, "-A")
    }

    /// Undoes [`Network::cut`] and [`Network::deafen`].
    pub fn heal(&self, host: usize) -> Outcome<()> {
        self.only_namespaces()?;
        // Not there unless the host was deafened.
        let _ = self.firewall(host, "-D");
        ip(&["-n", &self.switch(), "link", "set", &port(host), "up"])
    }

    fn firewall(&self, host: usize, verb: &str) -> Outcome<()> {
        let mut iptables = self.command(host, std::path::Path::new("iptables"));
        run(iptables.args(["-w", verb, "INPUT", "-i", "eth0", "-j", "DROP"]))
    }

    fn only_namespaces(&self) -> Outcome<()> {
        if self.kind == Kind::Namespaces { Ok(()) } else { Err("loopback cannot be cut: use Kind::Namespaces".into()) }
    }

    fn switch(&self) -> String {
        format!("slt{}-sw", self.number)
    }

    fn namespace(&self, host: usize) -> String {
        format!("slt{}-h{}", self.number, host + 1)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.kind == Kind::Namespaces {
            for host in 0..self.hosts {
                let _ = ip(&["netns", "del", &self.namespace(host)]);
            }
            let _ = ip(&["netns", "del", &self.switch()]);
        }
    }
}

/// The first number whose namespaces and loopback addresses nobody uses.
fn free_number() -> Outcome<u8> {
    let taken = |number: &u8| {
        std::path::Path::new(&format!("/run/netns/slt{number}-sw")).exists()
            || std::net::TcpListener::bind(SocketAddr::from(([127, 1, *number, 1], crate::node::CONTROL_PORT))).is_err()
    };
    (1..=200)
        .find(|number| !taken(number))
        .ok_or_else(|| "no free network number: are old test clusters still running?".into())
}

fn port(host: usize) -> String {
    format!("v{}", host + 1)
}

fn ip(args: &[&str]) -> Outcome<()> {
    run(Command::new("ip").args(args))
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
