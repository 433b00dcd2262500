//! Log lines that callers can cause: so many a minute, and a count of those that were left out. The decision
//! is pure; [`Rarely`] shares it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits;

const MINUTE: Duration = Duration::from_secs(60);

/// One kind of line.
#[derive(Debug, Default)]
pub(super) struct Rarely(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Rarely {
    /// Calls `write` with the number of lines left out before this one, unless it is left out itself.
    pub(super) fn log(&self, write: impl FnOnce(u64)) {
        let left_out = {
            let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            window.admit(Instant::now())
        };
        if let Some(left_out) = left_out {
            write(left_out);
        }
    }
}

impl Window {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now >= began + MINUTE) {
            self.began = Some(now);
            self.lines = 0;
        }
        if self.lines >= limits::LOG_LINES_PER_MINUTE {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_rate_are_counted_and_the_next_one_says_how_many() {
        let (mut window, now) = (Window::default(), Instant::now());
        for _ in 0..limits::LOG_LINES_PER_MINUTE {
            assert_eq!(window.admit(now), Some(0));
        }
        assert_eq!(window.admit(now), None);
        assert_eq!(window.admit(now), None);
        assert_eq!(window.admit(now + MINUTE), Some(2));
        assert_eq!(window.admit(now + MINUTE), Some(0));
    }
}
