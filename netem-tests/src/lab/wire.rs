//! One link of a running lab, made of either back-end.

use std::net::Ipv4Addr;

use super::host::{Host, system, tool};
use super::{LinkSpec, NodeName, Options, UpError, plan};
use crate::backend::{Backend, Unavailable, netem};
use crate::emulator::{Device, Emulator};
use crate::limits;
use crate::link::{Counters, End, Impairment, Seed};

/// A link that is up.
#[derive(Debug)]
pub(super) enum Wire {
    /// TUN devices.
    Emulated(Emulator),
    /// A veth pair with netem at both ends.
    Kernel { name: String, seeds: [Seed; 2] },
}

impl Wire {
    /// Makes link number `index` between two hosts, with addresses and the route to its network.
    pub(super) fn up(
        backend: Backend,
        index: usize,
        spec: &LinkSpec,
        ends: [&Host; 2],
        options: &Options,
    ) -> Result<Self, UpError> {
        let (seed, congestion) = (options.seed, options.tcp_congestion.as_deref());
        let name = spec.name.as_str();
        match backend {
            Backend::Emulator => {
                let devices = [open(ends[0], spec)?, open(ends[1], spec)?];
                give_addresses(index, spec, ends, congestion)?;
                let nat = spec.nat.map(|nat| (nat.inside, plan::first_outside(index)));
                let capture = options.capture.then(|| {
                    let from = |node: &NodeName| format!("{name} from {node}");
                    spec.ends.each_ref().map(from)
                });
                let impairments = spec.impairments.clone();
                Emulator::start(name, devices, seed, impairments, nat, capture)
                    .map(Self::Emulated)
                    .map_err(|source| system("start an emulator", source))
            }
            Backend::Netem => {
                let peer = format!("/proc/{}/fd/{}", own_id()?, ends[1].descriptor());
                ends[0].ip(vec![format!(
                    "link add {name} type veth peer name {name} netns {peer}"
                )])?;
                for host in ends {
                    without_offloads(host, name)?;
                }
                give_addresses(index, spec, ends, congestion)?;
                let wire = Self::Kernel {
                    name: name.to_owned(),
                    seeds: End::BOTH.map(|end| seed.of(name, end)),
                };
                for (from, impairment) in End::BOTH.into_iter().zip(&spec.impairments) {
                    wire.set(from, impairment, ends)?;
                }
                Ok(wire)
            }
        }
    }

    /// Changes the impairment of packets that enter at `from`.
    pub(super) fn set(
        &self,
        from: End,
        impairment: &Impairment,
        ends: [&Host; 2],
    ) -> Result<(), UpError> {
        match self {
            Self::Emulated(emulator) => {
                emulator.set(from, impairment.clone());
                Ok(())
            }
            Self::Kernel { name, seeds } => {
                let options = netem::options(impairment).map_err(Unavailable::Unable)?;
                let arguments = netem::replace(name, options, seeds[from.index()].0);
                run(ends[from.index()], "tc", arguments)
            }
        }
    }

    /// Makes the NAT forget its mappings; false if there is none.
    pub(super) fn rebind(&self, outside: impl FnOnce(Ipv4Addr) -> Ipv4Addr) -> bool {
        self.emulator()
            .is_some_and(|emulator| emulator.rebind(outside))
    }

    pub(super) fn counters(&self, from: End) -> Counters {
        self.emulator()
            .map(|emulator| emulator.counters(from))
            .unwrap_or_default()
    }

    pub(super) fn emulator(&self) -> Option<&Emulator> {
        match self {
            Self::Emulated(emulator) => Some(emulator),
            Self::Kernel { .. } => None,
        }
    }
}

/// A route to `network` by the device `link`, as a line of `ip`. A veth needs a next hop (ARP); a TUN device
/// has only one peer.
pub(super) fn route(
    backend: Backend,
    network: &str,
    link: &str,
    peer: Option<Ipv4Addr>,
    congestion: Option<&str>,
) -> String {
    let route = match (backend, peer) {
        (Backend::Netem, Some(peer)) => {
            format!("route add {network} via {peer} dev {link} onlink")
        }
        (Backend::Emulator | Backend::Netem, _) => format!("route add {network} dev {link}"),
    };
    with_congestion(route, congestion)
}

/// A route whose TCP connections use this congestion control: only here a network namespace may choose any
/// that the kernel has.
fn with_congestion(route: String, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{route} congctl {name}"),
        None => route,
    }
}

/// Tries on `host` whether the kernel has netem, and whether `tc` can seed it.
pub(super) fn probe_netem(host: Option<&Host>) -> Result<(), String> {
    let host = host.ok_or("there is no host to try it on")?;
    // `tc` answers an unknown option with a list of those that it knows.
    let first = |said: String| said.split("; ").next().unwrap_or_default().to_owned();
    let say = |error: UpError| match error {
        UpError::Command { said, .. } => first(said),
        error @ (UpError::Backend(_) | UpError::System { .. }) => error.to_string(),
    };
    host.ip(vec![
        "link add probe0 type veth peer name probe1".to_owned(),
    ])
    .map_err(say)?;
    let tried = run(host, "tc", netem::replace("probe0", Vec::new(), 1)).map_err(say);
    host.ip(vec!["link del probe0".to_owned()]).map_err(say)?;
    tried
}

fn open(host: &Host, spec: &LinkSpec) -> Result<Device, UpError> {
    let (name, mtu) = (spec.name.to_string(), spec.mtu);
    host.run(move || Device::open(&name, mtu))
        .and_then(|opened| opened)
        .map_err(|source| system("open /dev/net/tun (`weft lab check` says more)", source))
}

fn give_addresses(
    index: usize,
    spec: &LinkSpec,
    ends: [&Host; 2],
    congestion: Option<&str>,
) -> Result<(), UpError> {
    let (name, mtu, queue) = (&spec.name, spec.mtu, limits::TUN_QUEUE_PACKETS);
    for (host, end) in ends.into_iter().zip(End::BOTH) {
        host.ip(vec![
            format!("link set dev {name} up mtu {mtu} txqueuelen {queue}"),
            format!(
                "address add {}/32 dev {name}",
                plan::first_address(index, end)
            ),
            with_congestion(
                format!("route add {} dev {name}", plan::network(index)),
                congestion,
            ),
        ])?;
    }
    Ok(())
}

/// Super packets would be impaired as one packet, and damage would not meet a checksum.
fn without_offloads(host: &Host, name: &str) -> Result<(), UpError> {
    let switches = ["tso", "gso", "gro", "tx", "rx", "tx-udp-segmentation"];
    let mut arguments = vec!["-K".to_owned(), name.to_owned()];
    for switch in switches {
        arguments.extend([switch.to_owned(), "off".to_owned()]);
    }
    run(host, "ethtool", arguments)
}

fn run(host: &Host, program: &'static str, arguments: Vec<String>) -> Result<(), UpError> {
    let what = format!("run `{program} {}`", arguments.join(" "));
    host.run(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        tool(program, &arguments, "")
    })
    .map_err(|source| system("reach a host's thread", source))?
    .map_err(|said| UpError::Command { what, said })
}

/// The id of this process as /proc has it, which may count from outside of the sandbox.
fn own_id() -> Result<String, UpError> {
    std::fs::read_link("/proc/self")
        .map(|path| path.display().to_string())
        .map_err(|source| system("read /proc/self", source))
}
