//! The behaviour of the server: delays, errors, a freeze. Pure: chance and time are arguments.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use weft_transport::units::parse_duration;

/// The server's treatment of a request, whatever the protocol.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// How long until an answer is complete.
    pub latency: Latency,
    /// How long until its first byte; without it all of the answer comes at once.
    pub first_byte: Option<Latency>,
    /// The share of requests that are answered with an error, from 0 to 1.
    pub errors: f64,
    /// Bytes of a body.
    pub body: usize,
    /// A time in which nothing is answered.
    pub freeze: Option<Freeze>,
}

/// A distribution of delays: a base, and shares of the requests that get another delay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    base: Delay,
    /// Shares from 0 to 1, which together are at most 1.
    others: Vec<(f64, Delay)>,
}

/// One delay.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Delay {
    Constant(Duration),
    Uniform(Duration, Duration),
    /// Exponential, with this mean.
    Exponential(Duration),
}

/// A time in which the server does nothing, counted from its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// How long.
    pub length: Duration,
    /// The time at which the freeze begins.
    pub at: Duration,
}

/// The treatment of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) first_byte: Duration,
    pub(super) complete: Duration,
    pub(super) fails: bool,
}

impl Behaviour {
    /// Draws the treatment of the next request.
    pub(super) fn draw(&self, random: &mut StdRng) -> Fate {
        let complete = self.latency.draw(random);
        let first_byte = match &self.first_byte {
            Some(delay) => delay.draw(random),
            None => complete,
        };
        Fate {
            first_byte,
            complete: complete.max(first_byte),
            fails: self.errors > 0.0 && random.random::<f64>() < self.errors,
        }
    }

    /// When an event that is due at `at` happens, both after the server's first request.
    pub(super) fn thawed(&self, at: Duration) -> Duration {
        match self.freeze {
            Some(freeze) if at >= freeze.at => at.max(freeze.at + freeze.length),
            Some(_) | None => at,
        }
    }
}

impl Latency {
    /// Reads `5ms`, `const:5ms`, `uniform:1ms-9ms` or `exp:5ms` (the mean), and after it any number of
    /// `SHARE%:DELAY`, with commas: `const:5ms,1%:200ms`.
    ///
    /// # Errors
    /// A text that says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let help = |why: String| format!("{why}; write for example 5ms or const:5ms,1%:200ms");
        let mut latency = Self::default();
        let mut sum = 0.0;
        for (index, part) in text.split(',').map(str::trim).enumerate() {
            match part.split_once("%:") {
                Some((share, delay)) => {
                    let share = parse_share(&format!("{share}%")).map_err(help)?;
                    sum += share;
                    latency
                        .others
                        .push((share, Delay::parse(delay).map_err(help)?));
                }
                None if index == 0 => latency.base = Delay::parse(part).map_err(help)?,
                None => return Err(help(format!("{part:?} has no share, as 1%:200ms has"))),
            }
        }
        if sum > 1.0 {
            return Err(help(format!("the shares of {text:?} are more than 100 %")));
        }
        Ok(latency)
    }

    fn draw(&self, random: &mut StdRng) -> Duration {
        if !self.others.is_empty() {
            let mut point: f64 = random.random();
            for (share, delay) in &self.others {
                if point < *share {
                    return delay.draw(random);
                }
                point -= share;
            }
        }
        self.base.draw(random)
    }
}

impl Default for Delay {
    fn default() -> Self {
        Self::Constant(Duration::ZERO)
    }
}

impl Delay {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, values)) = text.split_once(':') else {
            return Ok(Self::Constant(parse_duration(text)?));
        };
        match kind {
            "const" => Ok(Self::Constant(parse_duration(values)?)),
            "exp" => Ok(Self::Exponential(parse_duration(values)?)),
            "uniform" => {
                let range = values.split_once('-');
                let (low, high) = range.ok_or_else(|| format!("{values:?} is no range"))?;
                let (low, high) = (parse_duration(low)?, parse_duration(high)?);
                if low > high {
                    return Err(format!("{values:?} ends before it begins"));
                }
                Ok(Self::Uniform(low, high))
            }
            other => Err(format!(
                "{other:?} is no distribution: const, uniform or exp"
            )),
        }
    }

    fn draw(self, random: &mut StdRng) -> Duration {
        match self {
            Self::Constant(delay) => delay,
            Self::Uniform(low, high) => low + (high - low).mul_f64(random.random()),
            Self::Exponential(mean) => {
                let uniform: f64 = 1.0 - random.random::<f64>();
                mean.mul_f64(-uniform.ln())
            }
        }
    }
}

impl Freeze {
    /// Reads `LENGTH@TIME`, for example `1s@5s`: for a second, five seconds after the first request.
    ///
    /// # Errors
    /// A text that says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let help = || format!("{text:?} is no freeze; write LENGTH@TIME, for example 1s@5s");
        let (length, at) = text.split_once('@').ok_or_else(help)?;
        Ok(Self {
            length: parse_duration(length).map_err(|_| help())?,
            at: parse_duration(at).map_err(|_| help())?,
        })
    }
}

/// Reads `1%` or `0.5%` as a share from 0 to 1.
///
/// # Errors
/// A text that says what to write.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let percent = text
        .strip_suffix('%')
        .and_then(|number| number.parse().ok());
    percent
        .filter(|percent: &f64| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("{text:?} is no share; write for example 1% or 0.5%"))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn draws(text: &str) -> Vec<Duration> {
        let latency = Latency::parse(text).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        (0..100_000).map(|_| latency.draw(&mut random)).collect()
    }

    #[test]
    fn shares_of_the_requests_get_another_delay() {
        let delays = draws("const:5ms,1%:200ms,2%:uniform:50ms-60ms");
        let stalled = delays.iter().filter(|delay| **delay == 200 * MS).count();
        assert!((900..1100).contains(&stalled), "{stalled}");
        let slow = delays
            .iter()
            .filter(|delay| (50 * MS..=60 * MS).contains(*delay))
            .count();
        assert!((1850..2150).contains(&slow), "{slow}");
        assert_eq!(*delays.iter().min().unwrap(), 5 * MS);
    }

    #[test]
    fn exponential_delays_have_their_mean() {
        let delays = draws("exp:10ms");
        let mean = delays.iter().sum::<Duration>() / delays.len() as u32;
        assert!((mean.as_secs_f64() - 0.010).abs() < 0.0002, "{mean:?}");
    }

    #[test]
    fn texts_that_mean_nothing_say_what_to_write() {
        for wrong in [
            "",
            "5",
            "5ms,6ms",
            "101%:5ms",
            "60%:1ms,60%:2ms",
            "gauss:5ms",
            "uniform:9ms-1ms",
        ] {
            let error = Latency::parse(wrong).unwrap_err();
            assert!(error.contains("const:5ms,1%:200ms"), "{wrong}: {error}");
        }
        assert!(Freeze::parse("1s").unwrap_err().contains("1s@5s"));
        assert_eq!(parse_share("0.5%"), Ok(0.005));
        assert!(parse_share("0.5").is_err());
    }

    #[test]
    fn what_is_due_in_a_freeze_happens_when_it_is_over() {
        let behaviour = Behaviour {
            freeze: Some(Freeze::parse("1s@5s").unwrap()),
            ..Behaviour::default()
        };
        for (due, happens) in [(4999, 4999), (5000, 6000), (5999, 6000), (6001, 6001)] {
            assert_eq!(behaviour.thawed(due * MS), happens * MS);
        }
    }

    #[test]
    fn an_answer_is_never_complete_before_its_first_byte() {
        let behaviour = Behaviour {
            latency: Latency::parse("1ms").unwrap(),
            first_byte: Some(Latency::parse("3ms").unwrap()),
            ..Behaviour::default()
        };
        let fate = behaviour.draw(&mut StdRng::seed_from_u64(1));
        assert_eq!((fate.first_byte, fate.complete), (3 * MS, 3 * MS));
    }
}
