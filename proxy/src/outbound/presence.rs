//! Whether the client of a request under way is still there, and whether more of it has come.
//!
//! hyper reads nothing while it has a whole request in hand, so this file watches the socket in that time. A
//! client that has sent its whole request may end its sending side and wait for the answer (RFC 9112 section
//! 9.6): that alone ends nothing. A client that closes its socket sends the same FIN, and the sidecar learns
//! the difference from the client's host:
//!
//! - over a Unix socket, at once, because its two directions end separately;
//! - over TCP on this host, from the kernel, which knows whether a program still has the other end open
//!   (`other_end.rs`);
//! - over TCP from another host, by a reset. That host sends it when it gets data for the connection, or
//!   when, a minute later (the default of `net.ipv4.tcp_fin_timeout`), a keep-alive probe asks whether the
//!   connection lives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep};

use crate::limits;
use crate::stream::{ApplicationStream, Readable};

/// Watches one request's client. It costs a check of readiness until something arrives from the client.
#[derive(Debug, Default)]
pub(super) struct Presence {
    come: Option<Box<Looking>>,
}

/// Bytes or an end have arrived, so readiness tells nothing new: a timer looks at the socket from time to
/// time.
#[derive(Debug)]
struct Looking {
    next: Pin<Box<Sleep>>,
    /// The client has ended its side.
    ended: bool,
    /// Since when the client has read none of the bytes that wait to be written.
    stuck: Option<Instant>,
}

impl Presence {
    /// Looks once, and has the task woken when there is more to see. Returns whether unread bytes or an
    /// unread end have arrived. `is_blocked`: bytes wait to be written.
    ///
    /// # Errors
    /// When the client is gone, or has ended its side and reads nothing for [`limits::HALF_CLOSED_STALL`].
    pub(super) fn look(
        &mut self,
        stream: &ApplicationStream,
        is_blocked: bool,
        context: &mut Context<'_>,
    ) -> io::Result<bool> {
        if self.come.is_none() {
            let Poll::Ready(come) = stream.poll_come(context) else {
                return Ok(false);
            };
            let ended = come? == Readable::End;
            if ended {
                stream.probe();
            }
            if stream.is_gone() || ended && stream.is_closed() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            self.come = Some(Box::new(Looking {
                next: Box::pin(sleep(limits::PRESENCE_LOOK)),
                ended,
                stuck: None,
            }));
        }
        if let Some(looking) = &mut self.come {
            looking.poll(stream, is_blocked, context)?;
        }
        Ok(true)
    }

    /// The client has taken something.
    pub(super) fn moved(&mut self) {
        if let Some(looking) = &mut self.come {
            looking.stuck = None;
        }
    }

    /// Another request begins.
    pub(super) fn forget(&mut self) {
        self.come = None;
    }
}

impl Looking {
    fn poll(
        &mut self,
        stream: &ApplicationStream,
        is_blocked: bool,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        while self.next.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            self.next.as_mut().reset(now + limits::PRESENCE_LOOK);
            if !self.ended && stream.is_ended() {
                self.ended = true;
                stream.probe();
            }
            if stream.is_gone() || self.ended && stream.is_closed() {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let stuck = is_blocked.then(|| *self.stuck.get_or_insert(now));
            if self.ended && stuck.is_some_and(|since| now - since >= limits::HALF_CLOSED_STALL) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}
