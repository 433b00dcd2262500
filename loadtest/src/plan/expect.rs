//! Judges whether an answer is as expected. Pure.

use http::{HeaderName, HeaderValue};

use crate::sample::{ErrorKind, Outcome};

/// The conditions that an answer must meet to count as a success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectations {
    /// The statuses that are good; without it those below 400, and 0 of gRPC.
    pub ok: Option<Statuses>,
    /// SHA-256 of the body.
    pub body_sha256: Option<[u8; 32]>,
    /// Fields that the head must have, with any value or this one.
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// Statuses, as ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// Reads `200,404`, `200-299` or `2xx`, or several with commas.
    ///
    /// # Errors
    /// A text that says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let help =
            || format!("{text:?} names no statuses; write for example 200,404 or 200-299 or 2xx");
        let range = |part: &str| -> Option<(u16, u16)> {
            let part = part.trim();
            let (first, last) = if let Some(class) = part.strip_suffix("xx") {
                let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
                (class * 100, class * 100 + 99)
            } else if let Some((first, last)) = part.split_once('-') {
                (first.parse().ok()?, last.parse().ok()?)
            } else {
                let status = part.parse().ok()?;
                (status, status)
            };
            (first <= last && last <= 999).then_some((first, last))
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(help)
    }

    fn contain(&self, status: u16) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl Expectations {
    /// Judges an HTTP status.
    pub(crate) fn status(&self, status: u16) -> Outcome {
        let good = match &self.ok {
            Some(ok) => ok.contain(status),
            None => status < 400,
        };
        outcome(good, ErrorKind::Status(status))
    }

    /// Judges a gRPC status.
    pub(crate) fn grpc_status(&self, status: u8) -> Outcome {
        let good = match &self.ok {
            Some(ok) => ok.contain(status.into()),
            None => status == 0,
        };
        outcome(good, ErrorKind::Grpc(status))
    }

    /// Judges the fields of a head; `has` says whether one of the values of a field is this, or
    /// whether there is any.
    pub(crate) fn fields(&self, mut has: impl FnMut(&str, Option<&[u8]>) -> bool) -> Outcome {
        let good = self.headers.iter().all(|(name, value)| {
            let value = value.as_ref().map(HeaderValue::as_bytes);
            has(name.as_str(), value)
        });
        outcome(good, ErrorKind::UnexpectedHeader)
    }

    /// Judges the digest of a body.
    pub(crate) fn body(&self, sha256: &[u8]) -> Outcome {
        let good = self.body_sha256.is_none_or(|wanted| wanted == sha256);
        outcome(good, ErrorKind::UnexpectedBody)
    }
}

/// Reads `name` or `name: value`.
///
/// # Errors
/// A text that says what to write.
pub fn parse_expected_header(text: &str) -> Result<(HeaderName, Option<HeaderValue>), String> {
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name, Some(value.trim())),
        None => (text, None),
    };
    let name = HeaderName::try_from(name.trim())
        .map_err(|_| format!("{text:?} names no header; write NAME or 'NAME: VALUE'"))?;
    let value = value
        .map(HeaderValue::try_from)
        .transpose()
        .map_err(|_| format!("{text:?} has a value that no header can have"))?;
    Ok((name, value))
}

/// Reads the 64 hexadecimal digits of a SHA-256.
///
/// # Errors
/// A text that says what to write.
pub fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let help = || format!("{text:?} is no SHA-256; write its 64 hexadecimal digits");
    weft_transport::hex::decode(text).ok_or_else(help)
}

/// The first failure of two, or success.
pub(crate) fn both(first: Outcome, second: Outcome) -> Outcome {
    match first {
        Outcome::Success => second,
        Outcome::Failure(_) => first,
    }
}

fn outcome(good: bool, otherwise: ErrorKind) -> Outcome {
    if good {
        Outcome::Success
    } else {
        Outcome::Failure(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_expectation_statuses_below_400_and_grpc_0_are_good() {
        let any = Expectations::default();
        assert_eq!(any.status(204), Outcome::Success);
        assert_eq!(any.status(302), Outcome::Success);
        let failed = Outcome::Failure(ErrorKind::Status(400));
        assert_eq!(any.status(400), failed);
        assert_eq!(any.grpc_status(0), Outcome::Success);
        let failed = Outcome::Failure(ErrorKind::Grpc(14));
        assert_eq!(any.grpc_status(14), failed);
    }

    #[test]
    fn an_expectation_replaces_the_rule() {
        let only = Expectations {
            ok: Some(Statuses::parse("5xx,404,200-201").unwrap()),
            ..Expectations::default()
        };
        for good in [200, 201, 404, 500, 599] {
            assert_eq!(only.status(good), Outcome::Success, "{good}");
        }
        for bad in [204, 403, 600] {
            assert_ne!(only.status(bad), Outcome::Success, "{bad}");
        }
        for wrong in ["", "ok", "300-200", "1000", "xx", "200,"] {
            assert!(Statuses::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_expected_with_any_value_or_with_one() {
        let (name, value) = parse_expected_header("X-Id: 7").unwrap();
        let expectations = Expectations {
            headers: vec![(name, value), parse_expected_header("server").unwrap()],
            ..Expectations::default()
        };
        let judge = |head: &[(&str, &str)]| {
            expectations.fields(|name, value| {
                head.iter().any(|(found, text)| {
                    *found == name && value.is_none_or(|value| value == text.as_bytes())
                })
            })
        };
        assert_eq!(judge(&[("server", "x"), ("x-id", "7")]), Outcome::Success);
        assert_ne!(judge(&[("server", "x"), ("x-id", "8")]), Outcome::Success);
        assert_ne!(judge(&[("x-id", "7")]), Outcome::Success);
    }

    #[test]
    fn a_digest_is_64_digits() {
        let zero = "0".repeat(62) + "fF";
        assert_eq!(parse_sha256(&zero).unwrap()[31], 255);
        for wrong in ["", "00", &"g".repeat(64), &"ä".repeat(32)] {
            assert!(parse_sha256(wrong).is_err(), "{wrong}");
        }
    }
}
