//! Whether the client of a request under way is still there, and whether more of it has come.
//!
//! hyper reads nothing while it has a whole request in hand. So this looks at the socket meanwhile. A client that
//! has sent all that it wants to say may end its side, and waits for its answers (RFC 9112 section 9.6): that
//! alone ends nothing. One that closes its whole side sends the same, and is known to be gone by what its host does
//! next:
//!
//! - a Unix socket tells both sides apart at once;
//! - over TCP on this host the kernel knows whether a program still has the other end open (`other_end.rs`);
//! - over TCP from elsewhere its host resets the connection when something is sent to it, or when it is asked a
//!   minute later (the default of `net.ipv4.tcp_fin_timeout`) whether the connection lives, which keep-alive probes
//!   do.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep};

use crate::limits;
use crate::stream::{ApplicationStream, Come};

/// The look at one request's client. It costs a look at readiness until something comes from the client.
#[derive(Debug, Default)]
pub(super) struct Presence {
    come: Option<Box<Looking>>,
}

/// Something has come, so readiness tells nothing more: it is looked now and then.
#[derive(Debug)]
struct Looking {
    next: Pin<Box<Sleep>>,
    /// The client has said its last.
    ended: bool,
    /// Since when it has taken nothing that waits to be written to it.
    stuck: Option<Instant>,
}

impl Presence {
    /// Looks once, and has the task woken when there is more to see. Whether something has come that was not
    /// read yet, be it the end. `is_blocked`: something waits to be written.
    ///
    /// # Errors
    /// When the client is gone, or has ended its side and takes nothing for [`limits::HALF_CLOSED_STALL`].
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
            let ended = come? == Come::End;
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
