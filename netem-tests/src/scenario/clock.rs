//! How far a clock is stepped, as people write it: `+1h`, `-90s`. Pure; `lab/clock.rs` steps clocks.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_config::settings::DurationText;

use super::limits::CLOCK_STEP_MAX;

/// A step of a wall clock, forward or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClockStep {
    milliseconds: i64,
}

impl ClockStep {
    /// Milliseconds, negative for a step back.
    pub fn milliseconds(self) -> i64 {
        self.milliseconds
    }
}

impl FromStr for ClockStep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, length) = match text.split_at_checked(1) {
            Some(("+", length)) => (1, length),
            Some(("-", length)) => (-1, length),
            Some(_) | None => {
                return Err(format!(
                    "`{text}`: write how far the clock jumps with its sign, as +1h or -90s"
                ));
            }
        };
        let DurationText(length) = length.parse().map_err(|error| format!("{error}"))?;
        match i64::try_from(length.as_millis()) {
            Ok(milliseconds @ 1..) if length <= CLOCK_STEP_MAX => Ok(Self {
                milliseconds: sign * milliseconds,
            }),
            Ok(_) | Err(_) => Err(format!(
                "`{text}`: a clock jumps by 1ms to {}",
                DurationText(CLOCK_STEP_MAX)
            )),
        }
    }
}

impl TryFrom<String> for ClockStep {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ClockStep> for String {
    fn from(step: ClockStep) -> Self {
        step.to_string()
    }
}

impl fmt::Display for ClockStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.milliseconds < 0 { '-' } else { '+' };
        let length = Duration::from_millis(self.milliseconds.unsigned_abs());
        write!(f, "{sign}{}", DurationText(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_sign_and_a_unit_and_is_written_as_it_is_read() {
        for (text, milliseconds) in [("+1h", 3_600_000), ("-1m30s", -90_000), ("+25ms", 25)] {
            let step: ClockStep = text.parse().unwrap();
            assert_eq!(step.milliseconds(), milliseconds);
            assert_eq!(step.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_step_is_refused_with_what_to_write() {
        let refusal = |text: &str| text.parse::<ClockStep>().unwrap_err();
        for unsigned in ["1h", "", "h", "ü1h"] {
            assert!(refusal(unsigned).contains("as +1h or -90s"), "{unsigned}");
        }
        assert!(refusal("+5").contains("has no unit"));
        assert!(refusal("--5s").contains("is no duration"));
        for far in ["+0s", "+367d", "-99999999999d"] {
            assert!(refusal(far).contains("1ms to 8784h"), "{far}");
        }
    }
}
