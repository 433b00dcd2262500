//! The duration of one attempt of an exchange, part by part, and how it ended. Pure. `outbound/` times each
//! part where it ends; the observers of a [`super::Finished`] exchange use the result.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::failure::Reason;
use crate::limits;

/// The parts of an attempt, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// An endpoint is chosen.
    Pick,
    /// A connection to it exists: at once if the pool has one.
    Dial,
    /// Its stream is open, and the request's head is sent.
    Stream,
    /// The response's head has come.
    Head,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Pick, Self::Dial, Self::Stream, Self::Head];

    /// As metrics and logs name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pick => "pick",
            Self::Dial => "dial",
            Self::Stream => "stream",
            Self::Head => "head",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a response of that status.
    Answered(u16),
    /// The attempt ended without a response head.
    Failed(Reason),
}

/// One attempt, under way or over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// The endpoint that was asked; none if there was none to pick.
    pub(crate) endpoint: Option<SocketAddr>,
    /// The id of its span; 0 if it has none.
    pub(crate) span: u64,
    /// When its choice began.
    pub(crate) began: Instant,
    /// The part that is under way, or the part in which the attempt ended.
    pub(crate) part: Part,
    /// None if the exchange was given up during the attempt.
    pub(crate) ended: Option<Ended>,
    /// Microseconds of each part; longer than an hour counts as an hour.
    took: [u32; Part::ALL.len()],
}

impl Attempt {
    /// An attempt that begins.
    pub(crate) fn begin(now: Instant) -> Self {
        Self {
            endpoint: None,
            span: 0,
            began: now,
            part: Part::Pick,
            ended: None,
            took: [0; Part::ALL.len()],
        }
    }

    /// The endpoint is picked; the attempt waits for a connection.
    pub(crate) fn picked(&mut self, endpoint: SocketAddr, now: Instant) {
        self.endpoint = Some(endpoint);
        self.end(now, Part::Dial);
    }

    /// The connection exists; the attempt waits for a stream.
    pub(crate) fn dialled(&mut self, now: Instant) {
        self.end(now, Part::Stream);
    }

    /// The head is sent; the attempt waits for the response.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.end(now, Part::Head);
    }

    /// The attempt is over.
    pub(crate) fn finish(&mut self, ended: Ended, now: Instant) {
        self.end(now, self.part);
        self.ended = Some(ended);
    }

    /// The attempt is given up.
    pub(crate) fn give_up(&mut self, now: Instant) {
        if self.ended.is_none() {
            self.end(now, self.part);
        }
    }

    /// Each part that began, and how long it took.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (Part, Duration)> {
        let reached = self.part as usize + 1;
        let both = Part::ALL.into_iter().zip(self.took);
        let timed = both.map(|(part, took)| (part, Duration::from_micros(took.into())));
        timed.take(reached)
    }

    /// The time at which the attempt was over.
    pub(crate) fn over(&self) -> Instant {
        self.began + self.parts().map(|(_, took)| took).sum::<Duration>()
    }

    /// The part under way is over, and `next` begins.
    fn end(&mut self, now: Instant, next: Part) {
        let took = now.saturating_duration_since(self.over());
        self.took[self.part as usize] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.part = next;
    }
}

/// The attempts of an exchange: the first ones and the last. A single attempt needs no allocation.
#[derive(Debug, Default)]
pub(crate) struct AttemptHistory {
    first: Option<Attempt>,
    /// The attempts after the first.
    #[expect(
        clippy::box_collection,
        reason = "few exchanges have any, and the future of each request has room for this"
    )]
    more: Option<Box<Vec<Attempt>>>,
}

impl AttemptHistory {
    /// One more attempt begins. Its parts and its end are reported to the returned value.
    pub(crate) fn begin(&mut self, now: Instant) -> &mut Attempt {
        let attempt = Attempt::begin(now);
        if self.first.is_none() {
            return self.first.insert(attempt);
        }
        let more = self.more.get_or_insert_default();
        if more.len() + 1 == limits::RECORD_ATTEMPTS_MAX {
            more.pop();
        }
        more.push_mut(attempt)
    }

    /// The attempt that the next one takes the place of.
    pub(crate) fn displaced(&self) -> Option<&Attempt> {
        let more = self.more.as_deref()?;
        more.last()
            .filter(|_| more.len() + 1 == limits::RECORD_ATTEMPTS_MAX)
    }

    /// The exchange is given up, and with it the attempt that is under way.
    pub(crate) fn give_up(&mut self, now: Instant) {
        let last = self.more.as_mut().and_then(|more| more.last_mut());
        if let Some(last) = last.or(self.first.as_mut()) {
            last.give_up(now);
        }
    }

    /// In their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Attempt> {
        let more = self.more.as_deref().map(Vec::as_slice);
        self.first.iter().chain(more.unwrap_or_default())
    }

    /// The attempt that was made last.
    pub(crate) fn last(&self) -> Option<&Attempt> {
        self.iter().last()
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn millis(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn an_attempt_says_how_long_each_of_its_parts_took() {
        let now = Instant::now();
        let mut attempt = Attempt::begin(now);
        attempt.picked(ENDPOINT, now + millis(1));
        attempt.dialled(now + millis(5));
        attempt.sent(now + millis(7));
        attempt.finish(Ended::Answered(200), now + millis(20));
        let parts: Vec<_> = attempt.parts().collect();
        let wanted = [
            (Part::Pick, millis(1)),
            (Part::Dial, millis(4)),
            (Part::Stream, millis(2)),
            (Part::Head, millis(13)),
        ];
        assert_eq!(parts, wanted);
        assert_eq!(attempt.over(), now + millis(20));
    }

    #[test]
    fn one_that_failed_has_no_parts_after_that_in_which_it_did() {
        let now = Instant::now();
        let mut attempt = Attempt::begin(now);
        attempt.picked(ENDPOINT, now);
        attempt.finish(Ended::Failed(Reason::ConnectionRefused), now + millis(3));
        let parts: Vec<_> = attempt.parts().collect();
        assert_eq!(parts, [(Part::Pick, millis(0)), (Part::Dial, millis(3))]);
        assert_eq!(attempt.part, Part::Dial);
    }

    #[test]
    fn a_clock_that_is_set_back_and_a_day_without_an_answer_are_bounded() {
        let now = Instant::now() + millis(10_000);
        let mut attempt = Attempt::begin(now);
        attempt.picked(ENDPOINT, now - millis(5));
        attempt.dialled(now);
        attempt.finish(
            Ended::Failed(Reason::ResponseTimeout),
            now + Duration::from_hours(24),
        );
        assert_eq!(attempt.over(), now + Duration::from_micros(u32::MAX.into()));
    }

    #[test]
    fn of_many_attempts_the_first_and_the_last_are_kept_and_of_one_nothing_is_allocated() {
        let now = Instant::now();
        let mut kept = AttemptHistory::default();
        for number in 0..100 {
            let attempt = kept.begin(now);
            attempt.finish(Ended::Answered(number), now);
            assert_eq!(kept.more.is_none(), number == 0);
        }
        let statuses: Vec<_> = kept.iter().map(|one| one.ended).collect();
        let wanted = [0, 1, 2, 99].map(|number| Some(Ended::Answered(number)));
        assert_eq!(statuses, wanted);
        assert_eq!(kept.last().and_then(|one| one.ended), wanted[3]);
    }

    #[test]
    fn one_that_is_given_up_took_as_long_as_it_was_waited_for_and_has_no_outcome() {
        let now = Instant::now();
        let mut kept = AttemptHistory::default();
        kept.give_up(now);
        kept.begin(now).picked(ENDPOINT, now);
        kept.give_up(now + millis(8));
        let attempt = kept.last().unwrap();
        assert_eq!((attempt.over(), attempt.ended), (now + millis(8), None));
        let attempt = kept.begin(now + millis(8));
        attempt.finish(Ended::Answered(200), now + millis(9));
        kept.give_up(now + millis(20));
        assert_eq!(kept.last().unwrap().over(), now + millis(9));
    }
}
