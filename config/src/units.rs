//! Durations and sizes as resources write them: `250ms`, `1h30m`, `64KiB`. Pure. Settings files have
//! their own durations ([`crate::settings::DurationText`]), which also know decimals and days.

use std::time::Duration;

/// Units of a duration, largest first, in milliseconds.
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Groups of digits and unit in a duration, and digits of a group (GEP-2257).
const DURATION_GROUPS_MAX: usize = 4;
const DURATION_DIGITS_MAX: usize = 5;

/// Units of a size, largest first, in bytes.
const SIZE_UNITS: [(&str, u32); 3] = [("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a duration in the syntax of Gateway API (GEP-2257): up to four groups of a whole number of at
/// most five digits and one of `h`, `m`, `s`, `ms`. The groups are added.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    for _ in 0..DURATION_GROUPS_MAX {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=DURATION_DIGITS_MAX).contains(&digits) {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at(letters);
        let (_, milliseconds) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
        // Five digits of hours are far below the limit of u64.
        total += number.parse::<u64>().ok()? * milliseconds;
        rest = after;
        if rest.is_empty() {
            return Some(Duration::from_millis(total));
        }
    }
    None
}

/// Writes a duration so that [`parse_duration`] reads it, in whole milliseconds: `1h30m`, `250ms`, `0s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, milliseconds) in DURATION_UNITS {
        let number = rest / milliseconds;
        rest %= milliseconds;
        if number > 0 {
            text += &format!("{number}{unit}");
        }
    }
    text
}

/// Reads a size in bytes: a whole number and one of `MiB`, `KiB`, `B`.
pub(crate) fn parse_size(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, bytes) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u32>().ok()?.checked_mul(*bytes)
}

/// Writes a size with the largest unit that needs no fraction.
pub(crate) fn format_size(size: u32) -> String {
    let (unit, bytes) = SIZE_UNITS
        .iter()
        .find(|(_, bytes)| size > 0 && size.is_multiple_of(*bytes))
        .unwrap_or(&("B", 1));
    format!("{}{unit}", size / bytes)
}

/// A duration as text in documents and tables, for `#[serde(with)]`.
pub(crate) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        super::parse_duration(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration")))
    }
}

/// As [`duration`], for one that may be absent.
pub(crate) mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(super::format_duration).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else {
            return Ok(None);
        };
        super::parse_duration(&text)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration")))
    }
}

/// A size as text in documents, for `#[serde(with)]`.
pub(crate) mod size {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &u32, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::format_size(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
        let text = String::deserialize(d)?;
        super::parse_size(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no size")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_follow_gateway_api() {
        let milliseconds = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("250ms"), Some(250));
        assert_eq!(milliseconds("1h30m"), Some(5_400_000));
        assert_eq!(milliseconds("1s500ms"), Some(1_500));
        assert_eq!(milliseconds("0s"), Some(0));
        assert_eq!(milliseconds("1h1m1s1ms"), Some(3_661_001));
        for bad in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "123456ms",
            "1d",
            "1h1h1h1h1h",
            "1S",
            "1sm",
        ] {
            assert_eq!(milliseconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        for text in ["250ms", "1h30m", "1s500ms", "0s", "24h"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["64KiB", "1MiB", "100B", "0B", "1025B"] {
            assert_eq!(format_size(parse_size(text).unwrap()), text);
        }
        for bad in ["", "64", "KiB", "1.5MiB", "-1B", "64kb", "5000MiB", "1 KiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
