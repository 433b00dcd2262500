//! The place where a sidecar runs, as `eu-west/eu-west-1a`: from the region inwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A place: region, zone, subzone, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Locality(String);

/// Why a text is not a locality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalityError {
    /// None, or more than three parts.
    #[error("write one to three parts, as eu-west/eu-west-1a")]
    Parts,
    /// A part that is empty, too long, or has other characters.
    #[error("a part has 1 to 63 letters, digits, '-', '_' or '.', as in eu-west/eu-west-1a")]
    Part,
}

impl Locality {
    /// How far apart two places are: 0 is the same place, [`Self::FARTHEST`] means that even the first part
    /// differs.
    pub fn distance(&self, other: &Self) -> u8 {
        if self == other {
            return 0;
        }
        let common = self.parts().zip(other.parts());
        let common = common.take_while(|(one, other)| one == other).count();
        u8::try_from(limits::LOCALITY_PARTS_MAX.saturating_sub(common))
            .unwrap_or(Self::FARTHEST)
            .max(1)
    }

    /// The distance of places that have nothing in common, or are not known.
    pub const FARTHEST: u8 = 3;

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for Locality {
    type Err = LocalityError;

    fn from_str(text: &str) -> Result<Self, LocalityError> {
        let parts = text.split('/');
        if text.is_empty() || parts.clone().count() > limits::LOCALITY_PARTS_MAX {
            return Err(LocalityError::Parts);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_part = |part: &str| {
            (1..=limits::LOCALITY_PART_LENGTH_MAX).contains(&part.len())
                && part.bytes().all(allowed)
        };
        if !parts.into_iter().all(is_part) {
            return Err(LocalityError::Part);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Locality {
    type Error = LocalityError;

    fn try_from(text: String) -> Result<Self, LocalityError> {
        text.parse()
    }
}

impl From<Locality> for String {
    fn from(locality: Locality) -> Self {
        locality.0
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_parts_are_common_the_nearer() {
        let distance = |one: &str, other: &str| {
            let (one, other): (Locality, Locality) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.distance(&other), other.distance(&one));
            one.distance(&other)
        };
        assert_eq!(distance("eu/a/1", "eu/a/1"), 0);
        assert_eq!(distance("eu/a", "eu/a"), 0);
        assert_eq!(distance("eu/a/1", "eu/a/2"), 1);
        assert_eq!(distance("eu/a", "eu/a/2"), 1);
        assert_eq!(distance("eu/a", "eu/b"), 2);
        assert_eq!(distance("eu/a", "us/a"), Locality::FARTHEST);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for (text, error) in [
            ("", LocalityError::Parts),
            ("a/b/c/d", LocalityError::Parts),
            ("eu//a", LocalityError::Part),
            ("eu west", LocalityError::Part),
            ("eu/", LocalityError::Part),
        ] {
            assert_eq!(text.parse::<Locality>(), Err(error), "{text}");
        }
        assert!("a".repeat(64).parse::<Locality>().is_err());
    }
}
