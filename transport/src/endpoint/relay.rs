//! Carries datagrams from the process that reads a port to each earlier process, over a Unix socket pair. The
//! pair keeps message boundaries, reports when the other end is gone, and drops datagrams that it has no room
//! for, as a network would; QUIC sends those again. The format is `forwarded.rs`.

use std::io::{self, IoSlice, IoSliceMut, Read as _};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::RecvMeta;
use socket2::{Domain, Socket, Type};
use tokio::net::UnixStream;

use super::forwarded::{HEADER_LENGTH, Origin};
use crate::limits;
use crate::steering::Epoch;

/// Both ends of a relay, as descriptors that can be handed to another process.
#[derive(Debug)]
pub struct RelayPair {
    /// For the process that will read the port.
    pub sending: OwnedFd,
    /// For this one.
    pub receiving: OwnedFd,
}

impl RelayPair {
    /// A new relay for one worker.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn new() -> io::Result<Self> {
        let (sending, receiving) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        for end in [&sending, &receiving] {
            end.set_nonblocking(true)?;
        }
        // The kernel clamps it to `net.core.wmem_max`.
        sending.set_send_buffer_size(limits::RELAY_BUFFER)?;
        Ok(Self {
            sending: sending.into(),
            receiving: receiving.into(),
        })
    }
}

/// A process that held the port earlier and may still run, as its successor receives it.
#[derive(Debug)]
pub struct EarlierProcess {
    /// Its epoch. A process of a version that itself forwards to its predecessors has their epochs, too.
    pub epochs: Vec<Epoch>,
    /// For each worker the sending end of a [`RelayPair`] whose receiving end that process has.
    pub relays: Vec<OwnedFd>,
}

/// The relays of one worker to the earlier processes.
#[derive(Debug, Default)]
pub(super) struct EarlierProcesses {
    all: Box<[Way]>,
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

/// The relay to one of them.
#[derive(Debug)]
struct Way {
    socket: Socket,
    epochs: Box<[Epoch]>,
    gone: AtomicBool,
}

impl EarlierProcesses {
    /// For each process its epochs, and the sending end of the worker's relay.
    pub(super) fn new(all: impl IntoIterator<Item = (Vec<Epoch>, OwnedFd)>) -> Self {
        let ways = all.into_iter().map(|(epochs, sending)| Way {
            socket: sending.into(),
            epochs: epochs.into(),
            gone: AtomicBool::new(false),
        });
        Self {
            all: ways.collect(),
            ..Self::default()
        }
    }

    /// Whether no running process has this epoch, asked for every epoch.
    pub(super) fn are_gone(&self) -> bool {
        self.all.iter().all(|way| way.gone.load(Ordering::Relaxed))
    }

    /// Whether a process that still runs has this epoch.
    pub(super) fn has(&self, epoch: Epoch) -> bool {
        self.way(epoch).is_some()
    }

    fn way(&self, epoch: Epoch) -> Option<&Way> {
        let mut running = self
            .all
            .iter()
            .filter(|way| !way.gone.load(Ordering::Relaxed));
        running.find(|way| way.epochs.contains(&epoch))
    }

    /// Sends one datagram on to the process with this epoch, or drops it.
    pub(super) fn forward(&self, epoch: Epoch, origin: Origin, datagram: &[u8]) {
        let sent = self
            .way(epoch)
            .is_some_and(|way| way.send(origin, datagram));
        let counter = if sent { &self.forwarded } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Datagrams that were forwarded, and those for which there was no room.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.forwarded), count(&self.dropped))
    }

    /// Duplicates of the relays, in the order of [`Self::new`], and whether each process has ended.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(super) fn share(&self) -> io::Result<Vec<(Vec<Epoch>, OwnedFd, bool)>> {
        let ways = self.all.iter().map(|way| {
            let sending = way.socket.try_clone()?.into();
            Ok((way.epochs.to_vec(), sending, way.has_ended()))
        });
        ways.collect()
    }
}

impl Way {
    fn send(&self, origin: Origin, datagram: &[u8]) -> bool {
        let header = origin.encode();
        let message = [IoSlice::new(&header), IoSlice::new(datagram)];
        let sent = self
            .socket
            .send_vectored_with_flags(&message, nix::libc::MSG_NOSIGNAL);
        if let Err(error) = &sent
            && matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        {
            self.gone.store(true, Ordering::Relaxed);
        }
        sent.is_ok()
    }

    /// The other end sends nothing, so a readable socket means its end.
    fn has_ended(&self) -> bool {
        let mut byte = [0];
        match (&self.socket).read(&mut byte) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

/// Receives the datagrams that the reading process forwards. It is a stream only by its type: the runtime
/// tells when it is readable, and one read takes one message.
#[derive(Debug)]
pub(super) struct FromSuccessor(UnixStream);

impl FromSuccessor {
    /// Call it inside the runtime of the worker.
    pub(super) fn new(receiving: OwnedFd) -> io::Result<Self> {
        UnixStream::from_std(receiving.into()).map(Self)
    }

    /// Receives datagrams as a UDP socket would. `Ok(0)`: the successor is gone.
    pub(super) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let mut count = 0;
            for (buffer, meta) in buffers.iter_mut().zip(meta.iter_mut()) {
                match self.receive(buffer) {
                    Ok(Some(received)) => *meta = received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The next call reports the end again, once earlier datagrams are taken.
                    Ok(None) | Err(_) if count > 0 => break,
                    Ok(None) => return Poll::Ready(Ok(0)),
                    Err(error) => return Poll::Ready(Err(error)),
                }
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
    }

    /// One datagram; `None` at the end. An unreadable message becomes a datagram of no bytes, which QUIC
    /// ignores.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<RecvMeta>> {
        let mut header = [0; HEADER_LENGTH];
        let length = loop {
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
            match self.0.try_read_vectored(&mut parts) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                outcome => break outcome?,
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let mut meta = RecvMeta::default();
        if let (Some(length), Some(origin)) =
            (length.checked_sub(HEADER_LENGTH), Origin::decode(&header))
        {
            meta.addr = origin.source;
            meta.dst_ip = origin.destination;
            meta.ecn = origin.ecn;
            (meta.len, meta.stride) = (length, length);
        }
        Ok(Some(meta))
    }
}
