//! The numbers in a scenario: counts, shares, times and rates, each with its unit written out. Pure. The
//! quantities measured in them are in `assertion.rs`.

use std::fmt;
use std::time::Duration;

use weft_config::settings::DurationText;

/// The dimension of a number, so that `p99 <= 5%` is refused when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Things: requests, connections.
    Count,
    /// A part of a whole, 0 to 1; written in percent.
    Share,
    /// Seconds.
    Time,
    /// Bytes per second.
    Rate,
}

/// A number with its dimension. Time is in seconds, a share from 0 to 1, a rate in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    /// Its dimension.
    pub dimension: Dimension,
    /// How much.
    pub value: f64,
}

/// Units of a rate and their bytes per second. Links are sold by bits, files measured in bytes; both are
/// decimal.
const RATE_UNITS: [(&str, f64); 8] = [
    ("Gbit/s", 1.25e8),
    ("Mbit/s", 1.25e5),
    ("kbit/s", 125.0),
    ("bit/s", 0.125),
    ("GB/s", 1e9),
    ("MB/s", 1e6),
    ("kB/s", 1e3),
    ("B/s", 1.0),
];

impl Dimension {
    /// Reads a number of this dimension.
    ///
    /// # Errors
    /// The text to write instead.
    pub fn read(self, text: &str) -> Result<Quantity, String> {
        let number = |digits: &str| {
            let parsed: Option<f64> = digits.trim().parse().ok();
            parsed.filter(|value| value.is_finite() && *value >= 0.0)
        };
        let value = match self {
            Self::Count => number(text).ok_or_else(|| format!("`{text}`: write a number, as 0")),
            Self::Share => text
                .strip_suffix('%')
                .and_then(number)
                .filter(|percent| *percent <= 100.0)
                .map(|percent| percent / 100.0)
                .ok_or_else(|| format!("`{text}`: write a share from 0% to 100%, as 99.9%")),
            Self::Time => text
                .parse::<DurationText>()
                .map(|duration| duration.0.as_secs_f64())
                .map_err(|error| error.to_string()),
            Self::Rate => RATE_UNITS
                .iter()
                .find_map(|(unit, size)| Some(number(text.strip_suffix(unit)?)? * size))
                .ok_or_else(|| format!("`{text}`: write a rate, as 2MB/s or 16Mbit/s")),
        };
        Ok(Quantity {
            dimension: self,
            value: value?,
        })
    }
}

impl Quantity {
    /// A number of things.
    pub fn count(value: f64) -> Self {
        Self {
            dimension: Dimension::Count,
            value,
        }
    }

    /// A part of a whole, 0 to 1.
    pub fn share(value: f64) -> Self {
        Self {
            dimension: Dimension::Share,
            value,
        }
    }

    /// A time.
    pub fn time(value: Duration) -> Self {
        Self {
            dimension: Dimension::Time,
            value: value.as_secs_f64(),
        }
    }

    /// Bytes per second.
    pub fn rate(value: f64) -> Self {
        Self {
            dimension: Dimension::Rate,
            value,
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match self.dimension {
            Dimension::Count if value.fract() == 0.0 => write!(f, "{value:.0}"),
            Dimension::Count => write!(f, "{value:.2}"),
            // 99.95 % must not be shown as 100 %.
            Dimension::Share if value > 0.99 && value < 1.0 => write!(f, "{:.3}%", 100.0 * value),
            Dimension::Share => write!(f, "{:.2}%", 100.0 * value),
            Dimension::Time if value < 0.001 => write!(f, "{:.0}us", 1e6 * value),
            Dimension::Time if value < 0.1 => write!(f, "{:.1}ms", 1e3 * value),
            Dimension::Time if value < 1.0 => write!(f, "{:.0}ms", 1e3 * value),
            Dimension::Time => write!(f, "{value:.2}s"),
            Dimension::Rate if value < 1e6 => write!(f, "{:.1}kB/s", value / 1e3),
            Dimension::Rate => write!(f, "{:.2}MB/s", value / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_with_the_unit_of_their_dimension_only() {
        let read = |dimension: Dimension, text| dimension.read(text).map(|read| read.value);
        assert_eq!(read(Dimension::Count, "3"), Ok(3.0));
        assert_eq!(
            read(Dimension::Share, "99.9%").map(|s| (s * 1e4).round()),
            Ok(9990.0)
        );
        assert_eq!(read(Dimension::Time, "250ms"), Ok(0.25));
        assert_eq!(read(Dimension::Rate, "16Mbit/s"), Ok(2e6));
        assert_eq!(read(Dimension::Rate, "2MB/s"), Ok(2e6));
        for (dimension, text) in [
            (Dimension::Count, "5%"),
            (Dimension::Count, "-1"),
            (Dimension::Count, "inf"),
            (Dimension::Share, "0.5"),
            (Dimension::Share, "101%"),
            (Dimension::Time, "5"),
            (Dimension::Rate, "5MB"),
        ] {
            assert!(dimension.read(text).is_err(), "{dimension:?} {text}");
        }
    }

    #[test]
    fn a_share_below_the_whole_is_never_shown_as_the_whole() {
        assert_eq!(Quantity::share(0.99996).to_string(), "99.996%");
        assert_eq!(Quantity::share(1.0).to_string(), "100.00%");
        assert_eq!(
            Quantity::time(Duration::from_micros(1500)).to_string(),
            "1.5ms"
        );
        assert_eq!(Quantity::rate(2.5e6).to_string(), "2.50MB/s");
    }
}
