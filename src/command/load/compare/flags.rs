//! The flags of `weft load compare`, with their ranges.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weft_loadtest::compare::Group;
use weft_loadtest::limits;
use weft_transport::units::{parse_bytes, parse_duration};

use super::plugin::Plugin;
use crate::failure::{Code, Failure};
use crate::output::Format;

/// Ethernet's, and what most paths carry.
const MTU: u32 = 1500;

/// Measures weft, no proxy and other proxies beside each other, and prints one table.
///
/// Each round measures every variant once, in an order that rotates, and weft a second time: what differs by
/// less than these two is not distinguishable. As root the two sides are network namespaces joined by a veth
/// pair, else both are on loopback. A PLUGIN is an executable that starts a pair of other proxies.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Compare {
    /// Executables that start other pairs of proxies
    #[arg(value_name = "PLUGIN")]
    plugin: Vec<PathBuf>,

    /// What to measure, some of http,tcp,serial,rate,connect,bulk,idle [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = Group::parse)]
    only: Vec<Group>,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::COMPARE_ROUNDS_MAX)))]
    pub rounds: u32,
    /// How long each load counts
    #[arg(short, long, value_name = "LENGTH", default_value = "3s", value_parser = parse_duration)]
    pub duration: Duration,
    /// How long it is sent before it counts
    #[arg(long, value_name = "LENGTH", default_value = "500ms", value_parser = parse_duration)]
    pub warm_up: Duration,
    /// Connections of the closed loops
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    pub connections: usize,
    /// Requests per second at which latency is measured
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1000, 2000])]
    pub rates: Vec<u32>,
    /// Size of a bulk transfer
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = bulk_size)]
    pub bulk: usize,
    /// Connections that are held idle
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = idle_connections)]
    pub idle: usize,
    /// Threads of each proxy
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = workers)]
    pub workers: usize,
    /// Threads of the load generator
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// MTU of the link between the two sides [default: 1500]
    #[arg(long, value_name = "BYTES", conflicts_with = "loopback", value_parser = clap::value_parser!(u32).range(1280..=65535))]
    mtu: Option<u32>,
    /// Both sides on loopback, as root too
    #[arg(long)]
    loopback: bool,
    /// Measure nothing: start everything, say where it is, and wait for Ctrl-C. For profilers, with
    /// --loopback
    #[arg(long)]
    pub hold: bool,

    /// How to print the result; JSON is described in docs/compare-json.md
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
    /// Also write one HTML file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// No lines of progress
    #[arg(long)]
    pub quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  weft load compare                                       weft and no proxy, all measurements
  weft load compare compare/envoy-h2 compare/envoy-tcp    and Envoy: docs/compare.md says how to install it
  weft load compare --only http,tcp --rounds 5 --html report.html
  weft load compare --only bulk --mtu 9000 ./my-proxy     your own: docs/compare.md says what it must do";

impl Compare {
    /// The plug-ins, looked at.
    pub fn plugins(&self) -> Result<Vec<Plugin>, Failure> {
        let mut plugins: Vec<Plugin> = Vec::new();
        for path in &self.plugin {
            let plugin = Plugin::new(path)?;
            if plugins.iter().any(|known| known.name == plugin.name) {
                let line = format!("two plug-ins are called `{}`: rename one", plugin.name);
                return Err(Failure::new(Code::Usage, line));
            }
            plugins.push(plugin);
        }
        if self.rates.len() > limits::COMPARE_RATES_MAX {
            let line = format!(
                "--rates has {} entries: at most {}",
                self.rates.len(),
                limits::COMPARE_RATES_MAX
            );
            return Err(Failure::new(Code::Usage, line));
        }
        if self.mtu.is_some() && !self.wants_namespaces() {
            let line = "--mtu needs root: without it both sides are on loopback";
            return Err(Failure::new(Code::NotPermitted, line));
        }
        Ok(plugins)
    }

    /// The kinds of measurements.
    pub fn groups(&self) -> Vec<Group> {
        if self.only.is_empty() {
            return Group::ALL.to_vec();
        }
        self.only.clone()
    }

    /// Whether the two sides get namespaces of their own.
    pub fn wants_namespaces(&self) -> bool {
        !self.loopback && nix::unistd::geteuid().is_root()
    }

    /// Of the link between them.
    pub fn mtu(&self) -> u32 {
        self.mtu.unwrap_or(MTU)
    }
}

fn bulk_size(text: &str) -> Result<usize, String> {
    let size = parse_bytes(text)?;
    let in_range = (1..=limits::SERVE_BODY_MAX).contains(&size);
    usize::try_from(size)
        .ok()
        .filter(|_| in_range)
        .ok_or_else(|| format!("{text} is out of range: write 1B to 1GiB"))
}

fn idle_connections(text: &str) -> Result<usize, String> {
    number(text, 20_000)
}

fn workers(text: &str) -> Result<usize, String> {
    number(text, limits::THREADS_MAX)
}

fn number(text: &str, most: usize) -> Result<usize, String> {
    let parsed = text.parse().ok();
    parsed
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("write 1 to {most}"))
}
