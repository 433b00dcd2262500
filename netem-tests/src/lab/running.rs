//! A lab that is up: its hosts and links. Dropping it removes all of them.
//!
//! `wire.rs` makes a link of either back-end; `host.rs` is a network namespace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use weft_transport::locks::lock;

use super::host::{Host, system};
use super::wire::Wire;
use super::{
    LinkName, NodeKind, NodeName, Process, Program, SpawnError, Topology, plan, sandbox, wire,
};
use crate::backend::{Backend, Choice, Unavailable};
use crate::emulator;
use crate::limits;
use crate::link::{Counters, End, Impairment, Seed};

/// How a lab is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed that makes it repeatable.
    pub seed: Seed,
    /// Where the output of programs goes; must exist.
    pub directory: PathBuf,
    /// The back-end for its links.
    pub backend: Choice,
    /// All later settings of links, so that [`Choice::Auto`] knows them.
    pub later: Vec<Impairment>,
    /// Whether the emulator keeps the last packets of each link, see [`Lab::take_captures`].
    pub capture: bool,
    /// The congestion control of TCP on all hosts, as the kernel calls it; `None`: its default.
    pub tcp_congestion: Option<String>,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
    directory: PathBuf,
    backend: Backend,
    process: u32,
    // Before the hosts: a wire's devices are in their namespaces.
    wires: Vec<Wire>,
    hosts: BTreeMap<NodeName, Host>,
    state: Mutex<State>,
    names: Names,
}

/// The parts that change while it runs.
#[derive(Debug)]
struct State {
    /// By link.
    addresses: Vec<[Ipv4Addr; 2]>,
    impairments: Vec<[Impairment; 2]>,
}

/// The counts of one direction of a link.
#[derive(Clone, Debug)]
pub struct LinkReport {
    /// The link.
    pub link: LinkName,
    /// Where the packets entered.
    pub from: End,
    /// Its present impairment.
    pub impairment: Impairment,
    /// The counts of its packets. All zero if the kernel's netem impairs them.
    pub counters: Counters,
}

/// Whether the lab itself worked as intended: if not, a result says nothing about the program under test.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Packets that were delivered at all.
    pub packets: u64,
    /// How late packets were delivered: median, 99th percentile, and the worst.
    pub lateness: [Duration; 3],
    /// Packets that a TUN device dropped because they were not read in time.
    pub ring_drops: u64,
    /// Packets that the model had no room for.
    pub overflowed: u64,
    /// Whether the emulator's threads have priority over all ordinary ones.
    pub real_time: bool,
}

impl Health {
    /// Why the run is invalid, if it is: one sentence.
    pub fn invalid(&self) -> Option<String> {
        let [_, late, _] = self.lateness;
        if self.ring_drops > 0 {
            return Some(format!(
                "{} packets were lost before the emulator saw them: the machine is too busy, or \
                 something sends without pacing",
                self.ring_drops
            ));
        }
        if self.overflowed > 0 {
            return Some(format!(
                "{} packets were more than the emulator holds: lower the delay or the rate",
                self.overflowed
            ));
        }
        (late > limits::LATENESS_P99_MAX).then(|| {
            format!(
                "one packet in a hundred was {late:.1?} late or more (allowed: {:?}): the machine \
                 is too busy",
                limits::LATENESS_P99_MAX
            )
        })
    }
}

impl Lab {
    /// Makes the hosts and links of `topology`. Only inside a [`super::sandbox`].
    pub fn up(topology: Topology, options: Options) -> Result<Self, UpError> {
        let mut hosts = BTreeMap::new();
        for node in topology.nodes() {
            let host = Host::new(node.name.as_str())
                .map_err(|source| system("make a network namespace", source))?;
            host.sysctl(settings(node.kind))?;
            host.ip(vec!["link set lo up".to_owned()])?;
            hosts.insert(node.name.clone(), host);
        }
        let specs = topology.links();
        let backend = options.backend.decide(
            specs
                .iter()
                .flat_map(|link| &link.impairments)
                .chain(&options.later),
            specs.iter().any(|link| link.nat.is_some()),
            || wire::probe_netem(hosts.values().next()),
        )?;
        let mut wires = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let ends = [&spec.ends[0], &spec.ends[1]].map(|node| &hosts[node]);
            wires.push(Wire::up(backend, index, spec, ends, &options)?);
        }
        for (node, host) in &hosts {
            let routes = plan::routes(&topology, node);
            let lines = routes.into_iter().map(|(network, own)| {
                let link = &specs[own];
                let peer = link
                    .end_of(node)
                    .map(|end| plan::first_address(own, end.other()));
                let congestion = options.tcp_congestion.as_deref();
                let (network, link) = (plan::network(network), link.name.as_str());
                wire::route(backend, &network, link, peer, congestion)
            });
            host.ip(lines.collect())?;
        }
        let addresses = (0..specs.len())
            .map(|link| End::BOTH.map(|end| plan::first_address(link, end)))
            .collect();
        let impairments = specs.iter().map(|link| link.impairments.clone()).collect();
        let lab = Self {
            names: Names::mount(&options.directory),
            directory: options.directory,
            state: Mutex::new(State {
                addresses,
                impairments,
            }),
            topology,
            backend,
            process: sandbox::outside_id(),
            wires,
            hosts,
        };
        lab.write_names();
        Ok(lab)
    }

    /// The topology from which it was made.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The back-end for its links.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The address of a node: that of its first link, as it is at present; loopback for a node
    /// without a link.
    pub fn address(&self, node: &NodeName) -> Option<Ipv4Addr> {
        self.topology.node(node.as_str())?;
        Some(match self.first_link(node) {
            Some((link, end)) => self.state().addresses[link][end.index()],
            None => Ipv4Addr::LOCALHOST,
        })
    }

    /// Starts a program on a host.
    pub fn spawn(&self, host: &NodeName, program: Program) -> Result<Process, SpawnError> {
        let Some(host) = self.hosts.get(host) else {
            return Err(SpawnError::NoSuchHost(host.to_string()));
        };
        Process::start(host, program, &self.directory)
    }

    /// What a link does to packets that enter at `from`.
    pub fn impairment(&self, link: &LinkName, from: End) -> Option<Impairment> {
        let index = self.link_index(link).ok()?;
        Some(self.state().impairments[index][from.index()].clone())
    }

    /// Changes what a link does to packets that enter at `from`, from the next packet on.
    pub fn set(
        &self,
        link: &LinkName,
        from: End,
        impairment: Impairment,
    ) -> Result<(), ChangeError> {
        let index = self.link_index(link)?;
        // Held until it takes effect, so that two changes cannot end up in different orders.
        let mut state = self.state();
        self.wires[index].set(from, &impairment, self.ends(index))?;
        state.impairments[index][from.index()] = impairment;
        Ok(())
    }

    /// Changes the MTU of the interfaces of a link, in bytes.
    pub fn set_mtu(&self, link: &LinkName, mtu: u16) -> Result<(), ChangeError> {
        let index = self.link_index(link)?;
        if !(limits::MTU_MIN..=limits::MTU_MAX).contains(&mtu) {
            return Err(ChangeError::Mtu(mtu));
        }
        for host in self.ends(index) {
            host.ip(vec![format!("link set dev {link} mtu {mtu}")])?;
        }
        Ok(())
    }

    /// Makes the NAT of a link forget its mappings: each flow gets another outside port, and with
    /// `address` another outside address.
    pub fn rebind(&self, link: &LinkName, address: bool) -> Result<(), ChangeError> {
        let index = self.link_index(link)?;
        let outside = |current| match address {
            true => plan::next_outside(current),
            false => current,
        };
        match self.wires[index].rebind(outside) {
            true => Ok(()),
            false => Err(ChangeError::NoNat(link.to_string())),
        }
    }

    /// Gives a host another address on its link and removes the old one; returns the new one. Sockets bound
    /// to the old address stay bound and reach no peer, as when a laptop changes its network.
    pub fn change_address(&self, host: &NodeName) -> Result<Ipv4Addr, ChangeError> {
        let found = self.first_link(host).zip(self.hosts.get(host)).filter(|_| {
            let node = self.topology.node(host.as_str());
            node.is_some_and(|node| node.kind == NodeKind::Host)
        });
        let Some(((link, end), namespace)) = found else {
            return Err(ChangeError::NoSuchHost(host.to_string()));
        };
        let mut state = self.state();
        let old = state.addresses[link][end.index()];
        let new = plan::next_address(old, &state.addresses[link]);
        let name = &self.topology.links()[link].name;
        namespace.ip(vec![
            format!("address add {new}/32 dev {name}"),
            format!("address del {old}/32 dev {name}"),
        ])?;
        state.addresses[link][end.index()] = new;
        drop(state);
        self.write_names();
        Ok(new)
    }

    /// The state and the counts of the links.
    pub fn links(&self) -> Vec<LinkReport> {
        let state = self.state();
        let directions = self
            .topology
            .links()
            .iter()
            .enumerate()
            .flat_map(|link| End::BOTH.map(|from| (link, from)));
        directions
            .map(|((index, spec), from)| LinkReport {
                link: spec.name.clone(),
                from,
                impairment: state.impairments[index][from.index()].clone(),
                counters: self.wires[index].counters(from),
            })
            .collect()
    }

    /// The last packets of each link as files of pcapng, if they were kept; this empties the captures.
    pub fn take_captures(&self) -> Vec<(LinkName, Vec<u8>)> {
        let links = self.topology.links().iter().zip(&self.wires);
        let captures = links.filter_map(|(spec, wire)| {
            let capture = wire.emulator()?.take_capture()?;
            Some((spec.name.clone(), capture))
        });
        captures.collect()
    }

    /// Whether the lab kept up.
    pub fn health(&self) -> Health {
        let emulators = || self.wires.iter().filter_map(Wire::emulator);
        let (packets, lateness) = emulator::worst(
            emulators().flat_map(|emulator| End::BOTH.map(|from| emulator.lateness(from))),
        );
        let ring_drops = self.hosts.values().filter_map(|host| host.drops().ok());
        Health {
            packets,
            lateness,
            ring_drops: ring_drops.flatten().map(|(_, drops)| drops).sum(),
            overflowed: emulators()
                .flat_map(|emulator| End::BOTH.map(|from| emulator.counters(from).overflowed))
                .sum(),
            real_time: emulators().all(emulator::Emulator::is_real_time),
        }
    }

    /// For each node the descriptor of its network namespace, in this process.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&NodeName, i32)> {
        self.hosts
            .iter()
            .map(|(name, host)| (name, host.descriptor()))
    }

    /// The id of this process in the outer PID namespace.
    pub(super) fn process(&self) -> u32 {
        self.process
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn link_index(&self, link: &LinkName) -> Result<usize, ChangeError> {
        let links = self.topology.links();
        links
            .iter()
            .position(|spec| spec.name == *link)
            .ok_or_else(|| ChangeError::NoSuchLink(link.to_string()))
    }

    fn ends(&self, link: usize) -> [&Host; 2] {
        let [first, second] = &self.topology.links()[link].ends;
        [&self.hosts[first], &self.hosts[second]]
    }

    fn first_link(&self, node: &NodeName) -> Option<(usize, End)> {
        let links = self.topology.links().iter().enumerate();
        links
            .filter_map(|(index, link)| Some((index, link.end_of(node)?)))
            .next()
    }

    fn write_names(&self) {
        let mut text = String::from("127.0.0.1 localhost\n");
        for node in self.topology.nodes() {
            if let Some(address) = self.address(&node.name) {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{address} {}", node.name);
            }
        }
        self.names.write(&text);
    }
}

/// The settings of every namespace: it sends no packets by itself and keeps no memory of peers.
fn settings(kind: NodeKind) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        // Its background packets would shift the numbers of the packets under test.
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
        // The kernel keeps ssthresh and round-trip times of peers.
        ("ipv4/tcp_no_metrics_save", "1"),
        // A NAT's outside address belongs to no interface; answers to it come from where no route leads.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
    ];
    if kind == NodeKind::Router {
        settings.push(("ipv4/ip_forward", "1"));
    }
    settings
}

/// The lab's /etc/hosts: a file of its own over that of the machine, seen by the lab alone.
#[derive(Debug)]
struct Names {
    path: PathBuf,
    mounted: bool,
}

impl Names {
    fn mount(directory: &Path) -> Self {
        let path = directory.join("hosts");
        let mounted = std::fs::write(&path, "").is_ok()
            && mount(
                Some(&path),
                "/etc/hosts",
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .is_ok();
        Self { path, mounted }
    }

    /// In place, because the mount is of this very file.
    fn write(&self, text: &str) {
        if let Err(error) = std::fs::write(&self.path, text) {
            tracing::warn!(%error, "the lab's /etc/hosts is not up to date");
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2("/etc/hosts", MntFlags::MNT_DETACH);
        }
    }
}

/// Why a lab did not come up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A program that the lab needs is missing or refused.
    #[error("cannot {what}: {said}")]
    Command {
        /// The step.
        what: String,
        /// Its error output.
        said: String,
    },
    /// The requested back-end is not available.
    #[error(transparent)]
    Backend(#[from] Unavailable),
    /// The system refused.
    #[error("cannot {what}")]
    System {
        /// The step.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The lab has no such link.
    #[error("the lab has no link `{0}`")]
    NoSuchLink(String),
    /// The lab has no such host, or it has no link.
    #[error("the lab has no host `{0}` with a link")]
    NoSuchHost(String),
    /// The link has no NAT.
    #[error("link `{0}` has no NAT: write `nat: HOST` where the link is defined")]
    NoNat(String),
    /// An MTU that no interface has.
    #[error("an MTU of {0}: write {min} to {max} (bytes)", min = limits::MTU_MIN, max = limits::MTU_MAX)]
    Mtu(u16),
    /// The back-end cannot do that, or the system refused.
    #[error(transparent)]
    System(#[from] UpError),
}
