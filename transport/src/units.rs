//! Durations and sizes as people write them: `10s`, `250ms`, `1h30m`; `64KiB`, `4MiB`. Pure. Settings,
//! resources, tables, flags and headers have one grammar and the same errors; `docs/settings.md` describes
//! it. Any further rule for a value (a range, whole milliseconds) is checked by its reader.

use std::fmt;
use std::time::Duration;

/// Units of a duration, largest first, in nanoseconds.
const DURATION_UNITS: [(&str, u128); 5] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
];

/// Units of a size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Numbers with units in one duration (GEP-2257).
const GROUPS_MAX: usize = 4;

/// Digits of a number, before and after its point. More are never needed, and products stay far below the
/// bound of `u128`.
const DIGITS_MAX: usize = 20;

/// Why a text is not a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    /// The fault.
    pub problem: String,
    /// The text to write instead.
    pub instead: String,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.instead)
    }
}

impl std::error::Error for UnitError {}

impl From<UnitError> for String {
    fn from(error: UnitError) -> Self {
        error.to_string()
    }
}

/// Reads up to four numbers, each with one of `d`, `h`, `m`, `s` and `ms`; they are added: `250ms`, `1h30m`,
/// `1.5s`. Every duration of Gateway API (GEP-2257) is one.
///
/// # Errors
/// What to write.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if is_bare_number(text) {
        return Err(UnitError {
            problem: format!("{text:?} has no unit"),
            instead: format!("write {text}s for seconds, or one of ms, m, h, d"),
        });
    }
    nanoseconds(text).ok_or_else(|| UnitError {
        problem: format!("{text:?} is no duration"),
        instead: "write a number with its unit, as 250ms, 10s, 5m or 1h30m".to_owned(),
    })
}

fn nanoseconds(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text, 0_u128);
    for _ in 0..GROUPS_MAX {
        let (whole, after) = digits(rest);
        let (part, after) = match after.strip_prefix('.') {
            Some(after) if after.starts_with(|c: char| c.is_ascii_digit()) => digits(after),
            Some(_) => return None,
            None => ("", after),
        };
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        let (_, size) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        if whole.is_empty() || whole.len() + part.len() > DIGITS_MAX {
            return None;
        }
        let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
        let scaled = format!("{whole}{part}").parse::<u128>().ok()?;
        let product = scaled.checked_mul(*size)?;
        // No clock shows less than a nanosecond.
        if !product.is_multiple_of(scale) {
            return None;
        }
        total = total.checked_add(product / scale)?;
        rest = after;
        if rest.is_empty() {
            let seconds = u64::try_from(total / 1_000_000_000).ok()?;
            // Tables and files count in milliseconds; a longer duration does not fit into their number.
            u64::try_from(total / 1_000_000).ok()?;
            let below = u32::try_from(total % 1_000_000_000).ok()?;
            return Some(Duration::new(seconds, below));
        }
    }
    None
}

/// Writes a duration so that [`parse_duration`] reads it back, in whole milliseconds: `1h30m`, `250ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, milliseconds) in [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        let count = rest / milliseconds;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
        rest %= milliseconds;
    }
    text
}

/// Reads `512B`, `64KiB`, `4MiB`, `1GiB` (powers of 1024) into bytes.
///
/// # Errors
/// What to write.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    if is_bare_number(text) {
        return Err(UnitError {
            problem: format!("{text:?} has no unit"),
            instead: format!("write {text}B for bytes, or one of KiB, MiB, GiB"),
        });
    }
    let (number, unit) = digits(text);
    let size = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
    let bytes = size.and_then(|(_, size)| number.parse::<u64>().ok()?.checked_mul(*size));
    bytes.ok_or_else(|| UnitError {
        problem: format!("{text:?} is no size"),
        instead: "write a whole number with its unit, as 512B, 64KiB or 4MiB".to_owned(),
    })
}

/// Writes a size in the largest unit that divides it.
pub fn format_bytes(bytes: u64) -> String {
    let divides = |(_, size): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*size);
    let (unit, size) = SIZE_UNITS.iter().find(divides).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / size)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn is_bare_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `#[serde(with = "weft_transport::units::duration")]` for a `Duration`.
pub mod duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the text form.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*value))
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// As [`mod@duration`], for one that may be absent.
pub mod optional_duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    /// Writes the text form, or none.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<S: Serializer>(
        value: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(super::format_duration).serialize(serializer)
    }

    /// Reads the text form, if there is one.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let value = text.map(|text| super::parse_duration(&text)).transpose();
        value.map_err(D::Error::custom)
    }
}

/// `#[serde(with = "weft_transport::units::bytes")]` for a number of bytes.
pub mod bytes {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the text form.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<T: Copy + Into<u64>, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_bytes((*value).into()))
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When the text is no size, or one that the number has no room for.
    pub fn deserialize<'de, T: TryFrom<u64>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = super::parse_bytes(&text).map_err(D::Error::custom)?;
        T::try_from(bytes).map_err(|_| D::Error::custom(format!("{text:?} is too large")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back_as_written() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1m500ms", 60_500),
            ("1h30m", 5_400_000),
            ("72h", 259_200_000),
        ] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
            assert_eq!(format_duration(duration), text);
        }
    }

    #[test]
    fn days_and_decimals_are_read_and_groups_are_added_in_any_order() {
        for (text, duration) in [
            ("7d", Duration::from_hours(168)),
            ("1.5s", Duration::from_millis(1500)),
            ("0.5h30m", Duration::from_hours(1)),
            ("0.25ms", Duration::from_micros(250)),
            ("1s1h", Duration::from_secs(3601)),
            ("1h1m1s1ms", Duration::from_millis(3_661_001)),
            ("1500000ms", Duration::from_secs(1500)),
        ] {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_to_write() {
        for text in [
            "",
            "s",
            "-1s",
            "1 s",
            "1S",
            "1sm",
            ".5s",
            "1.s",
            "1..5s",
            "1.5",
            "1e3s",
            "5us",
            "1h1h1h1h1h",
            "0.0000001ms",
            "99999999999999999999s",
            "18446744073709551615h",
            "999999999999999999999999s",
            "١s",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            let wanted = format!(
                "{text:?} is no duration; write a number with its unit, as 250ms, 10s, 5m or 1h30m"
            );
            assert_eq!(error, wanted);
        }
        assert_eq!(
            parse_duration("10").unwrap_err().to_string(),
            "\"10\" has no unit; write 10s for seconds, or one of ms, m, h, d"
        );
    }

    #[test]
    fn sizes_read_back_as_written() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("1025B", 1025),
            ("64KiB", 65_536),
            ("4MiB", 4 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(format_bytes(bytes), text);
        }
        for text in [
            "",
            "KiB",
            "1K",
            "1MB",
            "-1B",
            "1.5MiB",
            "64kb",
            "1 KiB",
            "99999999999GiB",
        ] {
            let error = parse_bytes(text).unwrap_err().to_string();
            let wanted = format!(
                "{text:?} is no size; write a whole number with its unit, as 512B, 64KiB or 4MiB"
            );
            assert_eq!(error, wanted);
        }
        let error = parse_bytes("64").unwrap_err().to_string();
        assert_eq!(
            error,
            "\"64\" has no unit; write 64B for bytes, or one of KiB, MiB, GiB"
        );
    }
}
