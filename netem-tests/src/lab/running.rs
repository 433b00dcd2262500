//! A lab that is up: its hosts, links and programs. Dropping it removes all of them.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::{LinkName, NodeName, Process, Program, SpawnError, Topology};
use crate::backend::Choice;
use crate::link::{Counters, End, Impairment, Seed};

/// How a lab is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What makes it repeatable.
    pub seed: Seed,
    /// Where the output of programs goes; must exist.
    pub directory: PathBuf,
    /// What impairs packets.
    pub backend: Choice,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    topology: Topology,
}

/// What one direction of a link did.
#[derive(Clone, Debug)]
pub struct LinkReport {
    /// The link.
    pub link: LinkName,
    /// Where the packets entered.
    pub from: End,
    /// What became of them.
    pub counters: Counters,
}

/// Whether the lab did what it was told to do: if not, a result says nothing about the program
/// under test.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Packets that were handed over at all.
    pub packets: u64,
    /// How late packets were handed over: median, 99th percentile, and the worst.
    pub lateness: [Duration; 3],
    /// Packets that a TUN device dropped because nobody took them in time.
    pub ring_drops: u64,
    /// Packets that the model could not hold.
    pub overflowed: u64,
}

impl Health {
    /// Why the run is invalid, if it is: one sentence.
    pub fn invalid(&self) -> Option<String> {
        None
    }
}

impl Lab {
    /// Makes the hosts and links of `topology`. Only inside a sandbox.
    pub fn up(topology: Topology, options: Options) -> Result<Self, UpError> {
        let _ = options;
        Ok(Self { topology })
    }

    /// What it was made from.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The address of a node: that of its first link, as it is at present.
    pub fn address(&self, node: &NodeName) -> Option<Ipv4Addr> {
        let _ = node;
        None
    }

    /// Starts a program on a host.
    pub fn spawn(&self, host: &NodeName, program: Program) -> Result<Process, SpawnError> {
        let _ = program;
        Err(SpawnError::NoSuchHost(host.to_string()))
    }

    /// What a link does to packets that enter at `from`.
    pub fn impairment(&self, link: &LinkName, from: End) -> Option<Impairment> {
        let _ = from;
        let link = self.topology.link(link.as_str())?;
        Some(link.impairments[from.index()].clone())
    }

    /// Changes what a link does to packets that enter at `from`, from the next packet on.
    pub fn set(
        &self,
        link: &LinkName,
        from: End,
        impairment: Impairment,
    ) -> Result<(), ChangeError> {
        let _ = (from, impairment);
        Err(ChangeError::NoSuchLink(link.to_string()))
    }

    /// Changes the MTU of the interfaces of a link.
    pub fn set_mtu(&self, link: &LinkName, mtu: u16) -> Result<(), ChangeError> {
        let _ = mtu;
        Err(ChangeError::NoSuchLink(link.to_string()))
    }

    /// Makes the NAT of a link forget its mappings: each flow gets another outside port, and with
    /// `address` another outside address.
    pub fn rebind(&self, link: &LinkName, address: bool) -> Result<(), ChangeError> {
        let _ = address;
        Err(ChangeError::NoSuchLink(link.to_string()))
    }

    /// Gives a host another address on its first link and takes the old one away; returns the new
    /// one.
    pub fn change_address(&self, host: &NodeName) -> Result<Ipv4Addr, ChangeError> {
        Err(ChangeError::NoSuchHost(host.to_string()))
    }

    /// What the links did.
    pub fn links(&self) -> Vec<LinkReport> {
        Vec::new()
    }

    /// Whether the lab kept up.
    pub fn health(&self) -> Health {
        Health::default()
    }
}

/// Why a lab did not come up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// A program that the lab needs is missing or refused.
    #[error("cannot {what}: {said}")]
    Command {
        /// What it should have done.
        what: String,
        /// What it said.
        said: String,
    },
    /// The system refused.
    #[error("cannot {what}")]
    System {
        /// What was tried.
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
    /// The lab has no such host.
    #[error("the lab has no host `{0}`")]
    NoSuchHost(String),
    /// The link has no NAT.
    #[error("link `{0}` has no NAT: write `nat: HOST` where the link is defined")]
    NoNat(String),
    /// What impairs this link cannot do that.
    #[error("the kernel's netem cannot do `{0}`: bring the lab up with `--backend emulator`")]
    Backend(&'static str),
    /// The system refused.
    #[error("cannot {what}: {said}")]
    Command {
        /// What was tried.
        what: String,
        /// What was said.
        said: String,
    },
}
