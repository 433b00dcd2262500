//! IPv4 packets: the fields that the link model and NAT read and write. Pure.
//!
//! No length in a packet is trusted: a packet whose lengths do not fit counts as one without ports or
//! payload, which still travels.

use std::net::Ipv4Addr;
use std::ops::Range;

use super::Packet;

/// An IPv4 packet as a TUN device delivers it, or any other bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpPacket(Vec<u8>);

/// Protocols whose flows NAT tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Icmp,
    Tcp,
    Udp,
}

/// The source or destination of a packet, for NAT: address and port. The identifier of an ICMP echo serves as
/// its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

// Offsets in the header (RFC 791 section 3.1).
const TOTAL_LENGTH: usize = 2;
const FRAGMENT: usize = 6;
const PROTOCOL: usize = 9;
const HEADER_CHECKSUM: usize = 10;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const HEADER_MIN: usize = 20;
/// The 13 bits of the fragment offset.
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// "More fragments".
const MORE_FRAGMENTS: u16 = 0x2000;
const UDP_HEADER: usize = 8;

impl IpPacket {
    /// Takes the bytes as they are.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its protocol, if NAT knows it and this is no later fragment.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.segment()?;
        match self.0[PROTOCOL] {
            1 => Some(Protocol::Icmp),
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            _ => None,
        }
    }

    /// Its source or destination.
    pub(super) fn place(&self, side: Side) -> Option<Place> {
        let port = self.port_at(side)?;
        let at = address_at(side);
        let address: [u8; 4] = self.0[at..at + 4].try_into().ok()?;
        Some(Place {
            address: address.into(),
            port: self.u16_at(port)?,
        })
    }

    /// Writes another source or destination into the packet, and corrects its checksums (RFC 1624).
    pub(super) fn set_place(&mut self, side: Side, place: Place) {
        let (Some(port), Some(protocol)) = (self.port_at(side), self.protocol()) else {
            return;
        };
        let at = address_at(side);
        let [a, b, c, d] = place.address.octets();
        let words = [[a, b], [c, d]].map(u16::from_be_bytes);
        for (index, word) in words.into_iter().enumerate() {
            let place = at + 2 * index;
            let old = self.u16_at(place).unwrap_or_default();
            self.put(place, word);
            self.adjust(HEADER_CHECKSUM, old, word);
            // The pseudo-header of TCP and UDP holds the addresses; ICMP has none.
            if protocol != Protocol::Icmp {
                self.adjust_segment(old, word);
            }
        }
        let old = self.u16_at(port).unwrap_or_default();
        self.put(port, place.port);
        self.adjust_segment(old, place.port);
    }

    /// If this is an ICMP error: the source or destination of the packet that it quotes.
    pub(super) fn quoted(&self, side: Side) -> Option<(Protocol, Place)> {
        let (protocol, header, port) = self.quote(side)?;
        let at = header + address_at(side);
        let address: [u8; 4] = self.0.get(at..at + 4)?.try_into().ok()?;
        let port = self.u16_at(port)?;
        let address = address.into();
        Some((protocol, Place { address, port }))
    }

    /// Writes another source or destination into the packet that an ICMP error quotes, and its address at the
    /// opposite side of the error itself, because the sender of the quoted packet receives the error. The
    /// checksum of the quoted segment stays as it is: the segment is incomplete, so it cannot be checked.
    pub(super) fn set_quoted(&mut self, side: Side, place: Place) {
        let Some((_, header, port)) = self.quote(side) else {
            return;
        };
        let other = match side {
            Side::Source => Side::Destination,
            Side::Destination => Side::Source,
        };
        for (ip, side) in [(0, other), (header, side)] {
            let [a, b, c, d] = place.address.octets();
            for (index, word) in [[a, b], [c, d]].into_iter().enumerate() {
                let at = ip + address_at(side) + 2 * index;
                let (old, word) = (
                    self.u16_at(at).unwrap_or_default(),
                    u16::from_be_bytes(word),
                );
                self.put(at, word);
                self.adjust(ip + HEADER_CHECKSUM, old, word);
            }
        }
        self.put(port, place.port);
        self.fix_checksum();
    }

    /// Of the packet that an ICMP error quotes (RFC 792): its protocol, the offset of its header, and the
    /// offset of the port of a side.
    fn quote(&self, side: Side) -> Option<(Protocol, usize, usize)> {
        let segment = self.segment()?;
        // Destination unreachable, time exceeded, parameter problem.
        let is_error =
            self.0[PROTOCOL] == 1 && matches!(self.0.get(segment.start), Some(3 | 11 | 12));
        let header = segment.start + UDP_HEADER;
        let first = *self.0.get(header).filter(|_| is_error)?;
        let length = usize::from(first & 0xf) * 4;
        let behind = header + length;
        // An error quotes the header and at least eight bytes.
        let whole = first >> 4 == 4 && length >= HEADER_MIN && behind + 8 <= segment.end;
        if !whole || self.u16_at(header + FRAGMENT)? & FRAGMENT_OFFSET != 0 {
            return None;
        }
        let port = match side {
            Side::Source => behind,
            Side::Destination => behind + 2,
        };
        match self.0[header + PROTOCOL] {
            1 => Some((Protocol::Icmp, header, behind + 4)),
            6 => Some((Protocol::Tcp, header, port)),
            17 => Some((Protocol::Udp, header, port)),
            _ => None,
        }
    }

    /// The bytes behind the IP header, up to the stated length; `None` for anything that is not a whole IPv4
    /// packet, or is a later fragment.
    fn segment(&self) -> Option<Range<usize>> {
        let first = *self.0.first()?;
        let header = usize::from(first & 0xf) * 4;
        let total = usize::from(self.u16_at(TOTAL_LENGTH)?);
        let fragment = self.u16_at(FRAGMENT)?;
        let whole = first >> 4 == 4
            && header >= HEADER_MIN
            && total >= header
            && total <= self.0.len()
            && fragment & FRAGMENT_OFFSET == 0;
        whole.then_some(header..total)
    }

    /// The segment with room for the header of its protocol.
    fn checked_segment(&self) -> Option<(Protocol, Range<usize>)> {
        let segment = self.segment()?;
        let protocol = self.protocol()?;
        let header = match protocol {
            Protocol::Tcp => HEADER_MIN,
            Protocol::Udp | Protocol::Icmp => UDP_HEADER,
        };
        (segment.len() >= header).then_some((protocol, segment))
    }

    /// The offset of the port of a side.
    fn port_at(&self, side: Side) -> Option<usize> {
        let (protocol, segment) = self.checked_segment()?;
        match (protocol, side) {
            (Protocol::Tcp | Protocol::Udp, Side::Source) => Some(segment.start),
            (Protocol::Tcp | Protocol::Udp, Side::Destination) => Some(segment.start + 2),
            // Echo (8) and echo reply (0) have an identifier (RFC 792), other messages do not.
            (Protocol::Icmp, _) => {
                matches!(self.0[segment.start], 0 | 8).then_some(segment.start + 4)
            }
        }
    }

    /// The offset of the segment's checksum, unless it has none.
    fn checksum_at(&self) -> Option<usize> {
        let (protocol, segment) = self.checked_segment()?;
        match protocol {
            Protocol::Icmp => Some(segment.start + 2),
            Protocol::Tcp => Some(segment.start + 16),
            // Zero means that there is none (RFC 768).
            Protocol::Udp => {
                let at = segment.start + 6;
                (self.u16_at(at) != Some(0)).then_some(at)
            }
        }
    }

    fn adjust_segment(&mut self, old: u16, new: u16) {
        if let Some(at) = self.checksum_at() {
            self.adjust(at, old, new);
        }
    }

    /// RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
    fn adjust(&mut self, at: usize, old: u16, new: u16) {
        let checksum = self.u16_at(at).unwrap_or_default();
        let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
        self.put(at, !fold(sum));
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        let bytes = self.0.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    }

    fn put(&mut self, at: usize, value: u16) {
        if let Some(bytes) = self.0.get_mut(at..at + 2) {
            bytes.copy_from_slice(&value.to_be_bytes());
        }
    }
}

impl Packet for IpPacket {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn udp_ports(&self) -> Option<(u16, u16)> {
        (self.protocol()? == Protocol::Udp).then_some(())?;
        let source = self.port_at(Side::Source)?;
        Some((self.u16_at(source)?, self.u16_at(source + 2)?))
    }

    fn payload(&mut self) -> &mut [u8] {
        let range = self.checked_segment().and_then(|(protocol, segment)| {
            let header = match protocol {
                Protocol::Tcp => usize::from(self.0[segment.start + 12] >> 4) * 4,
                Protocol::Udp => UDP_HEADER,
                Protocol::Icmp => return None,
            };
            (header >= UDP_HEADER && header <= segment.len())
                .then_some(segment.start + header..segment.end)
        });
        match range {
            Some(range) => &mut self.0[range],
            None => &mut [],
        }
    }

    fn fix_checksum(&mut self) {
        // Of a fragmented segment only a part is here.
        if self
            .u16_at(FRAGMENT)
            .is_some_and(|fragment| fragment & MORE_FRAGMENTS != 0)
        {
            return;
        }
        let (Some((protocol, segment)), Some(at)) = (self.checked_segment(), self.checksum_at())
        else {
            return;
        };
        self.put(at, 0);
        let pseudo_header = match protocol {
            Protocol::Icmp => 0,
            Protocol::Tcp | Protocol::Udp => {
                sum(&self.0[SOURCE..DESTINATION + 4])
                    + u32::from(self.0[PROTOCOL])
                    + segment.len() as u32
            }
        };
        let checksum = !fold(pseudo_header + sum(&self.0[segment]));
        // A computed zero is sent as all ones (RFC 768).
        let checksum = match (protocol, checksum) {
            (Protocol::Udp, 0) => u16::MAX,
            (_, checksum) => checksum,
        };
        self.put(at, checksum);
    }
}

fn address_at(side: Side) -> usize {
    match side {
        Side::Source => SOURCE,
        Side::Destination => DESTINATION,
    }
}

/// The sum of 16-bit words; at most 65 535 bytes, so that it cannot overflow.
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    let last = rest.first().map_or(0, |byte| u32::from(*byte) << 8);
    words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum::<u32>()
        + last
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A UDP packet with right checksums.
    pub(in super::super) fn udp(from: Place, to: Place, payload: &[u8]) -> IpPacket {
        let length = (28 + payload.len()) as u16;
        let mut bytes = vec![0x45, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        bytes.extend(from.address.octets());
        bytes.extend(to.address.octets());
        let header = !fold(sum(&bytes));
        bytes[10..12].copy_from_slice(&header.to_be_bytes());
        bytes.extend(from.port.to_be_bytes());
        bytes.extend(to.port.to_be_bytes());
        bytes.extend((8 + payload.len() as u16).to_be_bytes());
        // Not zero, so that it is put right.
        bytes.extend([0xff, 0xff]);
        bytes.extend(payload);
        let mut packet = IpPacket::new(bytes);
        packet.fix_checksum();
        packet
    }

    pub(in super::super) fn place(last: u8, port: u16) -> Place {
        Place {
            address: Ipv4Addr::new(10, 88, 0, last),
            port,
        }
    }

    /// Whether both checksums are right: with them the sums are all ones.
    pub(in super::super) fn is_sound(packet: &IpPacket) -> bool {
        let bytes = packet.as_bytes();
        let pseudo = sum(&bytes[12..20]) + 17 + (bytes.len() - 20) as u32;
        fold(sum(&bytes[..20])) == 0xffff && fold(pseudo + sum(&bytes[20..])) == 0xffff
    }

    #[test]
    fn a_udp_packet_shows_its_ports_and_payload() {
        let mut packet = udp(place(1, 5000), place(2, 443), b"hello");
        assert!(is_sound(&packet));
        assert_eq!(packet.udp_ports(), Some((5000, 443)));
        assert_eq!(packet.payload(), b"hello");
    }

    #[test]
    fn a_damaged_packet_is_sound_after_its_checksum_is_put_right() {
        let mut packet = udp(place(1, 5000), place(2, 443), b"hello");
        packet.payload()[1] ^= 0x40;
        assert!(!is_sound(&packet));
        packet.fix_checksum();
        assert!(is_sound(&packet));
        assert_eq!(packet.payload(), b"h%llo");
    }

    #[test]
    fn a_new_place_keeps_the_checksums_right() {
        let mut packet = udp(place(1, 5000), place(2, 443), b"odd");
        packet.set_place(Side::Source, place(100, 61_234));
        packet.set_place(Side::Destination, place(7, 80));
        assert!(is_sound(&packet));
        assert_eq!(packet.place(Side::Source), Some(place(100, 61_234)));
        assert_eq!(packet.place(Side::Destination), Some(place(7, 80)));
    }

    #[test]
    fn no_bytes_are_too_few_or_too_wrong() {
        let whole = udp(place(1, 5000), place(2, 443), b"hello")
            .as_bytes()
            .to_vec();
        for length in 0..whole.len() {
            let mut packet = IpPacket::new(whole[..length].to_vec());
            assert_eq!(packet.udp_ports(), None, "{length} bytes");
            assert!(packet.payload().is_empty());
            packet.fix_checksum();
            packet.set_place(Side::Source, place(9, 9));
            assert_eq!(packet.as_bytes(), &whole[..length]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x0f, 0x4f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let mut packet = IpPacket::new(bytes);
                packet.payload().fill(1);
                packet.fix_checksum();
                packet.set_place(Side::Destination, place(9, 9));
            }
        }
    }
}
