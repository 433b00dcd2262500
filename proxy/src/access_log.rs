//! The access log: one JSON object per line on standard output. It never delays a request: it counts lines
//! over the rate instead of writing them, and the writer has a bounded queue that drops lines when it is
//! full. `line.rs` makes the lines.

mod line;

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weft_config::settings::AccessLog as Mode;
use weft_transport::locks::lock;
use weft_transport::vital;

use crate::limits;
use crate::metrics::Shard;
use crate::record::{Finished, Observer};

pub(crate) use line::whole;

/// One worker's side of the log.
pub(crate) struct AccessLog {
    mode: Mode,
    lines: Option<SyncSender<Vec<u8>>>,
    rate: Mutex<Rate>,
    shard: Arc<Shard>,
}

/// The writer: a thread of its own, because standard output may block.
pub(crate) struct Writer {
    lines: Option<SyncSender<Vec<u8>>>,
}

impl Writer {
    /// Starts the thread unless the log is off. It ends when the last [`AccessLog`] is gone.
    pub(crate) fn start(mode: Mode) -> std::io::Result<Self> {
        if matches!(mode, Mode::Off) {
            return Ok(Self { lines: None });
        }
        let (lines, queue) = sync_channel(limits::ACCESS_LOG_QUEUE_MAX);
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || vital::thread("the access log", || write_lines(&queue)))?;
        Ok(Self { lines: Some(lines) })
    }

    /// The side of one worker.
    pub(crate) fn log(&self, mode: Mode, shard: Arc<Shard>) -> AccessLog {
        AccessLog {
            mode,
            lines: self.lines.clone(),
            rate: Mutex::new(Rate::new(Instant::now())),
            shard,
        }
    }
}

fn write_lines(queue: &Receiver<Vec<u8>>) {
    let mut out = std::io::stdout();
    while let Ok(line) = queue.recv() {
        // A closed standard output loses the log, but does not stop the service.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

impl Observer for AccessLog {
    fn observe(&self, finished: &Finished<'_>) {
        if self.wants(finished.outcome.failed) {
            self.write(finished);
        }
    }
}

impl AccessLog {
    /// Whether such a call is logged at all.
    fn wants(&self, failed: bool) -> bool {
        match self.mode {
            Mode::Off => false,
            Mode::Failures => failed,
            Mode::All => true,
        }
    }

    /// Logs it, unless the rate or the queue is exhausted.
    fn write(&self, finished: &Finished<'_>) {
        let Some(lines) = &self.lines else { return };
        let Some(suppressed) = lock(&self.rate).take(Instant::now()) else {
            self.shard.log_suppressed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Some(text) = line::logged(finished, suppressed) else {
            return;
        };
        if let Err(TrySendError::Full(_)) = lines.try_send(text) {
            self.shard.log_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Limits lines per second, and counts those refused since the last one that was written.
struct Rate {
    window: Instant,
    left: u32,
    suppressed: u64,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self {
            window: now,
            left: limits::ACCESS_LOG_LINES_PER_SECOND,
            suppressed: 0,
        }
    }

    /// Admits a line and says how many were suppressed before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.window) >= Duration::from_secs(1) {
            self.window = now;
            self.left = limits::ACCESS_LOG_LINES_PER_SECOND;
        }
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_rate_are_counted_and_reported_with_the_next() {
        let now = Instant::now();
        let mut rate = Rate::new(now);
        for _ in 0..limits::ACCESS_LOG_LINES_PER_SECOND {
            assert_eq!(rate.take(now), Some(0));
        }
        assert_eq!(rate.take(now), None);
        assert_eq!(rate.take(now), None);
        assert_eq!(rate.take(now + Duration::from_secs(1)), Some(2));
    }
}
