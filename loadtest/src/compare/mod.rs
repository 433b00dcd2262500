//! `weft load compare`: the measurements of each proxy, and the meaning of their figures. Pure.
//!
//! An [`observation`](observe::Observation) is one measurement of one variant in one round; [`summary`] makes
//! rows of them, [`document`] is the whole as JSON, [`view`] the form for people, as [`text`] and [`html`].
//! [`load`] says which load a measurement uses, [`answer`] reads a plug-in's answer, [`kernel`] the data of
//! `/proc`.
//!
//! Not here: starting proxies, network namespaces and running the load, which `src/command/load/compare/`
//! does.

pub mod answer;
pub mod document;
pub mod html;
pub mod kernel;
pub mod load;
pub mod observe;
pub mod summary;
pub mod text;
pub mod view;

#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use serde::{Serialize, Serializer};

/// The name of the variant without any proxy.
pub const DIRECT: &str = "direct";

/// The name of the pair of sidecars with which all others are compared.
pub const WEFT: &str = "weft";

/// The same pair, measured a second time in each round: the difference is noise.
pub const CONTROL: &str = "weft again";

/// How the proxies carry the requests of the load, which are HTTP/1.1 in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// As requests, which they parse.
    Http,
    /// As bytes of TCP connections, which they do not parse.
    Tcp,
}

impl Path {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Http, Self::Tcp];

    /// Its name in results.
    pub fn token(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// The direction of a bulk transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From the server to the caller.
    Down,
    /// From the caller to the server.
    Up,
}

/// The measurements of every variant in every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measurement {
    /// Many connections, each of which sends its next request after the answer to the last.
    Closed(Path),
    /// One such connection.
    Serial(Path),
    /// This many requests per second, each at its time.
    Rate(Path, u32),
    /// A new connection for each request.
    Connect(Path),
    /// One stream of many bytes.
    Bulk(Path, Direction),
    /// Memory, fresh and with idle connections. Once in a run, in the first round.
    Idle(Path),
}

/// Names of measurements that go together, as `--only` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// [`Measurement::Closed`] of [`Path::Http`].
    Http,
    /// [`Measurement::Closed`] of [`Path::Tcp`].
    Tcp,
    /// [`Measurement::Serial`].
    Serial,
    /// [`Measurement::Rate`].
    Rate,
    /// [`Measurement::Connect`].
    Connect,
    /// [`Measurement::Bulk`].
    Bulk,
    /// [`Measurement::Idle`].
    Idle,
}

impl Group {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 7] = [
        Self::Http,
        Self::Tcp,
        Self::Serial,
        Self::Rate,
        Self::Connect,
        Self::Bulk,
        Self::Idle,
    ];

    /// Its name.
    pub fn token(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Serial => "serial",
            Self::Rate => "rate",
            Self::Connect => "connect",
            Self::Bulk => "bulk",
            Self::Idle => "idle",
        }
    }

    /// Reads a name.
    ///
    /// # Errors
    /// A text that lists the names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|group| group.token() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|group| group.token()).collect();
            format!("no such measurement: write some of {}", names.join(","))
        })
    }

    fn measurements(self, rates: &[u32]) -> Vec<Measurement> {
        let both = |of: fn(Path) -> Measurement| Path::ALL.map(of).to_vec();
        match self {
            Self::Http => vec![Measurement::Closed(Path::Http)],
            Self::Tcp => vec![Measurement::Closed(Path::Tcp)],
            Self::Serial => both(Measurement::Serial),
            Self::Rate => {
                let at = |rate| Path::ALL.map(|path| Measurement::Rate(path, rate));
                rates.iter().flat_map(|rate| at(*rate)).collect()
            }
            Self::Connect => both(Measurement::Connect),
            Self::Bulk => [Direction::Down, Direction::Up]
                .into_iter()
                .flat_map(|way| Path::ALL.map(|path| Measurement::Bulk(path, way)))
                .collect(),
            Self::Idle => both(Measurement::Idle),
        }
    }
}

impl Measurement {
    /// The measurements of some groups, in the order in which they are measured.
    pub fn list(groups: &[Group], rates: &[u32]) -> Vec<Self> {
        let chosen = Group::ALL.iter().filter(|group| groups.contains(group));
        chosen.flat_map(|group| group.measurements(rates)).collect()
    }

    /// How the proxies carry it.
    pub fn path(self) -> Path {
        match self {
            Self::Closed(path)
            | Self::Serial(path)
            | Self::Rate(path, _)
            | Self::Connect(path)
            | Self::Bulk(path, _)
            | Self::Idle(path) => path,
        }
    }
}

impl fmt::Display for Measurement {
    /// Its name in results, as `rate.1000.http`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path().token();
        match self {
            Self::Closed(_) => write!(f, "{path}"),
            Self::Serial(_) => write!(f, "serial.{path}"),
            Self::Rate(_, rate) => write!(f, "rate.{rate}.{path}"),
            Self::Connect(_) => write!(f, "connect.{path}"),
            Self::Bulk(_, Direction::Down) => write!(f, "bulk.down.{path}"),
            Self::Bulk(_, Direction::Up) => write!(f, "bulk.up.{path}"),
            Self::Idle(_) => write!(f, "idle.{path}"),
        }
    }
}

impl Serialize for Measurement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The side on which a proxy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Beside the load generator.
    Caller,
    /// Beside the server.
    Server,
}

/// The variants of a round in their order: each round begins with another one, so that a slow moment of the
/// machine hits all of them equally often.
pub fn rotated<T: Clone>(variants: &[T], round: usize) -> Vec<T> {
    let mut order = variants.to_vec();
    if !order.is_empty() {
        let by = round % order.len();
        order.rotate_left(by);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_come_in_one_order_however_they_are_asked_for() {
        let names = |groups: &[Group]| -> Vec<String> {
            let list = Measurement::list(groups, &[100, 2000]);
            list.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            names(&[Group::Bulk, Group::Rate, Group::Http]),
            [
                "http",
                "rate.100.http",
                "rate.100.tcp",
                "rate.2000.http",
                "rate.2000.tcp",
                "bulk.down.http",
                "bulk.down.tcp",
                "bulk.up.http",
                "bulk.up.tcp"
            ]
        );
        assert_eq!(Group::parse("idle"), Ok(Group::Idle));
        let error = Group::parse("memory").unwrap_err();
        assert!(error.contains("http,tcp,serial"), "{error}");
    }

    #[test]
    fn every_variant_begins_once_in_as_many_rounds_as_there_are_variants() {
        let variants = ["direct", "weft", "other"];
        let mut first: Vec<&str> = (0..3).map(|round| rotated(&variants, round)[0]).collect();
        first.sort_unstable();
        assert_eq!(first, ["direct", "other", "weft"]);
        assert!(rotated::<u8>(&[], 5).is_empty());
    }
}
