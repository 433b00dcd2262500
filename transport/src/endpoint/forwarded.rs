//! Datagrams that two processes sharing a port pass between them: which process each belongs to, and how a
//! datagram is encoded with its source. Pure. `shared.rs` reads the port, `relay.rs` carries the datagrams.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use quinn::udp::{EcnCodepoint, RecvMeta};

use crate::steering::{CONNECTION_ID_LENGTH, Epoch};

/// Which process a datagram is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addressee {
    /// The process that reads the port: every datagram that no earlier process can know.
    Own,
    /// The earlier process with this epoch.
    Earlier(Epoch),
    /// A first packet that may belong to either process: the one that does not know it drops it.
    Either(Epoch),
}

/// Decides by the connection ID, whose second byte is the epoch of the process that chose it.
///
/// A client chooses the ID of a first packet, and it need not name a process. Peers of the mesh choose one of
/// another length; another client may match length and epoch by chance, once in 256.
pub(super) fn addressee(datagram: &[u8], is_elder: impl Fn(Epoch) -> bool) -> Addressee {
    const LONG_HEADER: u8 = 0x80;
    const TYPE: u8 = 0x30;
    const INITIAL: u8 = 0x00;
    const ZERO_RTT: u8 = 0x10;

    let Some(first) = datagram.first() else {
        return Addressee::Own;
    };
    // RFC 9000 sections 17.2 (version, length and connection ID follow the flags) and 17.3.
    let is_long = first & LONG_HEADER != 0;
    let id = match is_long {
        true if datagram.get(5).copied().map(usize::from) == Some(CONNECTION_ID_LENGTH) => {
            datagram.get(6..6 + CONNECTION_ID_LENGTH)
        }
        true => None,
        false => datagram.get(1..=CONNECTION_ID_LENGTH),
    };
    let Some([_, epoch, ..]) = id else {
        return Addressee::Own;
    };
    let epoch = Epoch(*epoch);
    if !is_elder(epoch) {
        return Addressee::Own;
    }
    if is_long && matches!(first & TYPE, INITIAL | ZERO_RTT) {
        Addressee::Either(epoch)
    } else {
        Addressee::Earlier(epoch)
    }
}

/// Bytes before a forwarded datagram.
pub(super) const HEADER_LENGTH: usize = 40;

/// The first byte, by which a process of another version notices a changed layout.
const FORMAT: u8 = 1;

const SOURCE_V6: u8 = 1;
const HAS_DESTINATION: u8 = 1 << 1;
const DESTINATION_V6: u8 = 1 << 2;
const ECN_SHIFT: u8 = 4;

/// The facts that the kernel gives about a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) source: SocketAddr,
    /// The local address that it was sent to, from which the answer must come.
    pub(super) destination: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
}

impl Origin {
    pub(super) fn of(meta: &RecvMeta) -> Self {
        Self {
            source: meta.addr,
            destination: meta.dst_ip,
            ecn: meta.ecn,
        }
    }

    /// `format, flags, port (2), scope (4), source (16), destination (16)`.
    pub(super) fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut flags = self.ecn.map_or(0, |ecn| (ecn as u8) << ECN_SHIFT);
        let mut scope = 0;
        if let SocketAddr::V6(source) = self.source {
            flags |= SOURCE_V6;
            scope = source.scope_id();
        }
        if let Some(destination) = self.destination {
            flags |= HAS_DESTINATION;
            if destination.is_ipv6() {
                flags |= DESTINATION_V6;
            }
        }
        let destination = self.destination.map_or([0; 16], octets);
        let mut header = [0; HEADER_LENGTH];
        let parts: [&[u8]; 5] = [
            &[FORMAT, flags],
            &self.source.port().to_be_bytes(),
            &scope.to_be_bytes(),
            &octets(self.source.ip()),
            &destination,
        ];
        for (to, from) in header.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        header
    }

    /// `None` for bytes that this version does not write.
    pub(super) fn decode(header: &[u8; HEADER_LENGTH]) -> Option<Self> {
        let (head, addresses) = header.split_first_chunk::<8>()?;
        let [format, flags, port @ .., s0, s1, s2, s3] = *head;
        let (source, destination) = addresses.split_first_chunk::<16>()?;
        let destination = destination.first_chunk::<16>()?;
        if format != FORMAT {
            return None;
        }
        let port = u16::from_be_bytes(port);
        let source = match address(source, flags & SOURCE_V6 != 0) {
            IpAddr::V4(v4) => SocketAddr::from((v4, port)),
            IpAddr::V6(v6) => {
                SocketAddrV6::new(v6, port, 0, u32::from_be_bytes([s0, s1, s2, s3])).into()
            }
        };
        Some(Self {
            source,
            destination: (flags & HAS_DESTINATION != 0)
                .then(|| address(destination, flags & DESTINATION_V6 != 0)),
            ecn: EcnCodepoint::from_bits(flags >> ECN_SHIFT),
        })
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn address(octets: &[u8; 16], is_v6: bool) -> IpAddr {
    let [a, b, c, d, ..] = *octets;
    if is_v6 {
        Ipv6Addr::from(*octets).into()
    } else {
        Ipv4Addr::new(a, b, c, d).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Epoch = Epoch(7);

    fn addressee_of(datagram: &[u8], elders: &[Epoch]) -> Addressee {
        addressee(datagram, |epoch| elders.contains(&epoch))
    }

    fn short(epoch: u8) -> Vec<u8> {
        vec![0x40, 3, epoch, 0, 0, 0, 0, 0, 0, 99, 99]
    }

    fn long(kind: u8, id: &[u8]) -> Vec<u8> {
        let length = u8::try_from(id.len()).unwrap();
        [&[0xc0 | kind, 0, 0, 0, 1, length][..], id, &[0; 20]].concat()
    }

    #[test]
    fn packets_of_a_connection_go_to_the_process_that_chose_its_id() {
        assert_eq!(addressee_of(&short(7), &[OLD]), Addressee::Earlier(OLD));
        assert_eq!(addressee_of(&short(8), &[OLD]), Addressee::Own);
        let other = Epoch(8);
        assert_eq!(
            addressee_of(&short(8), &[OLD, other]),
            Addressee::Earlier(other)
        );
        assert_eq!(addressee_of(&short(7), &[]), Addressee::Own);
        let handshake = long(0x20, &[3, 7, 0, 0, 0, 0, 0, 0]);
        assert_eq!(addressee_of(&handshake, &[OLD]), Addressee::Earlier(OLD));
    }

    #[test]
    fn new_connections_stay_with_the_process_that_reads() {
        let of_a_peer = long(0, &[0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(addressee_of(&of_a_peer, &[OLD]), Addressee::Own);
        let of_a_stranger = long(0, &[3, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(addressee_of(&of_a_stranger, &[OLD]), Addressee::Own);
    }

    #[test]
    fn a_first_packet_that_could_be_a_second_one_goes_to_both() {
        for kind in [0x00, 0x10] {
            let packet = long(kind, &[3, 7, 0, 0, 0, 0, 0, 0]);
            assert_eq!(addressee_of(&packet, &[OLD]), Addressee::Either(OLD));
        }
    }

    #[test]
    fn what_is_no_packet_stays() {
        for datagram in [
            &[][..],
            &[0x40, 1],
            &[0xc0, 0, 0, 0, 1],
            &[0xc0; 7],
            &[0; 8],
        ] {
            assert_eq!(
                addressee_of(datagram, &[OLD, Epoch(0)]),
                Addressee::Own,
                "{datagram:?}"
            );
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let v6: SocketAddr = "[fe80::1%4]:443".parse().unwrap();
        let v4: SocketAddr = "10.0.0.7:6143".parse().unwrap();
        let destinations = [None, Some(v4.ip()), Some(v6.ip())];
        for source in [v4, v6] {
            for destination in destinations {
                for ecn in [None, Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ce)] {
                    let origin = Origin {
                        source,
                        destination,
                        ecn,
                    };
                    assert_eq!(Origin::decode(&origin.encode()), Some(origin));
                }
            }
        }
    }

    #[test]
    fn any_bytes_decode_or_are_refused_and_another_format_is_refused() {
        for byte in 0..=u8::MAX {
            let mut header = [byte; HEADER_LENGTH];
            assert_eq!(Origin::decode(&header).is_some(), byte == FORMAT);
            header[0] = FORMAT;
            assert!(Origin::decode(&header).is_some());
        }
    }
}
