//! Accepts connections of the application, as far as the worker can take them in.
//!
//! The kernel queues connections that are not accepted, thousands of them, the oldest first. If the queue
//! stays full, all connections in it belong to callers that are about to give up. So while it stays full, the
//! queue is kept short. Callers beyond it get no answer to their SYN, and TCP sends it again after a second.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Intake;
use crate::limits;
use crate::outbound::Socket;
use crate::stream::ApplicationStream;

/// Accepts the connections of one listener of one worker.
pub(in crate::outbound) struct Acceptor {
    socket: Socket,
    /// For connections of all listeners of the worker.
    room: Arc<Semaphore>,
    intake: Arc<Intake>,
    queue: Queue,
}

/// The state of the kernel's accept queue.
#[derive(Debug, Default)]
struct Queue {
    /// Since when every look found a connection in it, and how many came out of it since.
    crowded: Option<(Instant, u32)>,
    /// Few may wait in it.
    is_narrow: bool,
}

impl Queue {
    /// Notes whether a look found a connection in the queue. If the queue has been occupied for longer than a
    /// burst lasts, returns how many connections come out of it within [`limits::INTAKE_WAIT`].
    fn looked_at(&mut self, is_crowded: bool, now: Instant) -> Option<u32> {
        if !is_crowded {
            self.crowded = None;
            return None;
        }
        let (since, came_out) = self.crowded.get_or_insert((now, 0));
        let stood = now.saturating_duration_since(*since);
        if stood < limits::INTAKE_STANDING {
            *came_out += 1;
            return None;
        }
        let soon = f64::from(*came_out) * limits::INTAKE_WAIT.div_duration_f64(stood);
        self.crowded = Some((now, 0));
        Some(soon as u32)
    }
}

impl Acceptor {
    pub(in crate::outbound) fn new(
        socket: Socket,
        room: Arc<Semaphore>,
        intake: Arc<Intake>,
    ) -> Self {
        Self {
            socket,
            room,
            intake,
            queue: Queue::default(),
        }
    }

    /// The next connection, with its place among those of the worker.
    ///
    /// # Errors
    /// The error of the kernel. Cancel-safe.
    pub(in crate::outbound) async fn next(
        &mut self,
    ) -> io::Result<(ApplicationStream, OwnedSemaphorePermit)> {
        // Never closed, so this cannot fail.
        let place = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        loop {
            self.intake.accepts().await;
            let at_once = self.socket.accept().now_or_never();
            self.look(matches!(at_once, Some(Ok(_))), Instant::now());
            let stream = match at_once {
                Some(accepted) => accepted?,
                None => tokio::select! {
                    biased;
                    accepted = self.socket.accept() => accepted?,
                    // The next connections may be many.
                    () = self.intake.released(), if self.queue.is_narrow => continue,
                },
            };
            // Connections whose callers have given up would cost more than there is time for.
            if !(self.intake.is_limited() && stream.is_ended()) {
                return Ok((stream, place));
            }
        }
    }

    fn look(&mut self, is_crowded: bool, now: Instant) {
        if let Some(soon) = self.queue.looked_at(is_crowded, now) {
            self.intake.stands();
            self.let_wait(soon.max(limits::BACKLOG_LEAST));
            self.queue.is_narrow = true;
        } else if self.queue.is_narrow && !self.intake.is_limited() {
            self.let_wait(limits::BACKLOG);
            self.queue.is_narrow = false;
        }
    }

    fn let_wait(&self, connections: u32) {
        // A listening socket accepts any number here; one that refused would still accept connections.
        let _ = self.socket.listen(connections);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // The next process may have been given the same socket.
        if self.queue.is_narrow {
            self.let_wait(limits::BACKLOG);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn many_may_wait_again_as_soon_as_the_limit_ends() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let intake = Arc::new(Intake::default());
        let room = Arc::new(Semaphore::new(1));
        let mut acceptor = Acceptor::new(Socket::Tcp(listener), room, Arc::clone(&intake));
        acceptor.queue.is_narrow = true;
        intake.limited.store(true, Ordering::Relaxed);
        // The requests that a cycle has time for.
        intake.pass_on();
        {
            let mut next = std::pin::pin!(acceptor.next());
            assert!(next.as_mut().now_or_never().is_none());
            intake.release();
            assert!(next.as_mut().now_or_never().is_none());
        }
        assert!(!acceptor.queue.is_narrow);
    }

    #[test]
    fn a_queue_stands_that_was_never_empty_for_a_tenth_of_a_second() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        let mut after = |millis, is_crowded| {
            now += Duration::from_millis(millis);
            queue.looked_at(is_crowded, now)
        };
        assert_eq!(after(0, true), None);
        assert_eq!(after(99, true), None);
        assert_eq!(after(1, false), None);
        assert_eq!(after(50, true), None);
        assert_eq!(after(50, true), None);
        assert_eq!(after(49, true), None);
        // Three came out in a tenth of a second.
        assert_eq!(after(1, true), Some(6));
        assert_eq!(after(99, true), None);
        assert_eq!(after(101, true), Some(1));
    }
}
