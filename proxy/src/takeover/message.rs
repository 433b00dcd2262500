//! The messages of two sidecars during a takeover, as bounded JSON, and the meaning of each descriptor. Pure.
//! `channel.rs` carries them.
//!
//! ```text
//!   new                                   running
//!    | request: who I am, what I expect ->  |
//!    |  <- offer, descriptors | refusal     |  goes on as before
//!    | ready ---------------------------->  |  stops reading the mesh port, accepts on
//!    |            <- yours | refusal        |
//!    | taken ---------------------------->  |  will not read unless the new process ends
//!    |   reads the mesh port, accepts       |
//!    | settled -------------------------->  |  gives all else up, finishes what it has
//! ```
//! The running process goes back to its work when the new one ends before it has settled, or does not say
//! *taken* or *settled* in time. From then on it ignores messages: a later message of the new process fails,
//! and the new process ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use weft_config::client::Registration;
use weft_config::settings::LocalAddress;
use weft_transport::endpoint::{EarlierProcess, Epoch};

use crate::limits;

/// Raised with each change of the messages or of the order of descriptors.
const VERSION: u32 = 1;

/// Raised with each addition that an older process may ignore. Processes that send no revision have 0.
const REVISION: u32 = 1;

/// From this revision on a process knows [`Message::Taken`] and [`Offer::elders`].
pub(super) const TAKES: u32 = 1;

/// Bytes before a message: its length.
pub(super) const LENGTH_BYTES: usize = 4;

/// All messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// From the new process.
    Request(Request),
    /// The descriptors follow.
    Offer(Offer),
    /// Why the takeover is refused.
    Refusal(String),
    /// No step can fail any more: hand over.
    Ready,
    /// The running process does not read the mesh port any more.
    Yours,
    /// The new process is about to read it.
    Taken,
    /// The new process serves. The service manager knows it, and will not take the end of the other process
    /// for the end of the service.
    Settled,
}

/// What the new process is, and what it expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// Its SPIFFE ID.
    pub(super) identity: String,
    /// Threads of its data path.
    pub(super) workers: usize,
    /// The address of the mesh side in its settings, if it serves.
    pub(super) mesh: Option<SocketAddr>,
}

/// The sockets that the running process hands over. The descriptors, in this order: for the mesh side a UDP
/// socket per worker, the sending end of a relay per worker, and for each of the elders the same; for each
/// TCP listener one per worker, for each Unix listener one; the admin listener; the admin listener for other
/// hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    /// Its epoch; for a new process that does not know `elders`, also the epochs of those before it.
    pub(super) epochs: Vec<u8>,
    /// The epochs of each process before it that still drains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) elders: Vec<Vec<u8>>,
    /// Threads of its data path.
    pub(super) workers: usize,
    /// The address of the mesh side in its settings, if it serves.
    pub(super) mesh: Option<SocketAddr>,
    /// Its outbound listeners, as its settings name them.
    pub(super) listeners: Vec<LocalAddress>,
    /// Its admin listener, as its settings name it.
    pub(super) admin: SocketAddr,
    /// Its admin listener for other hosts, if there is one; omitted otherwise, for versions without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) observe: Option<SocketAddr>,
    /// Its registration at the config service.
    pub(super) registration: Registration,
    /// Whether it has a table, which is then on disk.
    pub(super) has_table: bool,
}

/// A message that breaks the protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MessageError {
    /// Longer than any message.
    #[error("a message of {0} bytes (at most {max})", max = limits::TAKEOVER_MESSAGE_BYTES_MAX)]
    TooLong(usize),
    /// Another version of the messages.
    #[error(
        "the other process speaks version {0} of the takeover and this one {VERSION}: stop it, then start this one"
    )]
    Version(u32),
    /// No message.
    #[error("not understood: {0}")]
    NotUnderstood(String),
    /// A message that is not allowed at this point.
    #[error("unexpected message")]
    Unexpected,
    /// The descriptors are not those of the offer.
    #[error("{found} descriptors where the offer names {named}")]
    Descriptors {
        /// How many came.
        found: usize,
        /// How many should have.
        named: usize,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    revision: u32,
    message: &'a Message,
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    #[serde(default)]
    revision: u32,
    message: serde_json::Value,
}

/// A message with its length before it.
pub(super) fn encode(message: &Message) -> Result<Vec<u8>, MessageError> {
    let written = Written {
        version: VERSION,
        revision: REVISION,
        message,
    };
    let json = serde_json::to_vec(&written).map_err(not_understood)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= limits::TAKEOVER_MESSAGE_BYTES_MAX)
        .ok_or(MessageError::TooLong(json.len()))?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

/// How many bytes follow.
pub(super) fn length(bytes: [u8; LENGTH_BYTES]) -> Result<usize, MessageError> {
    let length = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    if length > limits::TAKEOVER_MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong(length));
    }
    Ok(length)
}

/// Reads what [`encode`] wrote, without the length; and the revision of the process that wrote it.
pub(super) fn decode(json: &[u8]) -> Result<(Message, u32), MessageError> {
    // The version comes first: the rest of another version's message may be unreadable.
    let read: Read = serde_json::from_slice(json).map_err(not_understood)?;
    if read.version != VERSION {
        return Err(MessageError::Version(read.version));
    }
    let message = serde_json::from_value(read.message).map_err(not_understood)?;
    Ok((message, read.revision))
}

fn not_understood(error: serde_json::Error) -> MessageError {
    MessageError::NotUnderstood(error.to_string())
}

impl Request {
    /// Whether this process may take over from one that is `running`; if not, why.
    pub(super) fn fits(&self, running: &Self) -> Result<(), String> {
        if self.identity != running.identity {
            return Err(format!(
                "it is {}, and the new process is {}",
                running.identity, self.identity
            ));
        }
        if self.workers != running.workers {
            return Err(format!(
                "it has {} workers and the new process {}, and the number belongs to the port: set workers: {}, or stop it first",
                running.workers, self.workers, running.workers
            ));
        }
        if !is_same_place(self.mesh, running.mesh) {
            let text = |mesh: Option<SocketAddr>| {
                mesh.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
            };
            return Err(format!(
                "its mesh side is at {} and the settings of the new process say {}: stop it first",
                text(running.mesh),
                text(self.mesh)
            ));
        }
        Ok(())
    }
}

/// Whether sockets for one address serve for the other. The wildcards of both address families do: a process
/// goes on with the sockets that it was given, even if they are for IPv4 alone.
fn is_same_place(one: Option<SocketAddr>, other: Option<SocketAddr>) -> bool {
    let wildcard = one.and_then(other_wildcard);
    one == other || (wildcard.is_some() && wildcard == other)
}

/// The wildcard address of the other family.
pub(super) fn other_wildcard(address: SocketAddr) -> Option<SocketAddr> {
    let other: IpAddr = match address {
        SocketAddr::V4(_) => Ipv6Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    let is_wildcard = address.ip().is_unspecified();
    is_wildcard.then_some((other, address.port()).into())
}

/// The descriptors of an offer, sorted by their use.
#[derive(Debug)]
pub(crate) struct OfferedSockets {
    /// UDP sockets, and the relays to the processes that had them; none for a sidecar that serves nothing.
    pub(crate) mesh: Option<(Vec<OwnedFd>, Vec<EarlierProcess>)>,
    /// By the address in the settings.
    pub(crate) listeners: Vec<(LocalAddress, Vec<OwnedFd>)>,
    /// Of the admin endpoint, by the address in the settings.
    pub(crate) admin: Vec<(SocketAddr, OwnedFd)>,
}

impl Offer {
    /// How many descriptors come with it.
    pub(super) fn descriptors(&self) -> usize {
        let listeners = self.listeners.iter().map(|listen| self.sockets_of(listen));
        let each = self.elders.len().saturating_add(2);
        let mesh = self.mesh.map_or(0, |_| self.workers.saturating_mul(each));
        let admin = 1 + usize::from(self.observe.is_some());
        listeners.fold(mesh.saturating_add(admin), usize::saturating_add)
    }

    fn sockets_of(&self, listen: &LocalAddress) -> usize {
        match listen {
            LocalAddress::Tcp(_) => self.workers,
            LocalAddress::Unix(_) => 1,
        }
    }

    /// Assigns each of the descriptors its use.
    pub(super) fn assign(&self, descriptors: Vec<OwnedFd>) -> Result<OfferedSockets, MessageError> {
        let (found, named) = (descriptors.len(), self.descriptors());
        if found != named {
            return Err(MessageError::Descriptors { found, named });
        }
        let mut descriptors = descriptors.into_iter();
        let mut take = |count| descriptors.by_ref().take(count).collect::<Vec<_>>();
        let mesh = self.mesh.map(|_| {
            let sockets = take(self.workers);
            let processes = std::iter::once(&self.epochs).chain(&self.elders);
            let elders = processes.map(|epochs| EarlierProcess {
                epochs: epochs.iter().copied().map(Epoch).collect(),
                relays: take(self.workers),
            });
            (sockets, elders.collect())
        });
        let listeners = self
            .listeners
            .iter()
            .map(|listen| (listen.clone(), take(self.sockets_of(listen))))
            .collect();
        let admin = std::iter::once(self.admin).chain(self.observe);
        let admin = admin.zip(descriptors).collect();
        Ok(OfferedSockets {
            mesh,
            listeners,
            admin,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn offer() -> Offer {
        Offer {
            epochs: vec![7],
            elders: vec![vec![9]],
            workers: 2,
            mesh: Some("10.0.0.1:6143".parse().unwrap()),
            listeners: vec![
                "127.0.0.1:5001".parse().unwrap(),
                "unix:/run/s".parse().unwrap(),
            ],
            admin: "127.0.0.1:6191".parse().unwrap(),
            observe: None,
            registration: Registration {
                instance: "a".into(),
                healthy: vec![("orders.shop".parse().unwrap(), 80)],
            },
            has_table: true,
        }
    }

    fn request() -> Request {
        Request {
            identity: "spiffe://demo.test/ns/shop/sa/orders".into(),
            workers: 2,
            mesh: None,
        }
    }

    fn descriptors(count: usize) -> Vec<OwnedFd> {
        (0..count)
            .map(|_| UnixStream::pair().unwrap().0.into())
            .collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        for message in [
            Message::Request(request()),
            Message::Offer(offer()),
            Message::Refusal("no".into()),
            Message::Ready,
            Message::Yours,
            Message::Taken,
            Message::Settled,
        ] {
            let bytes = encode(&message).unwrap();
            let (head, json) = bytes.split_first_chunk().unwrap();
            assert_eq!(length(*head), Ok(json.len()));
            assert_eq!(decode(json), Ok((message, REVISION)));
        }
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert!(matches!(length([0xff; 4]), Err(MessageError::TooLong(_))));
        let long = Message::Refusal("x".repeat(limits::TAKEOVER_MESSAGE_BYTES_MAX));
        assert!(matches!(encode(&long), Err(MessageError::TooLong(_))));
        for json in [
            &b""[..],
            b"{}",
            b"null",
            b"\xff\xfe",
            br#"{"version":1}"#,
            br#"{"version":1,"message":"mine"}"#,
            br#"{"version":1,"message":{"request":{"identity":"a","workers":-1,"mesh":null}}}"#,
            br#"{"version":1,"message":{"request":{"identity":"a","workers":1,"mesh":null,"more":1}}}"#,
        ] {
            let refused = decode(json);
            assert!(
                matches!(refused, Err(MessageError::NotUnderstood(_))),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn another_version_is_named_whatever_it_says() {
        let json = br#"{"version":2,"message":{"unheard":[]}}"#;
        assert_eq!(decode(json), Err(MessageError::Version(2)));
    }

    #[test]
    fn a_process_of_the_first_revision_understands_and_is_understood() {
        let json = br#"{"version":1,"message":"ready"}"#;
        assert_eq!(decode(json), Ok((Message::Ready, 0)));
        // It refuses fields of an offer that it does not know.
        let offer = Offer {
            elders: Vec::new(),
            ..offer()
        };
        let written = serde_json::to_string(&offer).unwrap();
        assert!(!written.contains("elders"), "{written}");
    }

    #[test]
    fn each_descriptor_has_its_place_and_a_wrong_number_has_none() {
        let offer = offer();
        assert_eq!(offer.descriptors(), 2 * 3 + 2 + 1 + 1);
        let offered = offer.assign(descriptors(10)).unwrap();
        let (sockets, elders) = offered.mesh.as_ref().unwrap();
        assert_eq!(sockets.len(), 2);
        let epochs: Vec<&[Epoch]> = elders.iter().map(|elder| &*elder.epochs).collect();
        assert_eq!(epochs, [&[Epoch(7)], &[Epoch(9)]]);
        assert!(elders.iter().all(|elder| elder.relays.len() == 2));
        let counts: Vec<usize> = offered.listeners.iter().map(|(_, all)| all.len()).collect();
        assert_eq!(counts, [2, 1]);
        let (admin, observe) = ("127.0.0.1:6191", "10.0.0.1:6192");
        let at = |offered: &OfferedSockets| -> Vec<String> {
            offered.admin.iter().map(|(at, _)| at.to_string()).collect()
        };
        assert_eq!(at(&offered), [admin]);
        let more = Offer {
            observe: observe.parse().ok(),
            ..offer.clone()
        };
        assert_eq!(at(&more.assign(descriptors(11)).unwrap()), [admin, observe]);
        for found in [0, 9, 11] {
            let refused = offer.assign(descriptors(found)).err();
            assert_eq!(
                refused,
                Some(MessageError::Descriptors { found, named: 10 })
            );
        }
        let huge = Offer {
            workers: usize::MAX,
            ..offer
        };
        assert_eq!(huge.descriptors(), usize::MAX);
    }

    #[test]
    fn only_a_process_of_the_same_identity_workers_and_port_takes_over() {
        let running = request();
        assert_eq!(request().fits(&running), Ok(()));
        let refused = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            request.fits(&running).unwrap_err()
        };
        assert!(refused(|request| request.workers = 3).contains("set workers: 2"));
        assert!(refused(|request| request.identity.push('x')).contains("ordersx"));
        let elsewhere = |request: &mut Request| request.mesh = "1.2.3.4:5".parse().ok();
        assert!(refused(elsewhere).contains("1.2.3.4:5"));
    }

    #[test]
    fn the_wildcards_of_both_address_families_are_one_place() {
        let at = |mesh: &str| Request {
            mesh: mesh.parse().ok(),
            ..request()
        };
        assert_eq!(at("[::]:6143").fits(&at("0.0.0.0:6143")), Ok(()));
        assert_eq!(at("0.0.0.0:6143").fits(&at("[::]:6143")), Ok(()));
        for (one, other) in [
            ("[::]:6143", "0.0.0.0:6144"),
            ("[::]:6143", "10.0.0.1:6143"),
            ("10.0.0.1:6143", "0.0.0.0:6143"),
            ("10.0.0.1:6143", ""),
            ("[::]:6143", ""),
            ("", "[::]:6143"),
        ] {
            assert!(at(one).fits(&at(other)).is_err(), "{one} {other}");
        }
    }
}
