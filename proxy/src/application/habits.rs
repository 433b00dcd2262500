//! Whether an application keeps idle connections open, as far as it has shown. Pure.
//!
//! If an application closes a connection just when a request is on its way, that request is lost unless it
//! can be sent again. So requests that cannot be sent again use only connections that are likely to stay
//! open.

use std::time::{Duration, Instant};

use crate::limits;

/// How one application has treated its idle connections until now.
#[derive(Debug, Default)]
pub(super) struct Habits {
    /// A connection carried another request since the last one was closed.
    keeps: bool,
    closed: Option<Instant>,
}

impl Habits {
    /// A connection that had been idle carried another request.
    pub(super) fn kept(&mut self) {
        self.keeps = true;
    }

    /// The application closed an idle connection without notice.
    pub(super) fn closed(&mut self, now: Instant) {
        self.keeps = false;
        self.closed = Some(now);
    }

    /// Whether a request that cannot be sent again may use a connection that has had `answers`, the last one
    /// `idle` ago.
    pub(super) fn is_trusted(&self, answers: u32, idle: Duration, now: Instant) -> bool {
        let remembered = limits::APPLICATION_CLOSES_REMEMBERED;
        if let Some(closed) = self.closed
            && now.saturating_duration_since(closed) < remembered
        {
            return false;
        }
        self.keeps || answers > 1 || idle >= limits::APPLICATION_PROBATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn a_new_connection_is_trusted_once_it_or_another_was_seen_to_live() {
        let (mut habits, now) = (Habits::default(), Instant::now());
        assert!(!habits.is_trusted(1, AT_ONCE, now));
        assert!(habits.is_trusted(1, limits::APPLICATION_PROBATION, now));
        assert!(habits.is_trusted(2, AT_ONCE, now));
        habits.kept();
        assert!(habits.is_trusted(1, AT_ONCE, now));
    }

    #[test]
    fn no_connection_is_trusted_for_a_while_after_one_was_closed_without_notice() {
        let (mut habits, now) = (Habits::default(), Instant::now());
        habits.kept();
        habits.closed(now);
        let later = now + limits::APPLICATION_CLOSES_REMEMBERED;
        for (answers, idle) in [(1, AT_ONCE), (9, limits::APPLICATION_PROBATION)] {
            assert!(!habits.is_trusted(answers, idle, later - Duration::from_millis(1)));
        }
        assert!(!habits.is_trusted(1, AT_ONCE, later));
        assert!(habits.is_trusted(2, AT_ONCE, later));
    }
}
