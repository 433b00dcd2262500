//! Durations of Gateway API (GEP-2257), which are fewer than weft's own: whole numbers of up to five digits,
//! no days.

use std::ops::RangeInclusive;
use std::time::Duration;

use weft_transport::units::parse_duration;

use crate::resources::Span;
use crate::resources::decode::{At, Decoder};

/// Reads a duration in a range.
pub(super) fn duration(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    range: &RangeInclusive<Duration>,
) -> Option<Span> {
    check(decoder, at)?;
    decoder.span(at, range)
}

/// Reads a duration in a range, or zero.
pub(super) fn duration_or_zero(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    range: &RangeInclusive<Duration>,
) -> Option<Span> {
    check(decoder, at)?;
    decoder.span_or_zero(at, range)
}

/// What no reader takes is left to [`Decoder::span`], which says why.
fn check(decoder: &mut Decoder<'_>, at: &At<'_>) -> Option<()> {
    if let Some(text) = at.as_text()
        && parse_duration(text).is_ok()
        && !is_duration(text)
    {
        let hint = "write up to four whole numbers of h, m, s and ms, as 250ms or 1h30m";
        let message = format!("{text:?} is no duration of Gateway API");
        decoder.error(at, message, Some(hint.to_owned()));
        return None;
    }
    Some(())
}

/// `^([0-9]{1,5}(h|m|s|ms)){1,4}$`
fn is_duration(text: &str) -> bool {
    let mut rest = text;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) {
            return false;
        }
        let after = &rest[digits..];
        let units = ["ms", "h", "m", "s"].iter();
        let Some(end) = units.filter_map(|unit| after.strip_prefix(unit)).next() else {
            return false;
        };
        if end.is_empty() {
            return true;
        }
        rest = end;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_durations_are_those_of_gep_2257() {
        for good in [
            "0h",
            "0s",
            "0h0m0s",
            "150m",
            "7230s",
            "10s30m1h",
            "100ms200ms300ms",
            "01h",
            "00060m",
            "1h500ms",
        ] {
            assert!(is_duration(good), "{good}");
            assert!(parse_duration(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "0",
            "1",
            "1m1",
            "1d",
            "1.5h",
            "-15m",
            "999999h",
            "1h30m10s20ms50h",
            "1us",
        ] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
