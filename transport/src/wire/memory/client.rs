//! The calling side in memory.

use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;

use super::halves::{Half, SendHalf};
use super::link::{Link, Side, State};
use super::receive::{RecvHalf, message_error};
use crate::error::{
    ConnectionError, HeadError, OpenError, Reason, ReceiveError, SendError, Unprocessed,
};
use crate::http3::{FIELD_SECTION_SIZE, decode_response, encode_request, section};
use crate::identity::PeerId;
use crate::liveness::Sample;
use crate::response_heads::{Follows, ResponseHeads};
use crate::status::ConnectionStatus;

/// See [`crate::wire::ClientConnection`].
#[derive(Clone)]
pub struct ClientConnection {
    pub(super) link: Arc<Link>,
    pub(super) peer: Arc<PeerId>,
}

impl ClientConnection {
    pub(in crate::wire) fn peer(&self) -> &PeerId {
        &self.peer
    }

    pub(in crate::wire) fn status(&self) -> ConnectionStatus {
        status(&self.link)
    }

    pub(in crate::wire) fn is_usable(&self) -> bool {
        !self.is_draining() && !self.is_closed()
    }

    pub(in crate::wire) fn is_doubtful(&self) -> bool {
        self.is_draining() || self.link.look(|state| state.doubtful)
    }

    pub(in crate::wire) async fn reserve(&self) -> Result<Reserved, OpenError> {
        let mut waits = Waits {
            link: &self.link,
            counted: false,
        };
        poll_fn(|cx| self.poll_reserve(&mut waits, cx)).await
    }

    fn poll_reserve(
        &self,
        waits: &mut Waits<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Reserved, OpenError>> {
        if self.is_draining() {
            return Poll::Ready(Err(OpenError::Draining));
        }
        let reserved = self.link.poll(cx, |state| {
            if let Some(error) = state.ended(Side::Client) {
                return Poll::Ready(Err(error.into()));
            }
            if state.under_way() + state.reserved >= state.exchanges_max {
                waits.count(state);
                return Poll::Pending;
            }
            state.reserved += 1;
            Poll::Ready(Ok(()))
        });
        reserved.map_ok(|()| Reserved {
            link: Arc::clone(&self.link),
            is_used: false,
        })
    }

    pub(in crate::wire) fn crowded_for(&self, now: Instant) -> Duration {
        let crowded = self.link.look(|state| state.crowded);
        crowded.map_or(Duration::ZERO, |(since, _)| {
            now.saturating_duration_since(since)
        })
    }

    #[expect(clippy::unused_self, reason = "as on the other wires")]
    pub(in crate::wire) fn round_trip(&self) -> Duration {
        Duration::ZERO
    }

    pub(in crate::wire) fn close(&self, reason: Reason, _detail: &'static str) {
        self.link.close(Side::Client, reason);
    }

    pub(in crate::wire) async fn closed(&self) -> ConnectionError {
        closed(&self.link, Side::Client).await
    }

    pub(in crate::wire) fn is_closed(&self) -> bool {
        self.link.look(|state| state.ended(Side::Client)).is_some()
    }

    pub(in crate::wire) fn open_exchanges(&self) -> u32 {
        status(&self.link).streams
    }

    /// Everything that is sent arrives at once.
    #[expect(clippy::unused_self, reason = "as on the other wires")]
    pub(in crate::wire) fn sample(&self) -> Sample {
        Sample {
            received: 0,
            eliciting: 0,
            rtt: Duration::ZERO,
        }
    }

    pub(in crate::wire) fn set_silent(&self, silent: bool) {
        self.link.change(|state| state.silent = silent);
    }

    pub(in crate::wire) fn set_doubtful(&self, doubtful: bool) {
        self.link.change(|state| state.doubtful = doubtful);
    }

    fn is_draining(&self) -> bool {
        self.peer.not_after() <= SystemTime::now() || self.link.look(|state| state.goaway.is_some())
    }
}

/// A request that waits for permission.
struct Waits<'a> {
    link: &'a Link,
    counted: bool,
}

impl Waits<'_> {
    fn count(&mut self, state: &mut State) {
        if !std::mem::replace(&mut self.counted, true) {
            let now = tokio::time::Instant::now().into_std();
            let (since, waiting) = state.crowded.unwrap_or((now, 0));
            state.crowded = Some((since, waiting + 1));
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.link.change(|state| {
                state.crowded = state
                    .crowded
                    .and_then(|(since, waiting)| (waiting > 1).then(|| (since, waiting - 1)));
            });
        }
    }
}

pub(super) async fn closed(link: &Link, side: Side) -> ConnectionError {
    poll_fn(|cx| {
        link.poll(cx, |state| {
            state.ended(side).map_or(Poll::Pending, Poll::Ready)
        })
    })
    .await
}

pub(super) fn status(link: &Link) -> ConnectionStatus {
    let streams = link.look(State::under_way);
    ConnectionStatus {
        rtt_seconds: 0.0,
        congestion_window_bytes: 0,
        mtu_bytes: 0,
        sent_packets: 0,
        lost_packets: 0,
        congestion_events: 0,
        sent_bytes: 0,
        received_bytes: 0,
        streams: u32::try_from(streams).unwrap_or(u32::MAX),
        given_up_streams: 0,
    }
}

/// See [`crate::wire::Driver`].
pub struct Driver(pub(super) Arc<Link>);

impl Future for Driver {
    type Output = ConnectionError;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        self.0.poll(cx, |state| {
            state.ended(Side::Client).map_or(Poll::Pending, Poll::Ready)
        })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.close(Side::Client, Reason::NoError);
    }
}

/// See [`crate::wire::Reserved`].
pub struct Reserved {
    link: Arc<Link>,
    is_used: bool,
}

impl Reserved {
    pub(in crate::wire) fn send(
        self,
        head: &Parts,
        body: Bytes,
        end: bool,
    ) -> Ready<Result<(SendHalf, ResponseHalf), OpenError>> {
        ready(self.send_now(head, body, end))
    }

    fn send_now(
        mut self,
        head: &Parts,
        body: Bytes,
        end: bool,
    ) -> Result<(SendHalf, ResponseHalf), OpenError> {
        let (frame, length) = encode_request(head, FIELD_SECTION_SIZE)?;
        let begun = self.link.change(|state| {
            if state.goaway.is_some() {
                return Err(OpenError::Draining);
            }
            match state.ended(Side::Client) {
                Some(error) => Err(error.into()),
                None => Ok(state.begin()),
            }
        });
        let id = begun?;
        let half = Half {
            link: Arc::clone(&self.link),
            id,
            side: Side::Client,
        };
        self.is_used = true;
        let response = ResponseHalf {
            heads: ResponseHeads::new(head.method.clone()),
            recv: RecvHalf::new(half.twin()),
        };
        let mut send = SendHalf::new(half);
        let said = send.head(section(frame), length, body, end);
        self.link.change(|state| {
            state.reserved -= 1;
            match said {
                Ok(()) => state.arriving.push_back(id),
                Err(_) => state.release(id, Side::Server, 2),
            }
        });
        match said {
            Ok(()) => Ok((send, response)),
            Err(SendError::ConnectionLost(error)) => Err(error.into()),
            Err(SendError::Stopped(reason)) => Err(OpenError::Stopped(reason)),
            Err(SendError::InvalidHead(error)) => Err(error.into()),
            Err(SendError::Misuse(_)) => Err(HeadError::InvalidContentLength.into()),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_used {
            self.link.change(|state| state.reserved -= 1);
        }
    }
}

/// See [`crate::wire::ResponseHalf`].
pub struct ResponseHalf {
    heads: ResponseHeads,
    recv: RecvHalf,
}

impl ResponseHalf {
    pub(in crate::wire) async fn head(&mut self) -> Result<http::Response<()>, ReceiveError> {
        let head = self.head_unless(false).await?;
        head.ok_or(ReceiveError::Misuse("no doubt was asked for"))
    }

    pub(in crate::wire) async fn head_unless(
        &mut self,
        doubtful: bool,
    ) -> Result<Option<http::Response<()>>, ReceiveError> {
        poll_fn(|cx| self.poll_head(cx, doubtful)).await
    }

    pub(in crate::wire) fn into_body(self) -> RecvHalf {
        self.recv
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        doubtful: bool,
    ) -> Poll<Result<Option<http::Response<()>>, ReceiveError>> {
        if let Poll::Ready(section) = self.recv.poll_head(cx) {
            let section = section.map_err(|error| self.heads.judged(error));
            return Poll::Ready(section.and_then(|section| self.decode(&section, cx).map(Some)));
        }
        let half = self.recv.half();
        let id = half.id;
        let (is_refused, is_silent, is_doubtful) = half.link.look(|state| {
            let is_refused = state.goaway.is_some_and(|first| id >= first);
            (is_refused, state.silent, state.doubtful)
        });
        if is_refused {
            let error = ReceiveError::Unprocessed(Unprocessed::GoingAway);
            return Poll::Ready(Err(self.recv.fail(error)));
        }
        if is_silent {
            let error = ConnectionError::TimedOut.into();
            return Poll::Ready(Err(self.recv.fail(error)));
        }
        if doubtful && is_doubtful {
            return Poll::Ready(Ok(None));
        }
        Poll::Pending
    }

    fn decode(
        &mut self,
        section: &Bytes,
        cx: &mut Context<'_>,
    ) -> Result<http::Response<()>, ReceiveError> {
        let decoded = decode_response(section, self.heads.method()).map_err(message_error);
        let (head, length) = decoded.map_err(|error| self.recv.fail(error))?;
        match self.heads.came(&head) {
            Ok(Follows::Head) => {}
            Ok(Follows::Tunnel) => self.recv.begin_tunnel(),
            Ok(Follows::Body) => self.recv.begin_body(length, cx),
            Err(error) => return Err(self.recv.fail(error)),
        }
        Ok(http::Response::from_parts(head, ()))
    }
}
