//! How commands talk to a lab that another command made: one JSON line each way on a socket in the lab's
//! directory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::Card;
use super::{Directory, Health, Lab, LinkName, NodeName, StateError};
use crate::limits;
use crate::link::{Counters, End, Impairment};

/// A request to a lab.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Shows its topology and state.
    Status,
    /// Change a link.
    Set {
        /// Which.
        link: String,
        /// Only for packets from this node.
        from: Option<String>,
        /// `loss`, `5%`; the key `clear` makes the link perfect first.
        settings: Vec<(String, String)>,
    },
    /// Make a NAT forget.
    Rebind {
        /// Its link.
        link: String,
        /// Change the address outside as well.
        address: bool,
    },
    /// Give a host another address.
    Move {
        /// Which.
        host: String,
    },
    /// End.
    Down,
}

/// The lab's answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The lab did what was requested.
    Done,
    /// The host's address.
    Address(Ipv4Addr),
    /// See [`Status`].
    Status(Status),
    /// It is not done; why.
    Refused(String),
}

/// Its topology and state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// `emulator` or `netem`.
    pub backend: String,
    /// Hosts and routers with their addresses.
    pub hosts: Vec<(String, Ipv4Addr)>,
    /// Each direction of each link.
    pub links: Vec<Direction>,
    /// How late packets were handed over, in microseconds: median, 99th percentile, the worst.
    pub lateness_us: [u64; 3],
    /// Packets that were lost before the emulator saw them.
    pub ring_drops: u64,
    /// Why measurements here are invalid, if they are.
    pub invalid: Option<String>,
}

/// One direction of a link.
#[derive(Debug, Serialize, Deserialize)]
pub struct Direction {
    /// The link.
    pub link: String,
    /// Where packets enter.
    pub from: String,
    /// The end at which the packets leave.
    pub to: String,
    /// Its impairment, as it is written.
    pub impairment: String,
    /// The counts of its packets.
    pub counters: Counters,
}

/// Why a lab gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The lab refused the request.
    #[error("{0}")]
    Refused(String),
    /// The lab does not answer.
    #[error("lab `{lab}` does not answer: end it with `weft lab down {lab}`")]
    Silent {
        /// Which.
        lab: String,
        /// The error.
        source: io::Error,
    },
}

/// Asks the lab of `directory`.
pub fn call(directory: &Directory, request: &Request) -> Result<Answer, CallError> {
    let ask = || -> io::Result<Answer> {
        let mut stream = UnixStream::connect(directory.socket())?;
        bound(&stream)?;
        serde_json::to_writer(&stream, request)?;
        stream.write_all(b"\n")?;
        read(&stream)
    };
    match ask() {
        Ok(Answer::Refused(why)) => Err(CallError::Refused(why)),
        Ok(answer) => Ok(answer),
        Err(source) => Err(CallError::Silent {
            lab: directory.name().to_owned(),
            source,
        }),
    }
}

/// Serves `lab` until it is asked to end. `ready` is called once commands can connect.
pub fn serve(lab: Lab, directory: &Directory, ready: impl FnOnce()) -> Result<(), StateError> {
    let socket = directory.socket();
    let listener = UnixListener::bind(&socket).map_err(|source| StateError::Io {
        path: socket,
        source,
    })?;
    let namespaces = lab.namespaces();
    directory.write_card(&Card {
        process: lab.process(),
        namespaces: namespaces
            .map(|(name, descriptor)| (name.to_string(), descriptor))
            .collect(),
    })?;
    ready();
    for stream in listener.incoming() {
        match stream.and_then(|stream| answer(&lab, directory, &stream)) {
            Ok(true) => break,
            Ok(false) => {}
            // The asking command went away, or is not one of weft's.
            Err(error) => tracing::debug!(%error, "a request to the lab failed"),
        }
    }
    Ok(())
}

/// Answers one request; returns whether it was the request to end.
fn answer(lab: &Lab, directory: &Directory, mut stream: &UnixStream) -> io::Result<bool> {
    bound(stream)?;
    let request = read(stream)?;
    let answer = match &request {
        Request::Status => Answer::Status(status(lab, directory)),
        Request::Down => Answer::Done,
        Request::Set {
            link,
            from,
            settings,
        } => done(set(lab, link, from.as_deref(), settings)),
        Request::Rebind { link, address } => done(
            LinkName::new(link)
                .map_err(text)
                .and_then(|link| lab.rebind(&link, *address).map_err(text)),
        ),
        Request::Move { host } => {
            let moved = NodeName::new(host)
                .map_err(text)
                .and_then(|host| lab.change_address(&host).map_err(text));
            moved.map_or_else(Answer::Refused, Answer::Address)
        }
    };
    serde_json::to_writer(stream, &answer)?;
    stream.write_all(b"\n")?;
    Ok(matches!(request, Request::Down))
}

fn set(
    lab: &Lab,
    link: &str,
    from: Option<&str>,
    settings: &[(String, String)],
) -> Result<(), String> {
    let topology = lab.topology();
    let spec = topology.link(link).ok_or_else(|| {
        let names: Vec<&str> = topology
            .links()
            .iter()
            .map(|link| link.name.as_str())
            .collect();
        format!(
            "the lab has no link `{link}`; there are: {}",
            names.join(", ")
        )
    })?;
    let ends = match from {
        None => End::BOTH.to_vec(),
        Some(node) => {
            let found = NodeName::new(node).ok().and_then(|node| spec.end_of(&node));
            let [first, second] = &spec.ends;
            vec![found.ok_or_else(|| {
                format!("`{node}` is not at link `{link}`, which is between {first} and {second}")
            })?]
        }
    };
    // All or nothing: every value is read before the first takes effect.
    let mut changes = Vec::new();
    for end in ends {
        let mut impairment = lab.impairment(&spec.name, end).unwrap_or_default();
        for (key, value) in settings.iter().filter(|(key, _)| key != "mtu") {
            match key.as_str() {
                "clear" => impairment = Impairment::default(),
                key => impairment.set(key, value).map_err(text)?,
            }
        }
        changes.push((end, impairment));
    }
    for (_, value) in settings.iter().filter(|(key, _)| key == "mtu") {
        let mtu = value
            .parse()
            .map_err(|_| format!("`mtu: {value}`: write a number of bytes"))?;
        lab.set_mtu(&spec.name, mtu).map_err(text)?;
    }
    changes
        .into_iter()
        .try_for_each(|(end, impairment)| lab.set(&spec.name, end, impairment).map_err(text))
}

fn status(lab: &Lab, directory: &Directory) -> Status {
    let topology = lab.topology();
    let health: Health = lab.health();
    let hosts = topology.nodes().iter().filter_map(|node| {
        let address = lab.address(&node.name)?;
        Some((node.name.to_string(), address))
    });
    let links = lab.links().into_iter().filter_map(|report| {
        let ends = &topology.link(report.link.as_str())?.ends;
        Some(Direction {
            link: report.link.to_string(),
            from: ends[report.from.index()].to_string(),
            to: ends[report.from.other().index()].to_string(),
            impairment: report.impairment.to_string(),
            counters: report.counters,
        })
    });
    Status {
        name: directory.name().to_owned(),
        backend: format!("{:?}", lab.backend()).to_lowercase(),
        hosts: hosts.collect(),
        links: links.collect(),
        lateness_us: health
            .lateness
            .map(|lateness| u64::try_from(lateness.as_micros()).unwrap_or(u64::MAX)),
        ring_drops: health.ring_drops,
        invalid: health.invalid(),
    }
}

fn done(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(why) => Answer::Refused(why),
    }
}

/// An error and its causes.
fn text(error: impl std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line = format!("{line}: {error}");
        cause = error.source();
    }
    line
}

/// Neither side waits for ever.
fn bound(stream: &UnixStream) -> io::Result<()> {
    let patience: Duration = limits::CONTROL_PATIENCE;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))
}

fn read<T: for<'a> Deserialize<'a>>(stream: &UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(limits::CONTROL_LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}
