//! Whether the peer of a connection has gone silent. Pure.
//!
//! A working peer acknowledges packets within a round trip and its acknowledgement delay, whatever its
//! application does. So a peer is silent if a packet was sent that it must acknowledge, and no packet at all
//! came back for three probe timeouts (RFC 9002 section 6.2). [`crate::pool`] then races a new connection;
//! QUIC's own idle timeout ends the old one.

use std::time::{Duration, Instant};

use crate::limits;

/// Probe timeouts without any packet before a peer counts as silent.
const PROBE_TIMEOUTS: u32 = 3;

/// The most that a peer may delay an acknowledgement by default (RFC 9000 section 18.2).
const ACK_DELAY_MAX: Duration = Duration::from_millis(25);

/// The connection's counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// UDP datagrams received so far.
    pub(crate) received: u64,
    /// Frames sent so far that a peer must acknowledge.
    pub(crate) eliciting: u64,
    /// Smoothed round-trip time.
    pub(crate) rtt: Duration,
}

/// The judgement at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answering, or nothing was asked.
    Alive,
    /// Its acknowledgement is overdue.
    Silent,
}

/// Watches one connection; call [`Liveness::observe`] at intervals while streams are open.
#[derive(Debug)]
pub(crate) struct Liveness {
    received: u64,
    eliciting: u64,
    /// Since when something is unanswered.
    owes_since: Option<Instant>,
}

impl Liveness {
    pub(crate) fn new(sample: Sample) -> Self {
        Self {
            received: sample.received,
            eliciting: sample.eliciting,
            owes_since: None,
        }
    }

    pub(crate) fn observe(&mut self, now: Instant, sample: Sample) -> Verdict {
        if sample.received != self.received {
            self.received = sample.received;
            self.eliciting = sample.eliciting;
            self.owes_since = None;
            return Verdict::Alive;
        }
        if sample.eliciting == self.eliciting {
            return Verdict::Alive;
        }
        let since = *self.owes_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= patience(sample.rtt) {
            Verdict::Silent
        } else {
            Verdict::Alive
        }
    }
}

fn patience(rtt: Duration) -> Duration {
    // quinn does not expose the variance of the round trip. RFC 9002 starts it at half of the round trip,
    // which makes a probe timeout of three round trips and the delay.
    let probe_timeout = 3 * rtt + ACK_DELAY_MAX;
    (PROBE_TIMEOUTS * probe_timeout)
        .clamp(limits::SILENCE_PATIENCE_MIN, limits::SILENCE_PATIENCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn sample(received: u64, eliciting: u64) -> Sample {
        Sample {
            received,
            eliciting,
            rtt: RTT,
        }
    }

    #[test]
    fn a_quiet_connection_is_alive_for_ever() {
        let start = Instant::now();
        let mut liveness = Liveness::new(sample(5, 5));
        for hours in 0..10 {
            let now = start + Duration::from_hours(hours);
            assert_eq!(liveness.observe(now, sample(5, 5)), Verdict::Alive);
        }
    }

    #[test]
    fn a_peer_that_owes_an_acknowledgement_for_three_probe_timeouts_is_silent() {
        let start = Instant::now();
        let mut liveness = Liveness::new(sample(5, 5));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(liveness.observe(at(0), sample(5, 6)), Verdict::Alive);
        assert_eq!(liveness.observe(at(974), sample(5, 7)), Verdict::Alive);
        assert_eq!(liveness.observe(at(975), sample(5, 7)), Verdict::Silent);
    }

    #[test]
    fn any_packet_from_the_peer_settles_its_debt() {
        let start = Instant::now();
        let mut liveness = Liveness::new(sample(5, 5));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        liveness.observe(at(0), sample(5, 6));
        assert_eq!(liveness.observe(at(2000), sample(6, 6)), Verdict::Alive);
        assert_eq!(liveness.observe(at(9000), sample(6, 6)), Verdict::Alive);
    }

    #[test]
    fn patience_is_bounded_on_very_short_and_very_long_paths() {
        assert_eq!(patience(Duration::ZERO), limits::SILENCE_PATIENCE_MIN);
        assert_eq!(
            patience(Duration::from_secs(9)),
            limits::SILENCE_PATIENCE_MAX
        );
    }
}
