//! Steering by connection ID: every packet reaches the worker that owns its connection.
//!
//! The workers share one UDP port by SO_REUSEPORT. The kernel's default choice, a hash of the addresses, is
//! wrong for QUIC: a connection outlives its addresses, and connections dialled from one port have the same
//! addresses. So a connection ID names its worker, and a classic BPF program in the kernel reads it from the
//! packet. Pure except for [`attach`].

use std::io;
use std::net::UdpSocket;
use std::num::NonZeroU8;

use nix::libc;
use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngExt as _;

/// Length of the connection IDs that this side chooses, in bytes: worker, epoch, and six random
/// bytes so that IDs of one connection cannot be linked (RFC 9000 section 9.5).
pub(crate) const CONNECTION_ID_LENGTH: usize = 8;

/// Length of the connection ID that a first packet is sent to. It differs from that of an ID that a listening
/// side chose, so that a process that reads a port for an earlier one, too, can tell first packets.
const INITIAL_ID_LENGTH: usize = 16;

/// Number of workers that share a port.
pub type Workers = NonZeroU8;

/// One of the workers that share a port: an index below their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Worker {
    index: u8,
    of: Workers,
}

/// Distinguishes this process from its predecessor on the same port, in the second byte of every connection
/// ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub u8);

impl Epoch {
    /// The epoch that `random` leads to, other than those of processes that still run.
    pub fn choose(random: u8, taken: &[Self]) -> Self {
        let following = (0..=u8::MAX).map(|step| Self(random.wrapping_add(step)));
        // Fewer processes share a port than there are epochs.
        following
            .into_iter()
            .find(|epoch| !taken.contains(epoch))
            .unwrap_or(Self(random))
    }
}

impl Worker {
    /// All workers in order, which is the order in which their sockets must be bound.
    pub(crate) fn all(of: Workers) -> impl Iterator<Item = Self> {
        (0..of.get()).map(move |index| Self { index, of })
    }

    /// Position among the workers, from 0.
    #[cfg(test)]
    fn index(self) -> usize {
        self.index.into()
    }

    /// The worker that the kernel program picks for a connection ID with this first byte.
    #[cfg(test)]
    fn of_first_byte(byte: u8, of: Workers) -> Self {
        Self {
            index: byte % of,
            of,
        }
    }

    /// A first byte that leads to this worker; `random` hides the number of workers.
    fn first_byte(self, random: u8) -> u8 {
        let of = self.of.get();
        // Below 256 / of, so the sum stays below 256.
        let turns = random % (u8::MAX / of).max(1);
        turns * of + self.index
    }
}

/// Makes connection IDs that lead packets back to one worker.
#[derive(Debug)]
pub(crate) struct SteeredIds {
    pub(crate) worker: Worker,
    pub(crate) epoch: Epoch,
}

impl SteeredIds {
    fn id(&self, mut random: [u8; CONNECTION_ID_LENGTH]) -> ConnectionId {
        let [first, second, ..] = &mut random;
        *first = self.worker.first_byte(*first);
        *second = self.epoch.0;
        ConnectionId::new(&random)
    }
}

impl ConnectionIdGenerator for SteeredIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.id(rand::rng().random())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The destination connection ID of a first packet: its first byte asks for the peer's worker of
/// the same index, so that the connections of several workers spread there.
pub(crate) fn initial_destination(worker: Worker) -> ConnectionId {
    let mut random: [u8; INITIAL_ID_LENGTH] = rand::rng().random();
    let [first, ..] = &mut random;
    *first = worker.index;
    ConnectionId::new(&random)
}

/// Makes the kernel steer packets of the port group that `socket` belongs to.
///
/// # Errors
/// The error of the kernel. Without steering the port may have one worker only.
pub(crate) fn attach(socket: &UdpSocket, workers: Workers) -> io::Result<()> {
    let mut program = program(workers);
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(u16::MAX),
        filter: program.as_mut_ptr(),
    };
    setsockopt(socket, AttachReusePortCbpf, &program).map_err(io::Error::from)
}

sockopt_impl!(
    AttachReusePortCbpf,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_ATTACH_REUSEPORT_CBPF,
    libc::sock_fprog
);

/// The program: the first byte of the destination connection ID modulo the number of workers.
///
/// A long header (RFC 9000 section 17.2) has it at offset 6, behind flags, version and length; a
/// short one (section 17.3) at offset 1. A load outside the packet ends the program with 0.
fn program(workers: Workers) -> Vec<libc::sock_filter> {
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_MOD, BPF_RET,
    };

    const LONG_HEADER: u32 = 0x80;
    let step = |code: u32, k: u32| jump(code, k, 0, 0);
    vec![
        step(BPF_LD | BPF_B | BPF_ABS, 0),
        jump(BPF_JMP | BPF_JSET | BPF_K, LONG_HEADER, 0, 2),
        step(BPF_LD | BPF_B | BPF_ABS, 6),
        // Skips the load of the short header.
        step(BPF_JMP | libc::BPF_JA, 1),
        step(BPF_LD | BPF_B | BPF_ABS, 1),
        step(BPF_ALU | BPF_MOD | BPF_K, workers.get().into()),
        step(BPF_RET | BPF_A, 0),
    ]
}

fn jump(code: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        // Every code of classic BPF fits 16 bits.
        code: u16::try_from(code).unwrap_or_default(),
        jt: if_true,
        jf: if_false,
        k,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn workers(count: u8) -> Workers {
        Workers::new(count).unwrap()
    }

    #[test]
    fn every_first_byte_leads_back_to_its_worker() {
        for count in 1..=u8::MAX {
            for worker in Worker::all(workers(count)) {
                for random in 0..=u8::MAX {
                    let byte = worker.first_byte(random);
                    assert_eq!(Worker::of_first_byte(byte, workers(count)), worker);
                }
            }
        }
    }

    #[test]
    fn a_connection_id_carries_worker_and_epoch() {
        let worker = Worker::all(workers(3)).nth(2).unwrap();
        let ids = SteeredIds {
            worker,
            epoch: Epoch(7),
        };
        let id = ids.id([0xff; CONNECTION_ID_LENGTH]);
        assert_eq!(Worker::of_first_byte(id[0], workers(3)), worker);
        assert_eq!(id[1], 7);
        assert_eq!(id.len(), CONNECTION_ID_LENGTH);
    }

    #[test]
    fn epochs_of_processes_that_still_run_are_not_chosen_again() {
        assert_eq!(Epoch::choose(9, &[]), Epoch(9));
        assert_eq!(Epoch::choose(9, &[Epoch(9), Epoch(10)]), Epoch(11));
        assert_eq!(Epoch::choose(255, &[Epoch(255)]), Epoch(0));
    }

    #[test]
    fn the_kernel_hands_each_packet_to_the_worker_that_its_connection_id_names() {
        let count = workers(3);
        let first = bind(0);
        let port = first.local_addr().unwrap().port();
        let sockets = [first, bind(port), bind(port)];
        attach(&sockets[0], count).unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for first_byte in 0..60u8 {
            let short = [0x40, first_byte, 1, 2, 3, 4, 5, 6, 7, 8];
            let long = [0xc0, 0, 0, 0, 1, 8, first_byte, 1, 2, 3];
            for packet in [short, long] {
                sender
                    .send_to(&packet, (Ipv4Addr::LOCALHOST, port))
                    .unwrap();
                let worker = Worker::of_first_byte(first_byte, count);
                let mut received = [0; 16];
                let length = sockets[worker.index()].recv(&mut received).unwrap();
                assert_eq!(received[..length], packet);
            }
        }
    }

    fn bind(port: u16) -> UdpSocket {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket
            .bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket.into()
    }
}
