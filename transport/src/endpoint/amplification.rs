//! How much a handshake may send to an address that has not proven that it receives: three times the bytes
//! that came from it (RFC 9000 section 8.1). Pure; `shared.rs` asks before it sends.
//!
//! quinn keeps the rule except for its last datagram, which may begin below the limit and end above it: 3.5
//! times were measured for a client that sends one hello. Bytes over the limit are not sent here, and quinn
//! takes them for lost.
//!
//! A handshake is known by the client's address and connection ID, and counts only packets with a long header
//! (RFC 9000 section 17.2). So a hello with a forged source does not slow an established connection, whose
//! packets are not even looked up. Before the handshake quinn sends one short packet, the new connection IDs
//! of the server; room is reserved for it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use crate::limits;

/// How many times the received bytes may be sent.
const FACTOR: u64 = 3;

/// Bytes of the one short packet: 8 NEW_CONNECTION_ID frames of 28 bytes at most, header and tag.
const SHORT_PACKET: u64 = 300;

/// Bytes of a datagram with a first packet; a server drops smaller ones (RFC 9000 section 14.1).
const HELLO_MIN: usize = 1200;

/// A connection ID of QUIC v1: at most 20 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    length: u8,
    bytes: [u8; 20],
}

/// The part of a long header that all versions share, except the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LongHeader {
    is_initial: bool,
    destination: Id,
    source: Id,
}

/// One handshake.
#[derive(Debug, Default)]
struct Account {
    received: u64,
    sent: u64,
    /// The server's connection ID. It has six random bytes, so a client that sends to it has received it.
    chosen: Option<Id>,
    validated: bool,
}

/// The handshakes of late.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: BTreeMap<(SocketAddr, Id), Account>,
    /// Their keys, oldest first.
    order: VecDeque<(SocketAddr, Id)>,
}

/// Whether a datagram begins with a long header.
pub(super) fn is_long(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}

impl Ledger {
    /// A datagram came.
    pub(super) fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let Some(header) = LongHeader::parse(datagram) else {
            return;
        };
        let key = (from, header.source);
        if !self.accounts.contains_key(&key) {
            if !header.is_initial || datagram.len() < HELLO_MIN {
                return;
            }
            // A sender that floods this with spoofed hellos gets Retries, and before those quinn's own limit.
            if self.order.len() >= limits::HELLOS_KEPT
                && let Some(oldest) = self.order.pop_front()
            {
                self.accounts.remove(&oldest);
            }
            self.order.push_back(key);
        }
        let account = self.accounts.entry(key).or_default();
        account.received += datagram.len() as u64;
        account.validated |= account.chosen == Some(header.destination);
    }

    /// How many of `contents`' bytes may be sent: whole datagrams of `segment` bytes, the last of which may
    /// be shorter.
    pub(super) fn allowed(&self, to: SocketAddr, contents: &[u8], segment: usize) -> usize {
        let mut spent = BTreeMap::new();
        let mut allowed = 0;
        for datagram in contents.chunks(segment.max(1)) {
            if let Some(header) = LongHeader::parse(datagram)
                && let Some(account) = self.accounts.get(&(to, header.destination))
                && !account.validated
            {
                let spent = spent.entry(header.destination).or_insert(account.sent);
                *spent += datagram.len() as u64;
                if *spent + SHORT_PACKET > FACTOR * account.received {
                    break;
                }
            }
            allowed += datagram.len();
        }
        allowed
    }

    /// These bytes were sent.
    pub(super) fn send(&mut self, to: SocketAddr, contents: &[u8], segment: usize) {
        for datagram in contents.chunks(segment.max(1)) {
            if let Some(header) = LongHeader::parse(datagram)
                && let Some(account) = self.accounts.get_mut(&(to, header.destination))
            {
                account.sent += datagram.len() as u64;
                account.chosen = Some(header.source);
            }
        }
    }
}

impl LongHeader {
    /// `None` for a short header, for a version other than 1, and for bytes that are not a packet.
    fn parse(datagram: &[u8]) -> Option<Self> {
        let (first, rest) = datagram.split_first()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        if first & 0x80 == 0 || u32::from_be_bytes(*version) != 1 {
            return None;
        }
        let (destination, rest) = Id::parse(rest)?;
        let (source, _) = Id::parse(rest)?;
        Some(Self {
            is_initial: first & 0x30 == 0,
            destination,
            source,
        })
    }
}

impl Id {
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (length, rest) = bytes.split_first()?;
        let (id, rest) = rest.split_at_checked(usize::from(*length))?;
        let mut bytes = [0; 20];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        let id = Self {
            length: *length,
            bytes,
        };
        Some((id, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: u8 = 0xc0;
    const HANDSHAKE: u8 = 0xe0;
    const SHORT: u8 = 0x40;
    const CLIENT: &[u8] = b"client";
    const SERVER: &[u8] = b"server";

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn packet(first: u8, destination: &[u8], source: &[u8], length: usize) -> Vec<u8> {
        let mut packet = vec![first, 0, 0, 0, 1];
        for id in [destination, source] {
            packet.push(u8::try_from(id.len()).unwrap());
            packet.extend_from_slice(id);
        }
        packet.resize(length, 0);
        packet
    }

    /// Sends as many bytes as the ledger allows, and returns that number.
    fn send(ledger: &mut Ledger, to: SocketAddr, contents: &[u8], segment: usize) -> usize {
        let allowed = ledger.allowed(to, contents, segment);
        ledger.send(to, &contents[..allowed], segment);
        allowed
    }

    fn after_a_hello(length: usize) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.receive(address(1), &packet(INITIAL, b"whatever", CLIENT, length));
        ledger
    }

    #[test]
    fn the_datagram_that_would_end_above_the_limit_is_not_sent() {
        let mut ledger = after_a_hello(1200);
        let full = packet(INITIAL, CLIENT, SERVER, 1200);
        let flight = [full.as_slice(), &full, &full].concat();
        assert_eq!(send(&mut ledger, address(1), &flight, 1200), 2400);
        assert_eq!(send(&mut ledger, address(1), &full, 1200), 0);
        // 900 and room for the short packet are left.
        assert_eq!(send(&mut ledger, address(1), &full[..901], 901), 0);
        assert_eq!(send(&mut ledger, address(1), &full[..900], 900), 900);
    }

    #[test]
    fn more_from_the_client_allows_three_times_more() {
        let mut ledger = after_a_hello(1200);
        ledger.receive(address(1), &packet(INITIAL, b"whatever", CLIENT, 1200));
        let flight = packet(INITIAL, CLIENT, SERVER, 1200).repeat(9);
        assert_eq!(send(&mut ledger, address(1), &flight, 1200), 5 * 1200);
    }

    #[test]
    fn a_sender_that_uses_the_servers_connection_id_has_received_it_and_gets_all() {
        let mut ledger = after_a_hello(1200);
        let flight = packet(HANDSHAKE, CLIENT, SERVER, 1200).repeat(9);
        let guess = packet(HANDSHAKE, b"guess!", CLIENT, 60);
        send(&mut ledger, address(1), &flight, 1200);
        ledger.receive(address(1), &guess);
        assert_eq!(send(&mut ledger, address(1), &flight, 1200), 0);
        ledger.receive(address(1), &packet(HANDSHAKE, SERVER, CLIENT, 60));
        assert_eq!(send(&mut ledger, address(1), &flight, 1200), flight.len());
    }

    #[test]
    fn a_hello_in_the_name_of_another_takes_nothing_from_a_connection_that_stands() {
        let mut ledger = after_a_hello(1200);
        let mut established = vec![SHORT];
        established.extend_from_slice(CLIENT);
        established.resize(50 * 1200, 0);
        assert_eq!(
            send(&mut ledger, address(1), &established, 1200),
            established.len()
        );
        let other = packet(HANDSHAKE, b"other", SERVER, 9000);
        assert_eq!(send(&mut ledger, address(1), &other, 1200), 9000);
        assert_eq!(send(&mut ledger, address(2), &other, 1200), 9000);
    }

    #[test]
    fn no_more_handshakes_are_kept_than_the_bound() {
        let mut ledger = Ledger::default();
        for number in 0..limits::HELLOS_KEPT + 9 {
            let id = number.to_be_bytes();
            ledger.receive(address(1), &packet(INITIAL, b"whatever", &id, 1200));
        }
        // Too small for a server to answer.
        ledger.receive(address(1), &packet(INITIAL, b"whatever", CLIENT, 1199));
        let kept = (ledger.accounts.len(), ledger.order.len());
        assert_eq!(kept, (limits::HELLOS_KEPT, limits::HELLOS_KEPT));
    }

    #[test]
    fn what_is_no_packet_of_this_version_is_not_counted() {
        let whole = packet(INITIAL, CLIENT, SERVER, 1200);
        for length in 0..19 {
            assert_eq!(LongHeader::parse(&whole[..length]), None, "{length}");
        }
        assert!(LongHeader::parse(&whole[..19]).is_some());
        let mut negotiation = whole.clone();
        negotiation[4] = 0;
        assert_eq!(LongHeader::parse(&negotiation), None);
        let long = packet(INITIAL, &[0; 21], SERVER, 1200);
        assert_eq!(LongHeader::parse(&long), None);
    }
}
