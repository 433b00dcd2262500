//! Values of traffic policy that parse only when they are valid: shares, gRPC statuses, identities by
//! pattern. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_transport::identity::SpiffeId;
use weft_transport::units;

use crate::limits::traffic as limits;

/// A share of 0 to 100 %, in hundredths of a percent, so that it compares exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub(crate) u16);

/// Why a number is no [`Percent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a percentage is a number from 0 to 100 with at most two decimals")]
pub struct PercentError;

impl Percent {
    /// A whole number of percent; more than 100 is 100.
    pub const fn whole(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self(percent as u16 * 100)
    }

    /// From a number with at most two decimals.
    ///
    /// # Errors
    /// When it is below 0, above 100 or finer.
    pub fn new(percent: f64) -> Result<Self, PercentError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(PercentError);
        }
        let hundredths = (percent * 100.0).round();
        // 100 times a decimal of two places is off a whole number by rounding only.
        if (percent * 100.0 - hundredths).abs() > 1e-6 {
            return Err(PercentError);
        }
        // Within 0 to 10 000.
        Ok(Self(hundredths as u16))
    }

    /// As a fraction of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// In hundredths of a percent, 0 to 10 000, for exact arithmetic.
    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Percent {
    /// `20` or `0.5`, without the sign.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 100.0)
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            serializer.serialize_u16(self.0 / 100)
        } else {
            serializer.serialize_f64(f64::from(self.0) / 100.0)
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// When a hedge is sent: `50ms` or `p95`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HedgeAfter {
    /// This long after the attempt before it.
    Delay(Duration),
    /// After the time within which this share of the destination's recent responses began.
    Percentile(Percent),
}

/// Why a text is no [`HedgeAfter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HedgeAfterError {
    /// It is neither.
    #[error("neither a delay in whole milliseconds nor a percentile")]
    Form,
    /// A percentile under the median would send more than half of all requests twice.
    #[error("a percentile is within p{} to p{}", limits::HEDGE_PERCENTILE_RANGE.start(), limits::HEDGE_PERCENTILE_RANGE.end())]
    Percentile,
    /// Too short to help, or longer than anybody waits.
    #[error("a delay is within {} to {}", units::format_duration(*limits::HEDGE_AFTER_RANGE.start()), units::format_duration(*limits::HEDGE_AFTER_RANGE.end()))]
    Delay,
}

impl FromStr for HedgeAfter {
    type Err = HedgeAfterError;

    fn from_str(text: &str) -> Result<Self, HedgeAfterError> {
        if let Some(number) = text.strip_prefix('p') {
            let number: f64 = number.parse().map_err(|_| HedgeAfterError::Form)?;
            return Percent::new(number)
                .ok()
                .filter(|percent| limits::HEDGE_PERCENTILE_RANGE.contains(percent))
                .map(Self::Percentile)
                .ok_or(HedgeAfterError::Percentile);
        }
        let delay = units::parse_duration(text).map_err(|_| HedgeAfterError::Form)?;
        // Tables carry no less.
        if delay.subsec_nanos() % 1_000_000 > 0 {
            return Err(HedgeAfterError::Form);
        }
        if !limits::HEDGE_AFTER_RANGE.contains(&delay) {
            return Err(HedgeAfterError::Delay);
        }
        Ok(Self::Delay(delay))
    }
}

impl fmt::Display for HedgeAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay(delay) => f.write_str(&units::format_duration(*delay)),
            Self::Percentile(percent) => write!(f, "p{percent}"),
        }
    }
}

impl TryFrom<String> for HedgeAfter {
    type Error = HedgeAfterError;

    fn try_from(text: String) -> Result<Self, HedgeAfterError> {
        text.parse()
    }
}

impl From<HedgeAfter> for String {
    fn from(after: HedgeAfter) -> Self {
        after.to_string()
    }
}

/// A gRPC status other than OK (grpc/doc/statuscodes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names are gRPC's, which explains them")]
#[repr(u8)]
pub enum GrpcCode {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl GrpcCode {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The number in `grpc-status`.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The name, as in `UNAVAILABLE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// No gRPC status has this number or name, or it is OK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a gRPC status other than OK, such as UNAVAILABLE")]
pub struct UnknownGrpcCode;

impl TryFrom<u8> for GrpcCode {
    type Error = UnknownGrpcCode;

    fn try_from(number: u8) -> Result<Self, UnknownGrpcCode> {
        let found = Self::ALL.into_iter().find(|code| code.number() == number);
        found.ok_or(UnknownGrpcCode)
    }
}

/// One identity, or all below a path: `spiffe://demo.test/ns/test/*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdentityPattern(String);

/// Why a text is no [`IdentityPattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT; the last segments may be one *")]
pub struct IdentityPatternError;

impl IdentityPattern {
    /// Whether it covers an identity.
    pub fn matches(&self, identity: &SpiffeId) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => identity.as_str().starts_with(prefix),
            None => self.0 == identity.as_str(),
        }
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdentityPattern {
    type Err = IdentityPatternError;

    fn from_str(text: &str) -> Result<Self, IdentityPatternError> {
        // A prefix must be of whole segments, so that ns/test/* does not cover ns/test-2, and must
        // name the trust domain.
        let whole = match text.strip_suffix("/*") {
            Some(prefix) => format!("{prefix}/x"),
            None => text.to_owned(),
        };
        let identity: SpiffeId = whole.parse().map_err(|_| IdentityPatternError)?;
        if identity.as_str() != whole {
            return Err(IdentityPatternError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for IdentityPattern {
    type Error = IdentityPatternError;

    fn try_from(text: String) -> Result<Self, IdentityPatternError> {
        text.parse()
    }
}

impl From<IdentityPattern> for String {
    fn from(pattern: IdentityPattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_has_two_decimals_and_stays_within_100() {
        assert_eq!(Percent::new(20.0), Ok(Percent::whole(20)));
        assert_eq!(Percent::new(0.29), Ok(Percent(29)));
        assert_eq!(Percent::new(99.99).unwrap().to_string(), "99.99");
        for bad in [-0.01, 100.01, 0.001, f64::NAN, f64::INFINITY] {
            assert_eq!(Percent::new(bad), Err(PercentError), "{bad}");
        }
        assert_eq!(serde_json::to_string(&Percent::whole(20)).unwrap(), "20");
        assert_eq!(serde_json::from_str::<Percent>("0.5").unwrap(), Percent(50));
    }

    #[test]
    fn a_hedge_waits_for_a_delay_or_a_percentile() {
        for text in ["50ms", "p95", "p99.9"] {
            assert_eq!(text.parse::<HedgeAfter>().unwrap().to_string(), text);
        }
        for (text, error) in [
            ("95", HedgeAfterError::Form),
            ("p", HedgeAfterError::Form),
            ("p49", HedgeAfterError::Percentile),
            ("p100", HedgeAfterError::Percentile),
            ("0s", HedgeAfterError::Delay),
        ] {
            assert_eq!(text.parse::<HedgeAfter>(), Err(error), "{text}");
        }
        assert_eq!(
            HedgeAfterError::Percentile.to_string(),
            "a percentile is within p50 to p99.9"
        );
    }

    #[test]
    fn grpc_statuses_are_written_by_their_names() {
        for code in GrpcCode::ALL {
            let written = serde_json::to_string(&code).unwrap();
            assert_eq!(written, format!("\"{}\"", code.as_str()));
            assert_eq!(GrpcCode::try_from(code.number()), Ok(code));
        }
        assert!(GrpcCode::try_from(0).is_err() && GrpcCode::try_from(17).is_err());
    }

    #[test]
    fn a_pattern_covers_whole_segments() {
        let pattern: IdentityPattern = "spiffe://demo.test/ns/test/*".parse().unwrap();
        let covers = |text: &str| pattern.matches(&text.parse().unwrap());
        assert!(covers("spiffe://demo.test/ns/test/sa/a"));
        assert!(!covers("spiffe://demo.test/ns/test-2/sa/a"));
        assert!(!covers("spiffe://other.test/ns/test/sa/a"));
        for bad in [
            "*",
            "spiffe://*",
            "spiffe://demo.test*",
            "spiffe://demo.test/ns/te*",
            "spiffe://demo.test/*/sa/a",
            "https://demo.test/a",
        ] {
            assert!(bad.parse::<IdentityPattern>().is_err(), "{bad}");
        }
    }
}
