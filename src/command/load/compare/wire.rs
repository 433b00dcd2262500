//! The two hosts of a comparison: network namespaces joined by a veth pair, or both on loopback.
//!
//! The namespaces are made inside of the lab's sandbox: their names are in a file system that only this
//! process and its children see, so that no trace is left, however this process ends. Offloads stay as the
//! kernel sets them, unlike on the lab's links, because a comparison includes them.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::failure::{Code, Failure};

/// Where named network namespaces are (ip-netns(8)).
const NAMES: &str = "/run/netns";
const CALLER: &str = "weft-caller";
const SERVER: &str = "weft-server";
const CALLER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 1);
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 2);

/// Settings that sustain thousands of new connections per second: more ports, and ports that are free again
/// as soon as their time stamps allow (RFC 6191).
const SETTINGS: &str = "echo 12000 65000 > /proc/sys/net/ipv4/ip_local_port_range && \
                        echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse";

/// The network between the two sides.
pub struct Wire {
    /// The address of the caller's side.
    pub caller: IpAddr,
    /// The address of the server's side.
    pub server: IpAddr,
    /// The namespace of the server's side; without it both sides are in this one.
    pub server_namespace: Option<&'static str>,
    /// Of the link.
    pub mtu: Option<u32>,
    /// For people.
    pub description: String,
}

impl Wire {
    /// Both sides on this host's loopback.
    pub fn loopback() -> Self {
        Self {
            caller: Ipv4Addr::LOCALHOST.into(),
            server: Ipv4Addr::LOCALHOST.into(),
            server_namespace: None,
            mtu: None,
            description: format!("loopback of one host, TCP {}", congestion()),
        }
    }

    /// Makes the namespaces and moves this thread into the caller's; threads and processes that it starts
    /// belong to it. Only inside of a sandbox, and before other threads start.
    pub fn namespaces(mtu: u32) -> Result<Self, Failure> {
        let own = std::fs::read_link("/proc/self");
        if !own.is_ok_and(|link| link.to_str() == Some(&std::process::id().to_string())) {
            return Err(Failure::new(
                Code::NotPermitted,
                "this machine forbids a /proc of its own, so processes could not be found: use --loopback",
            ));
        }
        std::fs::create_dir_all(NAMES)
            .map_err(|error| Failure::io(std::path::Path::new(NAMES), &error))?;
        run(&["mount", "-t", "tmpfs", "weft-compare", NAMES])?;
        for name in [CALLER, SERVER] {
            run(&["ip", "netns", "add", name])?;
        }
        let link = format!(
            "ip link add wire netns {CALLER} mtu {mtu} type veth peer name wire netns {SERVER} mtu {mtu}"
        );
        run(&link.split(' ').collect::<Vec<_>>())?;
        for (name, address) in [(CALLER, CALLER_ADDRESS), (SERVER, SERVER_ADDRESS)] {
            run(&[
                "ip",
                "-n",
                name,
                "address",
                "add",
                &format!("{address}/24"),
                "dev",
                "wire",
            ])?;
            run(&["ip", "-n", name, "link", "set", "wire", "up"])?;
            run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
            run(&["ip", "netns", "exec", name, "sh", "-c", SETTINGS])?;
        }
        let path = std::path::Path::new(NAMES).join(CALLER);
        let namespace = File::open(&path).map_err(|error| Failure::io(&path, &error))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("cannot enter a network namespace: {error}"),
            )
        })?;
        Ok(Self {
            caller: CALLER_ADDRESS.into(),
            server: SERVER_ADDRESS.into(),
            server_namespace: Some(SERVER),
            mtu: Some(mtu),
            description: format!(
                "two network namespaces, veth of MTU {mtu}, TCP {}",
                congestion()
            ),
        })
    }

    /// Words that lead a command to the server's side.
    pub fn to_server(&self) -> Vec<String> {
        let Some(name) = self.server_namespace else {
            return Vec::new();
        };
        ["ip", "netns", "exec", name].map(str::to_owned).to_vec()
    }
}

/// Ports that are free at the moment, on this side's loopback.
pub fn free_ports<const N: usize>() -> Result<[u16; N], Failure> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener): (SocketAddr, _) = bound
            .map_err(|error| Failure::new(Code::Failed, format!("no free TCP port: {error}")))?;
        *port = address.port();
        // All ports stay open until the last is found, so that they differ.
        held.push(listener);
    }
    Ok(ports)
}

fn run(words: &[&str]) -> Result<(), Failure> {
    let failed = |reason: String| {
        let line = format!(
            "`{}`: {reason} (--loopback needs none of it)",
            words.join(" ")
        );
        Failure::new(Code::Failed, line)
    };
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(said.trim().replace('\n', "; ")))
}

/// The ports that TCP uses in this namespace.
fn congestion() -> String {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    text.unwrap_or_default().trim().to_owned()
}
