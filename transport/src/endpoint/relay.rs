//! Carries datagrams from the process that reads a port to the one before it: a Unix socket pair that keeps
//! message boundaries, knows when the other end is gone, and drops what it has no room for, as a network
//! would; QUIC sends it again. The format is `forwarded.rs`.

use std::io::{self, IoSlice, IoSliceMut};
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
    /// What the kernel said.
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

/// The way to the processes before this one.
#[derive(Debug)]
pub(super) struct Predecessors {
    socket: Socket,
    epochs: Box<[Epoch]>,
    gone: AtomicBool,
    forwarded: AtomicU64,
    dropped: AtomicU64,
}

impl Predecessors {
    pub(super) fn new(sending: OwnedFd, epochs: &[Epoch]) -> Self {
        Self {
            socket: sending.into(),
            epochs: epochs.into(),
            gone: AtomicBool::new(false),
            forwarded: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// The epochs of those that still run; none once they are gone.
    pub(super) fn epochs(&self) -> &[Epoch] {
        if self.gone.load(Ordering::Relaxed) {
            &[]
        } else {
            &self.epochs
        }
    }

    /// Sends one datagram on, or drops it.
    pub(super) fn forward(&self, origin: Origin, datagram: &[u8]) {
        let header = origin.encode();
        let message = [IoSlice::new(&header), IoSlice::new(datagram)];
        let sent = self
            .socket
            .send_vectored_with_flags(&message, nix::libc::MSG_NOSIGNAL);
        match sent {
            Ok(_) => {
                self.forwarded.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.gone.store(true, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Datagrams sent on, and those for which there was no room.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.forwarded), count(&self.dropped))
    }
}

/// What the process that reads the port sends here. A stream by its type only: what counts is that the
/// runtime tells when it is readable, and one read takes one message.
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
                    // Told again by the next call, once what came before is taken.
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

    /// One datagram; `None` at the end. What cannot be read is a datagram of no bytes, which QUIC ignores.
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
