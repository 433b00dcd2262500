//! A duration as a document has it.

use std::time::Duration;

use serde::de::{Deserializer, Error as _};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use weft_transport::units::{format_duration, parse_duration};

use crate::limits::DURATION_TEXT_BYTES_MAX;

/// A duration: `250ms`, `1h30m`. It keeps its text, so that a resource is shown as it was written (GEP-2257:
/// what a user wrote is not rewritten).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration, Option<Text>);

/// A short text without an allocation; the rest of the bytes is zero.
type Text = [u8; DURATION_TEXT_BYTES_MAX];

impl Span {
    /// A duration that no document says.
    pub fn of(duration: Duration) -> Self {
        Self(duration, None)
    }

    /// The same without its text: values that weft computes are shown in one form (GEP-2257).
    pub(crate) fn canonical(self) -> Self {
        Self::of(self.0)
    }

    /// A duration with the text that says it.
    pub(crate) fn written(duration: Duration, text: &str) -> Self {
        let mut kept = Text::default();
        let fits = kept
            .get_mut(..text.len())
            .map(|to| to.copy_from_slice(text.as_bytes()));
        let is_other = text != format_duration(duration);
        Self(duration, fits.filter(|()| is_other).map(|()| kept))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.1.as_ref();
        let text = text.and_then(|bytes| std::str::from_utf8(bytes).ok());
        match text {
            Some(text) => serializer.serialize_str(text.trim_end_matches('\0')),
            None => serializer.serialize_str(&format_duration(self.0)),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let duration = parse_duration(&text).map_err(D::Error::custom)?;
        Ok(Self::written(duration, &text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_as_it_was_written_and_any_other_in_the_canonical_form() {
        for text in [
            "0h",
            "0h0m0s",
            "150m",
            "10s30m1h",
            "00060m",
            "99999h99999m99999s99999ms",
            "1h500ms",
        ] {
            let span: Span = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(span).unwrap(), text);
            assert_eq!(span.0, parse_duration(text).unwrap());
        }
        // GEP-2257: descending units, largest first, without repeats; zero is 0s.
        for (text, canonical) in [
            ("0h", "0s"),
            ("150m", "2h30m"),
            ("7230s", "2h30s"),
            ("10s30m1h", "1h30m10s"),
            ("100ms200ms300ms", "600ms"),
            ("01h", "1h"),
            ("1h500ms", "1h500ms"),
        ] {
            let shown = serde_json::to_value(Span::of(parse_duration(text).unwrap()));
            assert_eq!(shown.unwrap(), canonical);
        }
    }
}
