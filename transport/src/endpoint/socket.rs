//! quinn's UDP socket with a bound on its receive buffer.
//!
//! quinn gives each of its 32 receive slots room for as many of the largest datagrams as the kernel may
//! deliver at once: 64 x 6500 bytes, 13 MiB per endpoint. But one delivery of the kernel is itself one UDP
//! datagram, which cannot exceed 64 KiB. So this socket reports how many of the largest datagrams fill that;
//! all other behaviour is quinn's.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

/// Most bytes that one receive can give, however many datagrams are in it: the length field of UDP
/// has 16 bits (RFC 768).
const RECEIVE_MAX: usize = 65_535;

/// Hands a bound socket to quinn. `datagram_max` is the largest UDP payload that peers may send.
pub(super) fn bounded(socket: UdpSocket, datagram_max: u16) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let inner = TokioRuntime.wrap_udp_socket(socket)?;
    let segments = RECEIVE_MAX.div_ceil(datagram_max.into());
    Ok(Arc::new(Bounded {
        receive_segments: segments.min(inner.max_receive_segments()),
        inner,
    }))
}

#[derive(Debug)]
struct Bounded {
    inner: Arc<dyn AsyncUdpSocket>,
    receive_segments: usize,
}

impl AsyncUdpSocket for Bounded {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
