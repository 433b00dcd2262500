//! What an endpoint says of itself beyond where it is: its weight among the others, and labels. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits;

/// What one endpoint says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Details {
    /// Its share of requests.
    #[serde(default, skip_serializing_if = "Weight::is_ordinary")]
    pub weight: Weight,
    /// Notes for people and tools.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub metadata: Labels,
}

impl Details {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The share of requests that an endpoint gets, in percent of that of an endpoint that says nothing: 50 is
/// half of it, 200 twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u16);

/// The weight of an endpoint that says nothing. It is not the least, so that one endpoint can get less than
/// the others.
const ORDINARY: u16 = 100;

impl Weight {
    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// Whether it is the default, which is omitted when written.
    pub fn is_ordinary(&self) -> bool {
        self.0 == ORDINARY
    }
}

impl std::default::Default for Weight {
    fn default() -> Self {
        Self(ORDINARY)
    }
}

/// Why details are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DetailsError {
    /// Of a weight.
    #[error(
        "weight {0} is out of range: write {least} to {most}, where {ORDINARY} is an ordinary share",
        least = limits::ENDPOINT_WEIGHT.start(),
        most = limits::ENDPOINT_WEIGHT.end()
    )]
    Weight(u32),
    /// Of metadata.
    #[error("metadata has {0} labels: write at most {most}", most = limits::ENDPOINT_LABELS_MAX)]
    TooMany(usize),
    /// Of the name of a label.
    #[error(
        "the label {0:?} is not valid: a name has 1 to {most} letters, digits, `.`, `_`, `-` and `/`",
        most = limits::ENDPOINT_LABEL_NAME_MAX
    )]
    Name(String),
    /// Of the value of a label.
    #[error(
        "the value of the label {0:?} is not valid: write at most {most} printable ASCII characters",
        most = limits::ENDPOINT_LABEL_VALUE_MAX
    )]
    Value(String),
}

impl TryFrom<u32> for Weight {
    type Error = DetailsError;

    fn try_from(number: u32) -> Result<Self, DetailsError> {
        let fits = u16::try_from(number).ok();
        fits.filter(|weight| limits::ENDPOINT_WEIGHT.contains(weight))
            .map(Self)
            .ok_or(DetailsError::Weight(number))
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0.into()
    }
}

/// A few short labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, String>",
    into = "BTreeMap<String, String>"
)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = DetailsError;

    fn try_from(labels: BTreeMap<String, String>) -> Result<Self, DetailsError> {
        if labels.len() > limits::ENDPOINT_LABELS_MAX {
            return Err(DetailsError::TooMany(labels.len()));
        }
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let in_value = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        // What is refused is shown, so it is cut to a bound.
        let shown = |name: &str| name.chars().take(limits::ENDPOINT_LABEL_NAME_MAX).collect();
        for (name, value) in &labels {
            let length = 1..=limits::ENDPOINT_LABEL_NAME_MAX;
            if !length.contains(&name.len()) || !name.bytes().all(in_name) {
                return Err(DetailsError::Name(shown(name)));
            }
            if value.len() > limits::ENDPOINT_LABEL_VALUE_MAX || !value.bytes().all(in_value) {
                return Err(DetailsError::Value(shown(name)));
            }
        }
        Ok(Self(labels))
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_an_ordinary_endpoint_and_writes_nothing() {
        let read = |text| serde_json::from_str::<Details>(text).unwrap();
        assert_eq!(read("{}"), Details::default());
        assert_eq!(read(r#"{"weight":100}"#), Details::default());
        assert_eq!(serde_json::to_string(&Details::default()).unwrap(), "{}");
        let both = r#"{"weight":7,"metadata":{"version":"v2"}}"#;
        assert_eq!(serde_json::to_string(&read(both)).unwrap(), both);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_what_to_write() {
        let refused = |text: &str| {
            let read = serde_json::from_str::<Details>(text);
            read.unwrap_err().to_string()
        };
        for weight in ["0", "1001", "70000"] {
            let said = refused(&format!("{{\"weight\":{weight}}}"));
            assert!(
                said.starts_with(&format!("weight {weight} is out of range: write 1 to 1000")),
                "{said}"
            );
        }
        let many: BTreeMap<String, String> = (0..17)
            .map(|number| (number.to_string(), String::new()))
            .collect();
        assert_eq!(Labels::try_from(many), Err(DetailsError::TooMany(17)));
        for (name, value) in [
            ("", "a"),
            ("a b", "a"),
            ("ä", "a"),
            ("a", "b\n"),
            ("a", "ä"),
        ] {
            let labels = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            assert!(Labels::try_from(labels).is_err(), "{name} {value}");
        }
        let long = BTreeMap::from([("a".repeat(64), String::new())]);
        assert!(Labels::try_from(long).is_err());
        let long = BTreeMap::from([("a".to_owned(), "b".repeat(129))]);
        assert!(Labels::try_from(long).is_err());
    }
}
