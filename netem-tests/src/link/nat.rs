//! Network address translation that can lose its mappings: an inside address and port get an outside address
//! and port, the same for every peer (RFC 4787: endpoint-independent mapping and filtering). Pure.
//!
//! Packets from outside without a mapping are dropped. ICMP errors pass with the packets that they quote
//! translated (RFC 5508 section 4). Ports are assigned in order: which flow gets which depends only on the
//! order of the flows.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use super::IpPacket;
use super::ip::{Place, Protocol, Side};
use crate::limits;

/// The mappings of one link.
#[derive(Debug)]
pub struct NatTable {
    outside: Ipv4Addr,
    next_port: u16,
    outward: HashMap<(Protocol, Place), Mapping>,
    inward: HashMap<(Protocol, u16), Place>,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    used: Instant,
}

/// The result for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translated {
    /// It goes on, with its new address and port.
    Yes,
    /// There is no mapping for it.
    Unmapped,
}

impl NatTable {
    /// No mappings yet; outgoing packets get the address `outside`.
    pub fn new(outside: Ipv4Addr) -> Self {
        Self {
            outside,
            next_port: limits::NAT_PORT_FIRST,
            outward: HashMap::new(),
            inward: HashMap::new(),
        }
    }

    /// The address outside.
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// Drops every mapping, as a NAT that was restarted; continuing flows get other ports, and `outside` as
    /// their address.
    pub fn rebind(&mut self, outside: Ipv4Addr) {
        self.outside = outside;
        self.outward.clear();
        self.inward.clear();
    }

    /// Translates a packet that goes out.
    pub fn out(&mut self, now: Instant, packet: &mut IpPacket) -> Translated {
        if let Some(inside) = packet.quoted(Side::Destination) {
            let Some(port) = self.outward.get(&inside).map(|mapping| mapping.port) else {
                return Translated::Unmapped;
            };
            let address = self.outside;
            packet.set_quoted(Side::Destination, Place { address, port });
            return Translated::Yes;
        }
        let (Some(protocol), Some(source)) = (packet.protocol(), packet.place(Side::Source)) else {
            return Translated::Unmapped;
        };
        let known = self.outward.get_mut(&(protocol, source)).map(|mapping| {
            mapping.used = now;
            mapping.port
        });
        let Some(port) = known.or_else(|| self.map(now, protocol, source)) else {
            return Translated::Unmapped;
        };
        let address = self.outside;
        packet.set_place(Side::Source, Place { address, port });
        Translated::Yes
    }

    /// Translates a packet that comes in.
    pub fn back(&mut self, packet: &mut IpPacket) -> Translated {
        if let Some((protocol, quoted)) = packet.quoted(Side::Source) {
            let inside = self.inward.get(&(protocol, quoted.port));
            let Some(inside) = inside.filter(|_| quoted.address == self.outside) else {
                return Translated::Unmapped;
            };
            packet.set_quoted(Side::Source, *inside);
            return Translated::Yes;
        }
        let place = packet.place(Side::Destination);
        let inside = packet.protocol().zip(place).and_then(|(protocol, place)| {
            let mapped = self.inward.get(&(protocol, place.port));
            mapped.filter(|_| place.address == self.outside)
        });
        let Some(inside) = inside else {
            return Translated::Unmapped;
        };
        packet.set_place(Side::Destination, *inside);
        Translated::Yes
    }

    /// A new mapping; `None` if every one of the last [`limits::NAT_MAPPINGS_MAX`] is in use.
    fn map(&mut self, now: Instant, protocol: Protocol, source: Place) -> Option<u16> {
        if self.outward.len() >= limits::NAT_MAPPINGS_MAX {
            self.forget_idle(now);
        }
        if self.outward.len() >= limits::NAT_MAPPINGS_MAX {
            return None;
        }
        // There are more ports than mappings, so one is free.
        while self.inward.contains_key(&(protocol, self.next_port)) {
            self.advance();
        }
        let port = self.next_port;
        self.advance();
        self.outward
            .insert((protocol, source), Mapping { port, used: now });
        self.inward.insert((protocol, port), source);
        Some(port)
    }

    fn advance(&mut self) {
        self.next_port = match self.next_port.checked_add(1) {
            Some(port) => port,
            None => limits::NAT_PORT_FIRST,
        };
    }

    fn forget_idle(&mut self, now: Instant) {
        let inward = &mut self.inward;
        self.outward.retain(|(protocol, _), mapping| {
            let idle = now.saturating_duration_since(mapping.used);
            let keep = idle < limits::NAT_IDLE_MAX;
            if !keep {
                inward.remove(&(*protocol, mapping.port));
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::Packet;
    use super::super::ip::tests::{is_sound, place, udp};
    use super::*;

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 100);

    fn out(nat: &mut NatTable, source: Place) -> Option<Place> {
        let mut packet = udp(source, place(2, 443), b"out");
        let translated = nat.out(Instant::now(), &mut packet);
        assert!(is_sound(&packet));
        (translated == Translated::Yes)
            .then(|| packet.place(Side::Source))
            .flatten()
    }

    fn back(nat: &mut NatTable, to: Place) -> Option<Place> {
        let mut packet = udp(place(2, 443), to, b"back");
        (nat.back(&mut packet) == Translated::Yes)
            .then(|| packet.place(Side::Destination))
            .flatten()
    }

    #[test]
    fn a_flow_keeps_its_outside_place_and_answers_find_it() {
        let mut nat = NatTable::new(OUTSIDE);
        let first = out(&mut nat, place(1, 5000)).unwrap();
        assert_eq!(first.address, OUTSIDE);
        assert_eq!(out(&mut nat, place(1, 5000)), Some(first));
        assert_ne!(out(&mut nat, place(1, 5001)), Some(first));
        assert_eq!(back(&mut nat, first), Some(place(1, 5000)));
    }

    #[test]
    fn without_a_mapping_nothing_comes_in() {
        let mut nat = NatTable::new(OUTSIDE);
        assert_eq!(back(&mut nat, place(100, 20_000)), None);
        let outside = out(&mut nat, place(1, 5000)).unwrap();
        let elsewhere = Place {
            address: place(101, 0).address,
            ..outside
        };
        assert_eq!(back(&mut nat, elsewhere), None);
    }

    #[test]
    fn after_a_rebinding_flows_go_on_from_another_place_and_the_old_one_is_dead() {
        let mut nat = NatTable::new(OUTSIDE);
        let before = out(&mut nat, place(1, 5000)).unwrap();
        nat.rebind(place(101, 0).address);
        assert_eq!(back(&mut nat, before), None);
        let after = out(&mut nat, place(1, 5000)).unwrap();
        assert_eq!(after.address, place(101, 0).address);
        assert_ne!(after.port, before.port);
        assert_eq!(back(&mut nat, after), Some(place(1, 5000)));
    }

    /// "Destination unreachable" from `from` to `to`, about the beginning of `packet`.
    fn unreachable(from: Ipv4Addr, to: Ipv4Addr, packet: &IpPacket) -> IpPacket {
        let quoted = &packet.as_bytes()[..28];
        let mut bytes = vec![0x45, 0, 0, 20 + 8 + 28, 0, 0, 0, 0, 64, 1, 0, 0];
        bytes.extend(from.octets());
        bytes.extend(to.octets());
        bytes.extend([3, 4, 0, 0, 0, 0, 5, 0]);
        bytes.extend(quoted);
        let mut packet = IpPacket::new(bytes);
        packet.fix_checksum();
        packet
    }

    #[test]
    fn an_error_reaches_the_sender_of_the_packet_that_it_quotes() {
        let mut nat = NatTable::new(OUTSIDE);
        let (inside, peer, router) = (place(1, 5000), place(2, 443), place(9, 0));
        let mut sent = udp(inside, peer, b"too long");
        assert_eq!(nat.out(Instant::now(), &mut sent), Translated::Yes);
        let mut error = unreachable(router.address, OUTSIDE, &sent);
        assert_eq!(nat.back(&mut error), Translated::Yes);
        assert_eq!(error.quoted(Side::Source), Some((Protocol::Udp, inside)));
        assert_eq!(error.quoted(Side::Destination), Some((Protocol::Udp, peer)));
        assert_eq!(error.as_bytes()[16..20], inside.address.octets());
        // The quoted header is as it was when it left its sender.
        let original = udp(inside, peer, b"too long");
        assert_eq!(error.as_bytes()[28..48], original.as_bytes()[..20]);
        let icmp = error.as_bytes()[22..24].to_vec();
        error.fix_checksum();
        assert_eq!(error.as_bytes()[22..24], icmp);
        // Errors about an unknown flow do not pass.
        let foreign = udp(place(100, 1), peer, b"foreign!");
        let mut error = unreachable(router.address, OUTSIDE, &foreign);
        assert_eq!(nat.back(&mut error), Translated::Unmapped);
    }

    #[test]
    fn an_error_of_an_inside_host_goes_out_under_the_outside_place() {
        let mut nat = NatTable::new(OUTSIDE);
        let (inside, peer) = (place(1, 5000), place(2, 443));
        let outside = out(&mut nat, inside).unwrap();
        let arrived = udp(peer, inside, b"nobody listens");
        let mut error = unreachable(inside.address, peer.address, &arrived);
        assert_eq!(nat.out(Instant::now(), &mut error), Translated::Yes);
        assert_eq!(
            error.quoted(Side::Destination),
            Some((Protocol::Udp, outside))
        );
        assert_eq!(error.as_bytes()[12..16], OUTSIDE.octets());
    }

    #[test]
    fn mappings_are_bounded_and_idle_ones_make_room() {
        let mut nat = NatTable::new(OUTSIDE);
        let start = Instant::now();
        let send = |nat: &mut NatTable, now, number: usize| {
            let source = Place {
                address: Ipv4Addr::from_bits(number as u32),
                port: 1,
            };
            nat.out(now, &mut udp(source, place(2, 443), b""))
        };
        for number in 0..limits::NAT_MAPPINGS_MAX {
            assert_eq!(send(&mut nat, start, number), Translated::Yes);
        }
        let number = limits::NAT_MAPPINGS_MAX;
        assert_eq!(send(&mut nat, start, number), Translated::Unmapped);
        let later = start + limits::NAT_IDLE_MAX;
        assert_eq!(send(&mut nat, later, number), Translated::Yes);
        assert_eq!(nat.outward.len(), 1);
        assert_eq!(nat.inward.len(), 1);
    }
}
