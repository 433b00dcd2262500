//! A sequence of rates that repeats: as steps, as a function of time, and as a file of measurements. Pure.
//! `settings.rs` reads a setting that holds one.

use std::time::Duration;

use super::settings::parse_rate;
use crate::limits;

/// A sequence of rates that repeats. Counted from the moment at which the impairment is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    steps: Vec<Step>,
    /// The beginning of each step. Sums, so that a packet costs a search and not a walk.
    begins: Vec<Mark>,
    /// The end of a round.
    round: Mark,
}

/// One rate of a [`Trace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bits per second; 0 is a pause.
    pub rate: u64,
    /// For how long.
    pub lasts: Duration,
}

/// The fault of a file of rates, shown as `LINE: what to write`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {message}")]
pub struct TraceError {
    /// Its line, counted from 1.
    pub line: usize,
    /// The fault, and what to write.
    pub message: String,
}

/// A moment of a round, and the bits transmitted until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    nanoseconds: u128,
    /// Bits x 10^9, so that a rate and nanoseconds multiply without a remainder.
    work: u128,
}

impl Trace {
    /// `None` for a trace without steps, with more than [`limits::TRACE_STEPS_MAX`], with a step that does
    /// not last, with a round of more than [`limits::TRACE_PERIOD_MAX`], or in which nothing is ever
    /// transmitted.
    pub fn new(steps: Vec<Step>) -> Option<Self> {
        if steps.len() > limits::TRACE_STEPS_MAX {
            return None;
        }
        let mut begins = Vec::with_capacity(steps.len());
        let mut round = Mark::default();
        for step in &steps {
            if step.lasts.is_zero() {
                return None;
            }
            begins.push(round);
            let lasts = step.lasts.as_nanos();
            round.nanoseconds += lasts;
            round.work += u128::from(step.rate) * lasts;
        }
        let valid = round.work > 0 && round.nanoseconds <= limits::TRACE_PERIOD_MAX.as_nanos();
        valid.then_some(Self {
            steps,
            begins,
            round,
        })
    }

    /// Reads a file of lines `SECONDS,RATE`: from that second on, that rate, as `12.5,3mbit`. The last line
    /// says when it begins anew, as `60,end`. Empty lines and those that begin with `#` are left out.
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(text: &str) -> Result<Self, TraceError> {
        let mut rows: Vec<Row> = Vec::new();
        for (line, written) in (1..).zip(text.lines().map(str::trim)) {
            if written.is_empty() || written.starts_with('#') {
                continue;
            }
            let row = Row::read(written)
                .and_then(|row| row.following(rows.last()))
                .map_err(|message| TraceError { line, message })?;
            rows.push(row);
        }
        let steps = rows.windows(2).filter_map(|pair| {
            let lasts = pair[1].at - pair[0].at;
            pair[0].rate.map(|rate| Step { rate, lasts })
        });
        let ended = rows.last().is_some_and(|row| row.rate.is_none());
        let trace = Self::new(steps.collect()).filter(|_| ended);
        trace.ok_or_else(|| TraceError {
            line: text.lines().count().max(1),
            message: format!(
                "a trace ends with a line as `60,end`, has 1 to {} rates, lasts at most {} s and transmits something",
                limits::TRACE_STEPS_MAX,
                limits::TRACE_PERIOD_MAX.as_secs()
            ),
        })
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The work that a transmitter does without pause in this time, from the beginning; in bits x 10^9.
    pub(super) fn work_within(&self, nanoseconds: u128) -> u128 {
        let rounds = nanoseconds / self.round.nanoseconds;
        let rest = nanoseconds % self.round.nanoseconds;
        let (begin, rate) = self.step_at(|mark| mark.nanoseconds <= rest);
        rounds * self.round.work + begin.work + rate * (rest - begin.nanoseconds)
    }

    /// The first nanosecond from the beginning by which this much is transmitted.
    pub(super) fn time_of(&self, work: u128) -> u128 {
        let rounds = work.saturating_sub(1) / self.round.work;
        let rest = work - rounds * self.round.work;
        // Steps that end before are passed, and so are pauses: this one transmits.
        let (begin, rate) = self.step_at(|mark| mark.work < rest);
        let within = (rest - begin.work).div_ceil(rate.max(1));
        rounds * self.round.nanoseconds + begin.nanoseconds + within
    }

    /// The last step whose beginning satisfies a condition that holds for all steps before it, or the first
    /// step.
    fn step_at(&self, holds: impl Fn(&Mark) -> bool) -> (Mark, u128) {
        let index = self.begins.partition_point(holds).saturating_sub(1);
        let rate = self.steps.get(index).map_or(0, |step| step.rate);
        let begin = self.begins.get(index).copied().unwrap_or_default();
        (begin, u128::from(rate))
    }
}

/// A line of a file.
#[derive(Clone, Copy, Debug)]
struct Row {
    at: Duration,
    /// `None`: the end.
    rate: Option<u64>,
}

impl Row {
    fn read(written: &str) -> Result<Self, String> {
        let (seconds, word) = written
            .split_once(',')
            .ok_or_else(|| format!("`{written}`: write SECONDS,RATE, as `12.5,3mbit`"))?;
        let (seconds, word) = (seconds.trim(), word.trim());
        let at = seconds.parse().ok();
        let at = at.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let rate = parse_rate(word);
        if rate.is_none() && word != "end" {
            return Err(format!(
                "`{word}`: write a rate, as `3mbit` (bit, kbit, mbit, gbit), or `end`"
            ));
        }
        Ok(Self {
            at: at.ok_or_else(|| format!("`{seconds}`: write seconds, as `12.5`"))?,
            rate,
        })
    }

    fn following(self, before: Option<&Self>) -> Result<Self, String> {
        match before {
            None if self.at.is_zero() => Ok(self),
            None => Err("the first rate begins at 0".to_owned()),
            Some(Self { rate: None, .. }) => Err("nothing follows the end".to_owned()),
            Some(before) if self.at > before.at => Ok(self),
            Some(_) => Err("this is not later than the line before".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_from_when_on_which_rate_holds() {
        let text = "# seconds,rate\n0,10mbit\n\n2.5, 0\r\n3,500kbit\n4,end\n";
        let steps = Trace::read(text).unwrap().steps().to_vec();
        let step = |rate, milliseconds| Step {
            rate,
            lasts: Duration::from_millis(milliseconds),
        };
        assert_eq!(
            steps,
            [step(10_000_000, 2500), step(0, 500), step(500_000, 1000)]
        );
    }

    #[test]
    fn each_mistake_in_a_file_has_its_line() {
        for (text, expected) in [
            ("1,1mbit\n2,end", "1: the first rate begins at 0"),
            ("0,1mbit\n0,2mbit\n1,end", "2: this is not later"),
            ("0,1mbit\nnan,2mbit", "2: `nan`: write seconds"),
            ("0,1mbit\n-1,end", "2: `-1`: write seconds"),
            ("0,1mbit\n1 2mbit", "2: `1 2mbit`: write SECONDS,RATE"),
            ("0,1mbit\n1,2", "2: `2`: write a rate, as `3mbit`"),
            ("0,1mbit\n1,end\n2,end", "3: nothing follows the end"),
            ("0,1mbit\n1,2mbit\n", "2: a trace ends with a line"),
            ("0,end", "1: a trace ends with a line as `60,end`, has 1 to"),
            ("0,0\n1,end", "2: a trace ends"),
            ("0,1mbit\n1e9,end", "2: a trace ends"),
            ("0,1mbit\n1e300,end", "2: `1e300`: write seconds"),
            ("", "1: a trace ends with a line"),
        ] {
            let error = Trace::read(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_trace_with_more_steps_than_the_bound_is_refused() {
        let steps = |count: usize| {
            let rows = (0..count).map(|second| format!("{second},1kbit\n"));
            rows.chain([format!("{count},end")]).collect::<String>()
        };
        assert!(Trace::read(&steps(limits::TRACE_STEPS_MAX)).is_ok());
        assert!(Trace::read(&steps(limits::TRACE_STEPS_MAX + 1)).is_err());
    }

    #[test]
    fn time_and_work_are_each_other_s_inverse_through_pauses_and_rounds() {
        let trace = Trace::read("0,0\n0.001,3bit\n0.004,0\n0.005,0\n0.006,7bit\n0.01,end").unwrap();
        let mut before = 0;
        for work in (1..400_000_000).step_by(777_777) {
            let time = trace.time_of(work);
            assert!(trace.work_within(time) >= work);
            assert!(trace.work_within(time - 1) < work);
            assert!(time >= before);
            before = time;
        }
        assert_eq!((trace.time_of(0), trace.work_within(0)), (0, 0));
    }
}
