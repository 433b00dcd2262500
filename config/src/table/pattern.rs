//! A regular expression of a route. It matches in a time that grows with the text alone, never with what was
//! tried before; its size is bounded where it is read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits;

/// A regular expression that the whole text must match, in the syntax of the Rust crate `regex` (like RE2: no
/// look-around, no back-references). Compiled when it is read; copies share that.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: Box<str>,
    whole: regex::Regex,
}

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is too long to be read.
    #[error(
        "the regular expression has more than {} characters",
        limits::PATTERN_LENGTH_MAX
    )]
    Long,
    /// Compiled it takes more room than a route may have.
    #[error(
        "the regular expression is too large: repetitions such as {{1000}} multiply what they repeat"
    )]
    Large,
    /// It breaks the syntax.
    #[error("not a regular expression: {0}")]
    Syntax(String),
}

impl Pattern {
    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.whole.is_match(text)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.chars().count() > limits::PATTERN_LENGTH_MAX {
            return Err(PatternError::Long);
        }
        let whole = regex::RegexBuilder::new(&format!("\\A(?:{text})\\z"))
            .size_limit(limits::PATTERN_BYTES_MAX)
            .dfa_size_limit(limits::PATTERN_CACHE_BYTES_MAX)
            .build();
        // An expression that closes the group early would match more than it says.
        let alone = regex::Regex::new(text);
        match (whole, alone) {
            (Ok(whole), Ok(_)) => Ok(Self {
                text: text.into(),
                whole,
            }),
            (_, Err(regex::Error::CompiledTooBig(_)))
            | (Err(regex::Error::CompiledTooBig(_)), _) => Err(PatternError::Large),
            (Err(error), _) | (_, Err(error)) => Err(PatternError::Syntax(last_line(&error))),
        }
    }
}

/// Several patterns that are asked of one text together: that costs hardly more than one of them.
#[derive(Debug, Default)]
pub(super) struct PatternSet {
    each: Vec<Pattern>,
    /// None where they are few, or too large together.
    together: Option<regex::RegexSet>,
}

impl PatternSet {
    /// Of these, by their place.
    pub(super) fn new(each: Vec<Pattern>) -> Self {
        let together = (each.len() >= limits::PATTERNS_TOGETHER_MIN).then(|| {
            regex::RegexSetBuilder::new(each.iter().map(|one| one.whole.as_str()))
                .size_limit(limits::PATTERN_BYTES_MAX.saturating_mul(each.len()))
                .dfa_size_limit(limits::PATTERNS_CACHE_BYTES_MAX)
                .build()
                .ok()
        });
        Self {
            each,
            together: together.flatten(),
        }
    }

    /// Notes which of them match the whole of `text`, beside what is noted already. `matched` is as long as
    /// they are many.
    pub(super) fn note(&self, text: &str, matched: &mut [bool]) {
        match &self.together {
            Some(together) => {
                for one in together.matches(text).iter() {
                    matched[one] = true;
                }
            }
            None => {
                for (one, pattern) in matched.iter_mut().zip(&self.each) {
                    *one = *one || pattern.matches(text);
                }
            }
        }
    }

    /// None matched.
    pub(super) fn unmatched(&self) -> Vec<bool> {
        vec![false; self.each.len()]
    }
}

/// What is wrong, without the drawing that points to it.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text.into_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<Pattern, PatternError> {
        text.parse()
    }

    #[test]
    fn the_whole_text_must_match_whatever_the_alternatives() {
        let either = pattern("a|b+").unwrap();
        assert!(either.matches("a") && either.matches("bb"));
        assert!(!either.matches("ab") && !either.matches("xa") && !either.matches("a\n"));
        assert!(pattern("(?i)/V[0-9]+").unwrap().matches("/v12"));
    }

    #[test]
    fn what_cannot_be_bounded_or_read_is_refused_with_a_reason() {
        assert_eq!(pattern("(a{1000}){1000}"), Err(PatternError::Large));
        assert_eq!(
            pattern(&"a".repeat(limits::PATTERN_LENGTH_MAX + 1)),
            Err(PatternError::Long)
        );
        for bad in ["(", "a)|(b", "[z-a]", "(?=a)", r"(a)\1"] {
            let error = pattern(bad).unwrap_err();
            assert!(
                matches!(&error, PatternError::Syntax(why) if !why.is_empty()),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn it_survives_the_way_to_a_sidecar() {
        let one = pattern("/v[0-9]+").unwrap();
        let written = serde_json::to_string(&one).unwrap();
        assert_eq!(written, "\"/v[0-9]+\"");
        assert_eq!(serde_json::from_str::<Pattern>(&written).unwrap(), one);
        assert!(serde_json::from_str::<Pattern>("\"(\"").is_err());
    }
}
