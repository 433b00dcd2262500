//! What a record keeps of an exchange whose spans are recorded. Pure. [`crate::traces`] decides which
//! exchanges these are, and makes spans of their records when they end.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue};

use super::attempt::{Attempt, AttemptHistory, Ended};
use crate::failure::Reason;
use crate::http::traceparent::{TRACEPARENT, TraceParent};
use crate::limits;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The trace with its flags, and the span of the exchange as the parent of what follows.
    pub(crate) context: TraceParent,
    /// The span of the caller, if it told one.
    pub(crate) caller: Option<u64>,
    /// What other systems say of the trace.
    pub(crate) state: Option<HeaderValue>,
    /// When the exchange began, by the clock on the wall.
    pub(crate) began: SystemTime,
    /// The caller's program.
    pub(crate) user_agent: Option<HeaderValue>,
    /// Whether it is a call of gRPC.
    pub(crate) is_grpc: bool,
    /// Attempts that the record itself does not keep: copies that were sent beside others, and those between
    /// the first ones and the last.
    pub(crate) beside: Vec<Attempt>,
}

impl Traced {
    /// Tells the next hop that its caller is `span`.
    pub(crate) fn tell(&self, span: u64, headers: &mut HeaderMap) {
        let parent = span;
        headers.insert(
            TRACEPARENT,
            TraceParent {
                parent,
                ..self.context
            }
            .value(),
        );
    }

    /// Keeps an attempt that the record has no room for.
    pub(crate) fn keep(&mut self, attempt: Attempt) {
        if self.beside.len() < limits::SPAN_ATTEMPTS_BESIDE_MAX {
            self.beside.push(attempt);
        }
    }

    /// How many attempts have a span.
    pub(crate) fn count(&self, kept: &AttemptHistory) -> usize {
        let has_span = |one: &&Attempt| one.span != 0;
        kept.iter().filter(has_span).count() + self.beside.iter().filter(has_span).count()
    }

    /// Each attempt that has a span, in the order in which they began.
    pub(crate) fn each(&self, kept: &AttemptHistory, mut take: impl FnMut(&Attempt)) {
        let has_span = |one: &&Attempt| one.span != 0;
        if self.beside.is_empty() {
            return kept.iter().filter(has_span).for_each(take);
        }
        let mut all: Vec<&Attempt> = kept.iter().chain(&self.beside).filter(has_span).collect();
        all.sort_by_key(|one| one.began);
        all.into_iter().for_each(&mut take);
    }
}

/// An attempt of which copies are sent. The record keeps the one that counts, and spans tell of the others.
pub(crate) struct Copied<'r> {
    /// That of the record.
    kept: &'r mut Attempt,
    traced: Option<&'r mut Traced>,
}

impl<'r> Copied<'r> {
    /// Of which no copy is sent yet.
    pub(crate) fn new(kept: &'r mut Attempt, traced: Option<&'r mut Traced>) -> Self {
        Self { kept, traced }
    }

    /// Whether each copy is a span.
    pub(crate) fn is_traced(&self) -> bool {
        self.traced.is_some()
    }

    /// A copy begins, whose next hop is told of its own span.
    pub(crate) fn begin(
        &mut self,
        (span, endpoint): (u64, Option<SocketAddr>),
        now: Instant,
        headers: &mut HeaderMap,
    ) {
        if let Some(traced) = &mut self.traced {
            traced.tell(span, headers);
            let mut copy = Attempt::begin(now);
            (copy.span, copy.endpoint) = (span, endpoint);
            traced.keep(copy);
        }
    }

    /// One failed while others are under way.
    pub(crate) fn failed(&mut self, mut took: Attempt, reason: Reason, at: Instant) {
        took.finish(Ended::Failed(reason), at);
        let Some(traced) = &mut self.traced else {
            return;
        };
        let mut all = std::iter::once(&mut *self.kept).chain(&mut traced.beside);
        if let Some(one) = all.find(|one| one.span == took.span) {
            *one = took;
        }
    }

    /// One counts, and those that are under way are given up.
    pub(crate) fn settle(&mut self, took: Attempt, at: Instant) {
        if let Some(traced) = &mut self.traced {
            if let Some(one) = traced.beside.iter_mut().find(|one| one.span == took.span) {
                std::mem::swap(one, self.kept);
            }
            traced.beside.iter_mut().for_each(|one| one.give_up(at));
        }
        *self.kept = took;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::attempt::Part;

    fn traced() -> Traced {
        Traced {
            context: TraceParent {
                trace: 1,
                parent: 2,
                flags: 3,
            },
            caller: None,
            state: None,
            began: SystemTime::UNIX_EPOCH,
            user_agent: None,
            is_grpc: false,
            beside: Vec::new(),
        }
    }

    #[test]
    fn of_copies_the_one_that_counts_is_kept_and_the_others_ended_when_it_did() {
        let (mut traced, mut kept) = (traced(), AttemptHistory::default());
        let (now, mut headers) = (Instant::now(), HeaderMap::new());
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        let first = kept.begin(now);
        first.span = 10;
        let mut copied = Copied::new(first, Some(&mut traced));
        copied.begin((11, None), after(1), &mut headers);
        copied.begin((12, None), after(2), &mut headers);
        let value = headers[TRACEPARENT].to_str().unwrap();
        assert!(value.ends_with("-000000000000000c-03"), "{value}");
        let mut lost = Attempt::begin(after(1));
        lost.span = 11;
        copied.failed(lost, Reason::ConnectionRefused, after(3));
        let mut won = Attempt::begin(after(2));
        won.span = 12;
        copied.settle(won, after(5));
        kept.last().unwrap();
        let mut all = Vec::new();
        traced.each(&kept, |one| all.push(*one));
        assert_eq!(traced.count(&kept), 3);
        let spans: Vec<_> = all.iter().map(|one| one.span).collect();
        assert_eq!(spans, [10, 11, 12]);
        assert_eq!((all[0].ended, all[0].over()), (None, after(5)));
        assert_eq!(all[1].ended, Some(Ended::Failed(Reason::ConnectionRefused)));
        assert_eq!(all[1].over(), after(3));
        assert_eq!((kept.last().unwrap().span, all[2].part), (12, Part::Pick));
    }

    #[test]
    fn without_spans_only_the_one_that_counts_is_kept() {
        let (mut kept, now) = (AttemptHistory::default(), Instant::now());
        let mut copied = Copied::new(kept.begin(now), None);
        assert!(!copied.is_traced());
        let mut won = Attempt::begin(now);
        copied.failed(won, Reason::ConnectionRefused, now);
        won.sent(now);
        copied.settle(won, now);
        assert_eq!(kept.last().unwrap().part, Part::Head);
    }

    #[test]
    fn what_is_kept_beside_is_bounded() {
        let mut traced = traced();
        for _ in 0..2 * limits::SPAN_ATTEMPTS_BESIDE_MAX {
            traced.keep(Attempt::begin(Instant::now()));
        }
        assert_eq!(traced.beside.len(), limits::SPAN_ATTEMPTS_BESIDE_MAX);
        // None of them has a span.
        assert_eq!(traced.count(&AttemptHistory::default()), 0);
    }
}
