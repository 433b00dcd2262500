//! Sends messages to one sidecar: one at a time, each made when the sidecar is ready for it.
//!
//! A channel would buffer a message that HTTP/2 does not take, and report success to its sender. Here the
//! sender waits until HTTP/2 asks for a message, which it does when the sidecar's windows have room again. So
//! messages do not pile up for a sidecar that does not read, and the sender knows that it does not.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio_stream::Stream;
use tonic::Status;
use weft_transport::locks;

use crate::proto::ServiceMessage;

type Item = Result<ServiceMessage, Status>;

/// The end that sends; dropping it ends the stream.
#[derive(Debug)]
pub(super) struct Outgoing(Shared);

/// The end that HTTP/2 reads.
#[derive(Debug)]
pub(super) struct Delivery(Shared);

/// HTTP/2 will not ask any more: the stream or its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamClosed;

type Shared = Arc<Mutex<State>>;

#[derive(Debug, Default)]
struct State {
    message: Option<Item>,
    /// A message is wanted, and none is ready.
    asked: bool,
    /// No message will come after this one.
    ended: bool,
    /// HTTP/2 has dropped the stream.
    gone: bool,
    sender: Option<Waker>,
    reader: Option<Waker>,
}

/// The two ends of a new stream.
pub(super) fn delivery() -> (Outgoing, Delivery) {
    let shared = Shared::default();
    (Outgoing(Arc::clone(&shared)), Delivery(shared))
}

impl Outgoing {
    /// Waits until a message is wanted: all earlier ones have left for the sidecar, except those that its
    /// windows hold. May be dropped and called again.
    pub(super) async fn asked(&self) -> Result<(), StreamClosed> {
        poll_fn(|context| {
            let mut state = lock(&self.0);
            if state.gone {
                return Poll::Ready(Err(StreamClosed));
            }
            if state.asked {
                return Poll::Ready(Ok(()));
            }
            state.sender = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Hands over the message that was asked for. A message that was not asked for replaces one that HTTP/2
    /// has not taken yet.
    pub(super) fn send(&self, message: Item) {
        let mut state = lock(&self.0);
        state.asked = false;
        state.message = Some(message);
        wake(&mut state.reader);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.ended = true;
        wake(&mut state.reader);
    }
}

impl Stream for Delivery {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = lock(&self.0);
        if let Some(message) = state.message.take() {
            return Poll::Ready(Some(message));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.asked = true;
        state.reader = Some(context.waker().clone());
        wake(&mut state.sender);
        Poll::Pending
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.gone = true;
        state.message = None;
        wake(&mut state.sender);
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    locks::lock(shared)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = Context::from_waker(Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_message_is_asked_for_only_when_the_one_before_was_taken_and_more_is_wanted() {
        let (outgoing, mut delivery) = delivery();
        assert_eq!(now(outgoing.asked()), None, "HTTP/2 does not read yet");
        assert!(now(delivery.next()).is_none());
        assert_eq!(now(outgoing.asked()), Some(Ok(())));
        outgoing.send(Ok(ServiceMessage::default()));
        assert_eq!(now(outgoing.asked()), None, "it was not taken");
        assert!(matches!(now(delivery.next()), Some(Some(Ok(_)))));
        assert_eq!(now(outgoing.asked()), None, "it has not left");
        assert!(now(delivery.next()).is_none());
        assert_eq!(now(outgoing.asked()), Some(Ok(())));
    }

    #[test]
    fn either_end_learns_that_the_other_is_gone() {
        let (outgoing, mut delivery) = delivery();
        outgoing.send(Err(Status::unavailable("over")));
        drop(outgoing);
        assert!(matches!(now(delivery.next()), Some(Some(Err(_)))));
        assert!(matches!(now(delivery.next()), Some(None)));
        let (outgoing, delivery) = super::delivery();
        drop(delivery);
        assert_eq!(now(outgoing.asked()), Some(Err(StreamClosed)));
    }
}
