//! Hedging: copies of a slow request. The first response wins, and the other copies are cancelled on the
//! wire. Only requests that may be executed twice are copied, and a body only once all of it has come.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use weft_config::table::{Hedge, HedgeAfter};
use weft_transport::locks::lock;

use super::attempt::{Answered, Failed};
use super::exchange::{CopyOfBody, Exchange};
use crate::record::attempt::Attempt;
use crate::record::trace::{Copied, Traced};
use crate::resilience::attempts::{Attempts, Hedging};
use crate::resilience::deadline::Clock;
use crate::resilience::destination::Event;

/// The number of the copy, from 0, its result, and how its attempt went. It owns all that it needs.
type Copy = BoxFuture<'static, (u32, Attempt, Result<Answered, Failed>)>;

impl Exchange {
    /// When copies of this request may be sent, if they may.
    pub(super) fn hedge(&self) -> Option<Hedge> {
        let hedge = self.route.traffic.hedge.as_ref()?;
        let harmless = self.head.method.is_idempotent() || hedge.non_idempotent;
        // A copy elsewhere would leave the session of an endpoint that is only slow.
        let is_seated = self.criteria.preferred.is_some();
        (harmless && !is_seated && !self.is_tunnel()).then(|| hedge.clone())
    }

    /// As [`Exchange::attempt`], with further copies to other endpoints while no response has come.
    pub(super) async fn hedged(
        &mut self,
        hedge: Hedge,
        attempts: &mut Attempts,
        clock: Clock,
        now: Instant,
        (parts, traced): (&mut Attempt, Option<&mut Traced>),
    ) -> Result<Answered, Failed> {
        let cluster = Arc::clone(&self.route.cluster);
        let counts = &cluster.destination.counts;
        let after = match hedge.after {
            HedgeAfter::Delay(delay) => Some(delay),
            HedgeAfter::Percentile(share) => lock(&cluster.lasting.times).percentile(share),
        };
        let mut copies: FuturesUnordered<Copy> = FuturesUnordered::new();
        let picked = self.pick(now)?;
        parts.endpoint = picked.address(&cluster);
        let span = parts.span;
        let mut copied = Copied::new(parts, traced);
        let shared = Arc::new(self.clone());
        let copy = |number, body, picked, clock: Clock, (at, span), exchange: &Arc<Self>| -> Copy {
            let exchange = Arc::clone(exchange);
            Box::pin(async move {
                let mut parts = Attempt::begin(at);
                parts.span = span;
                let outcome = exchange.attempt(body, picked, &clock, &mut parts).await;
                (number, parts, outcome)
            })
        };
        copies.push(copy(0, self.body(), picked, clock, (now, span), &shared));
        let mut sent = 0;
        // Without a percentile yet there is no time to wait for.
        let mut may_send = after.is_some();
        let mut timer = pin!(tokio::time::sleep(after.unwrap_or_default()));
        loop {
            tokio::select! {
                biased;
                Some((number, took, outcome)) = copies.next() => match outcome {
                    Ok(answered) => {
                        copied.settle(took, answered.at);
                        if number > 0 {
                            counts.add(Event::HedgeWon);
                        }
                        if matches!(hedge.after, HedgeAfter::Percentile(_)) {
                            let took = answered.at.saturating_duration_since(now);
                            lock(&cluster.lasting.times).add(took);
                        }
                        return Ok(answered);
                    }
                    // A copy that failed does not end the others, which may still answer.
                    Err(failed) if copies.is_empty() => {
                        copied.settle(took, failed.at);
                        return Err(failed);
                    }
                    Err(failed) => copied.failed(took, failed.failure.reason, failed.at),
                },
                () = &mut timer, if may_send => {
                    let at = Instant::now();
                    may_send = false;
                    let body = match self.copy_of_body() {
                        CopyOfBody::None => Some(None),
                        CopyOfBody::Whole(whole) => Some(Some(whole)),
                        CopyOfBody::NotHere => None,
                    };
                    let body = body.filter(|_| !self.criteria.tried.all(cluster.endpoints.len()));
                    match attempts.copy(&self.rules(), &hedge, body.is_some(), at) {
                        Hedging::Never => continue,
                        Hedging::Withheld => {
                            counts.add(Event::HedgeWithheld);
                            continue;
                        }
                        Hedging::Send => {}
                    }
                    let Ok(picked) = self.pick(at) else { continue };
                    sent += 1;
                    counts.add(Event::HedgeSent);
                    let clock = self.deadline.attempt(at, self.timeout());
                    let (span, exchange) = match copied.is_traced() {
                        true => {
                            let (span, mut exchange) = (self.worker.span_id(), (*shared).clone());
                            let endpoint = picked.address(&cluster);
                            copied.begin((span, endpoint), at, &mut exchange.head.headers);
                            (span, &Arc::new(exchange))
                        }
                        false => (0, &shared),
                    };
                    copies.push(copy(sent, body.flatten(), picked, clock, (at, span), exchange));
                    may_send = sent < hedge.attempts;
                    timer.as_mut().reset(tokio::time::Instant::now() + after.unwrap_or_default());
                }
            }
        }
    }
}
