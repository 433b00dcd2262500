//! Copies of a slow request: the first response wins, and what the others had under way is cancelled on the
//! wire. For requests that may be executed twice; a body is copied once all of it has come.

use std::pin::pin;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::request::Parts;
use weft_config::table::{Hedge, HedgeAfter};

use super::attempt::{Answered, Call, Failed};
use super::pick::Wish;
use crate::metrics::lock;
use crate::resilience::destination::Event;

/// Which copy, from 0, and what became of it.
type Copy<'a> = BoxFuture<'a, (u32, Result<Answered, Failed>)>;

impl Call<'_> {
    /// Whether copies may be sent of this request.
    pub(super) fn hedge(&self, head: &Parts) -> Option<&Hedge> {
        let hedge = self.route.traffic.hedge.as_ref()?;
        let harmless = head.method.is_idempotent() || hedge.non_idempotent;
        harmless.then_some(hedge)
    }

    /// As [`Call::attempt`], with further copies to other endpoints while no response has come.
    pub(super) async fn hedged(
        &self,
        hedge: &Hedge,
        head: &Parts,
        wish: &mut Wish,
        now: Instant,
    ) -> Result<Answered, Failed> {
        let cluster = &self.route.cluster;
        let counts = &cluster.destination.counts;
        let after = match hedge.after {
            HedgeAfter::Delay(delay) => Some(delay),
            HedgeAfter::Percentile(share) => lock(&cluster.lasting.times).percentile(share),
        };
        let mut copies: FuturesUnordered<Copy<'_>> = FuturesUnordered::new();
        let picked = self.pick(wish, now)?;
        let copy = |number, body, picked, now| -> Copy<'_> {
            Box::pin(async move { (number, self.attempt(head, body, picked, now).await) })
        };
        copies.push(copy(0, self.body(), picked, now));
        let mut sent = 0;
        // Without a percentile yet there is nothing to wait for.
        let mut may_send = after.is_some();
        let mut timer = pin!(tokio::time::sleep(after.unwrap_or_default()));
        loop {
            tokio::select! {
                biased;
                Some((number, outcome)) = copies.next() => match outcome {
                    Ok(answered) => {
                        if number > 0 {
                            counts.add(Event::HedgeWon);
                        }
                        if matches!(hedge.after, HedgeAfter::Percentile(_)) {
                            let took = answered.at.saturating_duration_since(now);
                            lock(&cluster.lasting.times).add(took);
                        }
                        return Ok(answered);
                    }
                    // One that failed does not end the others, which may answer yet.
                    Err(failed) if copies.is_empty() => return Err(failed),
                    Err(_) => {}
                },
                () = &mut timer, if may_send => {
                    let at = Instant::now();
                    may_send = false;
                    let body = self.upload.as_ref().map(|upload| upload.whole());
                    let is_partial = matches!(body, Some(None));
                    if is_partial || wish.tried.all(cluster.endpoints.len()) {
                        continue;
                    }
                    if !cluster.destination.budget.spend(at, &cluster.traffic.retry_budget) {
                        counts.add(Event::HedgeWithheld);
                        continue;
                    }
                    let Ok(picked) = self.pick(wish, at) else { continue };
                    sent += 1;
                    counts.add(Event::HedgeSent);
                    copies.push(copy(sent, body.flatten(), picked, at));
                    may_send = sent < hedge.attempts;
                    timer.as_mut().reset(tokio::time::Instant::now() + after.unwrap_or_default());
                }
            }
        }
    }
}
