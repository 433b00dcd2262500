//! Durations and sizes as people write them: `10s`, `250ms`, `1h`; `64KiB`, `4MiB`.
//!
//! Used by every settings file of the mesh, so that one spelling holds everywhere. A bare number
//! is refused: the unit belongs to the value.

use std::time::Duration;

/// Reads `250ms`, `10s`, `5m`, `24h`, or several parts in falling order such as `1h30m`
/// (GEP-2257 without fractions; days as `7d` besides).
///
/// # Errors
/// A text that says what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let help = || format!("{text:?} is no duration; write for example 250ms, 10s, 5m or 1h30m");
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(help)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| help())?;
        let position = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .filter(|position| *position >= next_unit)
            .ok_or_else(help)?;
        let (_, milliseconds) = UNITS.get(position).ok_or_else(help)?;
        total_ms = number
            .checked_mul(*milliseconds)
            .and_then(|part| total_ms.checked_add(part))
            .ok_or_else(help)?;
        next_unit = position + 1;
        rest = tail;
    }
    if text.is_empty() {
        return Err(help());
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration so that [`parse_duration`] reads it back; below a millisecond is cut off.
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
/// A text that says what to write.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let help = || format!("{text:?} is no size; write for example 512B, 64KiB or 4MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(help)?;
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(help()),
    };
    let number: u64 = number.parse().map_err(|_| help())?;
    number.checked_mul(factor).ok_or_else(help)
}

/// Writes a size in the largest unit that divides it.
pub fn format_bytes(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
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
    /// When the text is no duration with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "weft_transport::units::bytes")]` for a `u64` of bytes.
pub mod bytes {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the text form.
    ///
    /// # Errors
    /// Only the serializer's own.
    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_bytes(*value))
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// When the text is no size with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_bytes(&text).map_err(D::Error::custom)
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
        assert_eq!(parse_duration("7d"), Ok(Duration::from_hours(168)));
    }

    #[test]
    fn a_duration_without_unit_or_in_disorder_is_refused() {
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "1s1h",
            "1s2s",
            "1 s",
            "1S",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_read_back_as_written() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("4MiB", 4 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(format_bytes(bytes), text);
        }
        for text in ["", "1", "1K", "1MB", "-1B", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
