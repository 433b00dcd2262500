//! Arrivals from weft's own access log, so that past traffic can be repeated. Pure: lines come in as a
//! reader. `docs/operate.md` describes the log's fields.
//!
//! A line is written when an exchange ends and has its duration, so its beginning is known to the
//! microsecond. Bodies and headers are not in the log: times, methods and paths are replayed.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::limits;

/// The replayable content of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// The requests in the order in which they began.
    pub arrivals: Vec<Arrival>,
    /// Tunnels, which cannot be replayed.
    pub tunnels: u64,
    /// Requests of the other direction.
    pub other_direction: u64,
    /// Requests that the log left out, as it reports itself: its rate is limited.
    pub suppressed: u64,
}

/// One request that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// From the first request of the log, at the replay's speed.
    pub offset: Duration,
    /// Its method.
    pub method: Arc<str>,
    /// The host that it was for.
    pub authority: Arc<str>,
    /// Its path; the log does not keep the query.
    pub path: Arc<str>,
}

/// Which of a sidecar's lines are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What the application beside the sidecar asked for.
    Outbound,
    /// What others asked of it.
    Inbound,
}

/// Why a log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The reader failed.
    #[error("cannot read the log: {0}")]
    Read(#[from] std::io::Error),
    /// A line is not one of weft's access log.
    #[error("line {line}: {problem}; write one object per line as weft's access log does")]
    Line {
        /// From 1.
        line: usize,
        /// The fault.
        problem: String,
    },
    /// The log has both, and no direction was given.
    #[error("the log has outbound and inbound requests: say which with --direction")]
    Direction,
    /// Nothing to do.
    #[error("the log has no request to replay")]
    Empty,
    /// Too much to hold.
    #[error(
        "the log has more than {} requests: cut it",
        limits::REPLAY_ARRIVALS_MAX
    )]
    TooMany,
    /// Not a factor.
    #[error("a speed of {speed} is none: write a factor above 0, as in 2 for twice as fast")]
    Speed {
        /// The text.
        speed: f64,
    },
}

/// A line of the log; other fields do not matter here.
#[derive(Deserialize)]
struct Line {
    time: String,
    direction: String,
    method: String,
    authority: String,
    path: String,
    duration_ms: f64,
    #[serde(default)]
    suppressed: u64,
}

/// Reads a log. `speed` 2 replays it in half of its time. Without a direction, the log must have
/// requests of one only.
pub fn read(
    log: impl BufRead,
    direction: Option<Direction>,
    speed: f64,
) -> Result<Replay, ReplayError> {
    if !(speed.is_finite() && speed > 0.0) {
        return Err(ReplayError::Speed { speed });
    }
    let mut reading = Reading::default();
    for (index, text) in Lines(log).enumerate() {
        let text = text?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let problem = |problem: String| ReplayError::Line {
            line: index + 1,
            problem,
        };
        if text.len() > limits::REPLAY_LINE_MAX {
            return Err(problem(format!(
                "longer than {} bytes",
                limits::REPLAY_LINE_MAX
            )));
        }
        let line: Line = serde_json::from_slice(&text).map_err(|error| {
            // The place within the line; its number would always read 1.
            problem(format!("{error}").replace(" at line 1 column ", " at character "))
        })?;
        reading.take(&line).map_err(problem)?;
        if reading.begun.len() > limits::REPLAY_ARRIVALS_MAX {
            return Err(ReplayError::TooMany);
        }
    }
    reading.finish(direction, speed)
}

#[derive(Default)]
struct Reading {
    begun: Vec<(Direction, i128, [Arc<str>; 3])>,
    names: HashMap<String, Arc<str>>,
    tunnels: u64,
    suppressed: u64,
}

impl Reading {
    fn take(&mut self, line: &Line) -> Result<(), String> {
        self.suppressed = self.suppressed.saturating_add(line.suppressed);
        let direction = match line.direction.as_str() {
            "outbound" => Direction::Outbound,
            "inbound" => Direction::Inbound,
            other => {
                return Err(format!(
                    "direction {other:?} is neither outbound nor inbound"
                ));
            }
        };
        let ended: jiff::Timestamp = line
            .time
            .parse()
            .map_err(|_| format!("time {:?} is none", line.time))?;
        if !(line.duration_ms.is_finite() && line.duration_ms >= 0.0) {
            return Err(format!("duration_ms {} is none", line.duration_ms));
        }
        if line.method == "CONNECT" {
            self.tunnels += 1;
            return Ok(());
        }
        http::Method::from_bytes(line.method.as_bytes())
            .map_err(|_| format!("method {:?} is none", line.method))?;
        if !line.path.starts_with('/') && line.path != "*" {
            return Err(format!("path {:?} does not begin with /", line.path));
        }
        let begun = ended.as_nanosecond() - (line.duration_ms * 1e6) as i128;
        let names = [&line.method, &line.authority, &line.path].map(|name| self.name(name));
        self.begun.push((direction, begun, names));
        Ok(())
    }

    /// One copy of each text, because a log repeats few of them. Beyond the bound each has its own.
    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        if self.names.len() < limits::REPLAY_NAMES_MAX {
            self.names.insert(text.to_owned(), Arc::clone(&name));
        }
        name
    }

    fn finish(mut self, direction: Option<Direction>, speed: f64) -> Result<Replay, ReplayError> {
        let first = self.begun.first().ok_or(ReplayError::Empty)?.0;
        let mixed = self.begun.iter().any(|(other, ..)| *other != first);
        let direction = match direction {
            Some(direction) => direction,
            None if mixed => return Err(ReplayError::Direction),
            None => first,
        };
        let all = self.begun.len();
        self.begun.retain(|(one, ..)| *one == direction);
        // The log is in the order of the ends.
        self.begun.sort_by_key(|(_, begun, _)| *begun);
        let origin = self.begun.first().ok_or(ReplayError::Empty)?.1;
        let other_direction = (all - self.begun.len()) as u64;
        let arrivals = self.begun.into_iter().map(|(_, begun, names)| {
            let [method, authority, path] = names;
            let seconds = (begun - origin) as f64 / 1e9 / speed;
            Arrival {
                offset: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
                method,
                authority,
                path,
            }
        });
        Ok(Replay {
            arrivals: arrivals.collect(),
            tunnels: self.tunnels,
            other_direction,
            suppressed: self.suppressed,
        })
    }
}

/// Lines without their line break. A line that is too long ends after the bound, which the caller notices.
struct Lines<R>(R);

impl<R: BufRead> Iterator for Lines<R> {
    type Item = std::io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        use std::io::Read as _;
        let mut line = Vec::new();
        let bound = limits::REPLAY_LINE_MAX as u64 + 2;
        match self.0.by_ref().take(bound).read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(line)),
            Err(error) => Some(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: f64, duration_ms: f64, direction: &str, path: &str) -> String {
        let time = jiff::Timestamp::from_millisecond(1_700_000_000_000 + (second * 1e3) as i64);
        format!(
            "{{\"time\":\"{}\",\"direction\":\"{direction}\",\"method\":\"GET\",\"authority\":\"orders.shop\",\
             \"path\":\"{path}\",\"status\":200,\"duration_ms\":{duration_ms},\"bytes_in\":0}}\n",
            time.unwrap()
        )
    }

    #[test]
    fn requests_arrive_when_they_began_and_not_when_they_ended() {
        // The slow one ended last and began first.
        let log = line(2.0, 50.0, "outbound", "/b")
            + "\n"
            + &line(3.0, 100.0, "outbound", "/c")
            + &line(4.0, 3000.0, "outbound", "/a");
        let replay = read(log.as_bytes(), None, 1.0).unwrap();
        let found: Vec<(&str, u128)> = replay
            .arrivals
            .iter()
            .map(|arrival| (&*arrival.path, arrival.offset.as_millis()))
            .collect();
        assert_eq!(found, [("/a", 0), ("/b", 950), ("/c", 1900)]);
        assert_eq!(&*replay.arrivals[0].authority, "orders.shop");
    }

    #[test]
    fn a_speed_of_two_halves_all_distances() {
        let log = line(1.0, 0.0, "inbound", "/a") + &line(5.0, 0.0, "inbound", "/b");
        let replay = read(log.as_bytes(), None, 2.0).unwrap();
        assert_eq!(replay.arrivals[1].offset, Duration::from_secs(2));
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = read(log.as_bytes(), None, speed).unwrap_err();
            assert!(matches!(error, ReplayError::Speed { .. }), "{speed}");
        }
    }

    #[test]
    fn a_log_of_both_directions_needs_a_direction() {
        let log = line(1.0, 0.0, "inbound", "/in") + &line(5.0, 0.0, "outbound", "/out");
        assert!(matches!(
            read(log.as_bytes(), None, 1.0),
            Err(ReplayError::Direction)
        ));
        let replay = read(log.as_bytes(), Some(Direction::Outbound), 1.0).unwrap();
        assert_eq!(replay.arrivals.len(), 1);
        assert_eq!(replay.other_direction, 1);
        assert_eq!(&*replay.arrivals[0].path, "/out");
    }

    #[test]
    fn tunnels_and_what_the_log_left_out_are_counted() {
        let tunnel = line(1.0, 0.0, "outbound", "").replace("GET", "CONNECT");
        let after =
            line(2.0, 0.0, "outbound", "/").replace("\"status\"", "\"suppressed\":7,\"status\"");
        let replay = read((tunnel + &after).as_bytes(), None, 1.0).unwrap();
        assert_eq!((replay.tunnels, replay.suppressed), (1, 7));
        assert_eq!(replay.arrivals.len(), 1);
    }

    #[test]
    fn a_line_that_is_none_is_named_with_its_number() {
        let good = line(1.0, 0.0, "outbound", "/");
        for (bad, part) in [
            ("{\"time\":1}".to_owned(), "character"),
            ("not json".to_owned(), "character"),
            (good.replace("outbound", "sideways"), "sideways"),
            (good.replace("\"GET\"", "\"G T\""), "method"),
            (good.replace("2023", "yesterday"), "time"),
            (good.replace("\"/\"", "\"x\""), "path"),
            (good.replace("_ms\":0", "_ms\":-4"), "duration_ms"),
            (
                " ".repeat(limits::REPLAY_LINE_MAX + 1) + &good,
                "longer than",
            ),
        ] {
            let log = format!("{good}{bad}");
            let error = read(log.as_bytes(), None, 1.0).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{bad}: {error}");
            assert!(error.contains(part), "{bad}: {error}");
        }
        assert!(matches!(
            read(&b"\n\n"[..], None, 1.0),
            Err(ReplayError::Empty)
        ));
    }
}
