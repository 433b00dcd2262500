//! A steady load in the background: keep-alive connections that send one request after the other
//! at a fixed rate, and count every failure.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::http::Connection;
use super::process::{Output, run};
use super::wait::{eventually, pause};

/// `weft load` in the background: requests at a rate, however earlier ones ended.
pub(crate) struct OpenLoad {
    thread: JoinHandle<Output>,
}

impl OpenLoad {
    /// `rate` requests a second for `seconds`; `flags` are those of `weft load`.
    pub(crate) fn start(
        weft_load: Command,
        address: SocketAddr,
        rate: u32,
        seconds: u32,
        flags: &[&str],
    ) -> Self {
        let url = format!("http://{address}/");
        Self::of_url(weft_load, &url, rate, seconds, flags)
    }

    /// As [`Self::start`].
    pub(crate) fn of_url(
        mut weft_load: Command,
        url: &str,
        rate: u32,
        seconds: u32,
        flags: &[&str],
    ) -> Self {
        weft_load
            .arg(url)
            .args(["--rate", &rate.to_string()])
            .args(["--duration", &format!("{seconds}s")])
            .args(["--quiet", "-o", "json"])
            .args(flags);
        Self {
            thread: thread::spawn(move || run(&mut weft_load)),
        }
    }

    /// Whether it still sends.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Its results, as `weft load` documents them.
    pub(crate) fn result(self) -> serde_json::Value {
        let output = self.thread.join().unwrap();
        let result = serde_json::from_str(&output.stdout);
        result.unwrap_or_else(|_| panic!("{}", output.stderr))
    }

    /// Panics unless every request got a good answer.
    #[track_caller]
    pub(crate) fn expect_all_good(self) {
        let output = self.thread.join().unwrap();
        // A busy machine may make the latencies invalid; the outcomes of the requests count.
        let result: serde_json::Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", output.stderr, output.stdout));
        let summary = &result["summary"];
        assert_eq!(summary["failed"], 0, "{summary}\n{}", result["errors"]);
        assert_eq!(summary["succeeded"], summary["requests"], "{summary}");
        assert_ne!(summary["requests"], 0, "{summary}");
    }
}

/// A load that runs until [`Load::finish`].
pub(crate) struct Load {
    ended: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Report>>,
}

/// The results of a load.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) succeeded: usize,
    /// Why each failed request failed, with its second.
    pub(crate) failures: Vec<String>,
    pub(crate) latencies: Vec<Duration>,
}

impl Load {
    /// `GET path` on `connections` connections, each every `interval`.
    pub(crate) fn start(
        address: SocketAddr,
        path: &'static str,
        connections: usize,
        interval: Duration,
    ) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let made = Arc::new(AtomicUsize::new(0));
        let threads = (0..connections)
            .map(|_| {
                let (ended, made) = (Arc::clone(&ended), Arc::clone(&made));
                thread::spawn(move || drive(address, path, interval, &ended, &made))
            })
            .collect();
        Self {
            ended,
            made,
            threads,
        }
    }

    /// Ends the load once at least `least` requests were made, however slow the machine is.
    pub(crate) fn finish_after(self, least: usize) -> Report {
        eventually(&format!("{least} requests were made"), || {
            self.made.load(Ordering::Acquire) >= least
        });
        self.finish()
    }

    /// Ends the load.
    pub(crate) fn finish(self) -> Report {
        self.ended.store(true, Ordering::Release);
        let mut whole = Report::default();
        for thread in self.threads {
            let part = thread.join().unwrap();
            whole.succeeded += part.succeeded;
            whole.failures.extend(part.failures);
            whole.latencies.extend(part.latencies);
        }
        whole.latencies.sort();
        whole
    }
}

impl Report {
    /// The latency that `share` of the requests kept.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies[index.min(self.latencies.len() - 1)]
    }

    /// Panics unless at least `least` requests were made and none failed.
    #[track_caller]
    pub(crate) fn expect_all_good(&self, least: usize) {
        assert!(
            self.failures.is_empty(),
            "{} failed, {} succeeded: {:?}",
            self.failures.len(),
            self.succeeded,
            &self.failures[..self.failures.len().min(5)]
        );
        assert!(self.succeeded >= least, "only {} requests", self.succeeded);
    }
}

fn drive(
    address: SocketAddr,
    path: &str,
    interval: Duration,
    ended: &AtomicBool,
    made: &AtomicUsize,
) -> Report {
    let start = Instant::now();
    let mut report = Report::default();
    let mut connection = None;
    while !ended.load(Ordering::Acquire) {
        let begin = Instant::now();
        let result = match connection.take() {
            Some(open) => Ok(open),
            None => Connection::open(address),
        }
        .and_then(|mut open| open.get(path).map(|response| (open, response)));
        match result {
            Ok((open, response)) if response.status == 200 => {
                report.succeeded += 1;
                report.latencies.push(begin.elapsed());
                connection = (response.header("connection") != Some("close")).then_some(open);
            }
            Ok((_, response)) => report.failures.push(format!(
                "at {:?}: {} {:?}",
                start.elapsed(),
                response.status,
                response.header("proxy-status")
            )),
            Err(error) => report
                .failures
                .push(format!("at {:?}: {error}", start.elapsed())),
        }
        made.fetch_add(1, Ordering::Release);
        pause(interval.saturating_sub(begin.elapsed()));
    }
    report
}
