//! Where processes run: a block of loopback addresses of their own, or network namespaces with a wire between
//! them.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::{program, run};

/// A /24 of loopback that belongs to one test, so that every process in it may use the ports that the
/// documentation names.
pub(crate) struct Loopback {
    base: [u8; 2],
    next: AtomicU32,
    /// Bound as long as the block is in use: two runs on one machine never share one.
    _claim: TcpListener,
}

/// The address and port whose listener claims a block. No other code uses them.
const CLAIM: (u8, u16) = (255, 6199);

impl Loopback {
    pub(crate) fn claim() -> Self {
        // Neighbouring runs start apart, and search from there.
        let start = std::process::id().wrapping_mul(97);
        for offset in 0..60_000u32 {
            let [.., high, low] = (start.wrapping_add(offset) % 60_000 + 256).to_be_bytes();
            let address = Ipv4Addr::new(127, high, low, CLAIM.0);
            if let Ok(claim) = TcpListener::bind((address, CLAIM.1)) {
                return Self {
                    base: [high, low],
                    next: AtomicU32::new(1),
                    _claim: claim,
                };
            }
        }
        panic!("no free block of loopback addresses");
    }

    /// An address that no other process of this block has.
    pub(crate) fn address(&self) -> Ipv4Addr {
        let host = self.next.fetch_add(1, Ordering::Relaxed);
        let host = u8::try_from(host).expect("a test needs fewer than 255 addresses");
        Ipv4Addr::new(127, self.base[0], self.base[1], host)
    }
}

/// A network namespace; removed when dropped.
pub(crate) struct Namespace {
    name: String,
    pub(crate) address: Ipv4Addr,
}

impl Namespace {
    /// A namespace with only loopback, of both families.
    pub(crate) fn alone() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = Self {
            name: format!("weft-test-{}-{count}-alone", std::process::id()),
            address: Ipv4Addr::LOCALHOST,
        };
        run(program("ip").args(["netns", "add", &namespace.name])).ok();
        run(namespace.command("ip").args(["link", "set", "lo", "up"])).ok();
        namespace
    }

    /// The same without IPv4.
    pub(crate) fn without_ipv4() -> Self {
        let namespace = Self::alone();
        run(namespace
            .command("ip")
            .args(["address", "del", "127.0.0.1/8", "dev", "lo"]))
        .ok();
        namespace
    }

    /// `name`, to run in this namespace.
    pub(crate) fn command(&self, name: impl AsRef<OsStr>) -> Command {
        let mut command = program("ip");
        command.args(["netns", "exec", &self.name]).arg(name);
        command
    }

    pub(crate) fn socket(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(program("ip").args(["netns", "del", &self.name]));
    }
}

/// Two namespaces and the one wire between them.
pub(crate) struct Wire {
    pub(crate) left: Namespace,
    pub(crate) right: Namespace,
}

impl Wire {
    /// The interface at either end.
    pub(crate) const INTERFACE: &str = "wire0";

    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let end = |side: &str, host: u8| Namespace {
            name: format!("weft-test-{}-{count}-{side}", std::process::id()),
            address: Ipv4Addr::new(10, 61, 43, host),
        };
        let (left, right) = (end("left", 2), end("right", 3));
        for end in [&left, &right] {
            run(program("ip").args(["netns", "add", &end.name])).ok();
        }
        run(program("ip").args([
            "link",
            "add",
            Self::INTERFACE,
            "netns",
            &left.name,
            "type",
            "veth",
            "peer",
            "name",
            Self::INTERFACE,
            "netns",
            &right.name,
        ]))
        .ok();
        for end in [&left, &right] {
            let address = format!("{}/24", end.address);
            // Neighbour discovery of IPv6 would only be noise in a capture.
            run(end
                .command("sysctl")
                .args(["-qw", "net.ipv6.conf.all.disable_ipv6=1"]))
            .ok();
            run(end
                .command("ip")
                .args(["address", "add", &address, "dev", Self::INTERFACE]))
            .ok();
            for interface in ["lo", Self::INTERFACE] {
                run(end.command("ip").args(["link", "set", interface, "up"])).ok();
            }
        }
        Self { left, right }
    }
}
