//! The claims of a scenario, one line each: `requests p99 <= 300ms`. Pure: reads the line and compares it
//! with a number; `run/judge.rs` finds the number.

use std::fmt;

use serde::Serialize;
use weft_config::nearest::unknown_word;

use super::quantity::{Dimension, Quantity};

/// A claim, with the line as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// As it stands in the file, and as reports show it.
    pub line: String,
    /// The object that the claim is about.
    pub subject: String,
    /// The quantity there.
    pub measure: Measure,
    /// How the two sides compare.
    pub comparison: Comparison,
    /// The bound.
    pub bound: Bound,
}

/// The bound of a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    /// A number.
    Number(Quantity),
    /// A share of a result of another load in the same run.
    OfLoad {
        /// The share, 1 for all of it.
        share: f64,
        /// The load.
        load: String,
        /// The quantity.
        measure: LoadMeasure,
    },
}

/// The quantities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Of a load: the results of its client.
    Load(LoadMeasure),
    /// Of a sidecar, the CA or the config service: its own counts.
    Sidecar(SidecarMeasure),
}

/// The results of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadMeasure {
    /// Requests that were due.
    Sent,
    /// Requests without a good answer, including those never sent.
    Failed,
    /// The share with a good answer.
    Success,
    /// Answers whose bytes differ from those that the server sent.
    Corrupt,
    /// Median latency, from when the request was due.
    P50,
    /// 90 % are faster.
    P90,
    /// 99 % are faster.
    P99,
    /// 99.9 % are faster.
    P999,
    /// The slowest good answer.
    Max,
    /// The longest time without a good answer.
    LongestGap,
    /// Bytes of good answers' bodies, per second.
    Goodput,
}

/// The counts of a process of the mesh; the CA and the config service have only their metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SidecarMeasure {
    /// Mesh connections that peers opened during the load: each is a caller that reconnected.
    Reconnects,
    /// Changes of address of peers whose connections went on.
    Migrations,
    /// Attempts beyond the first of a request.
    Retries,
    /// How much a metric grew during the load, over all series that have these labels.
    Metric {
        /// Its name.
        name: String,
        /// Label pairs that a series must have.
        labels: Vec<(String, String)>,
    },
}

/// How two sides compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
    /// `==`
    Exactly,
    /// `<`
    Below,
    /// `>`
    Above,
}

const LOAD_MEASURES: [(&str, LoadMeasure); 11] = [
    ("sent", LoadMeasure::Sent),
    ("failed", LoadMeasure::Failed),
    ("success", LoadMeasure::Success),
    ("corrupt", LoadMeasure::Corrupt),
    ("p50", LoadMeasure::P50),
    ("p90", LoadMeasure::P90),
    ("p99", LoadMeasure::P99),
    ("p999", LoadMeasure::P999),
    ("max", LoadMeasure::Max),
    ("longest_gap", LoadMeasure::LongestGap),
    ("goodput", LoadMeasure::Goodput),
];

const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("==", Comparison::Exactly),
    ("<", Comparison::Below),
    (">", Comparison::Above),
];

const FORM: &str = "write WHO WHAT OPERATOR BOUND, as `requests p99 <= 300ms`";

impl Assertion {
    /// Reads one line. Whether its subject exists is checked by the caller.
    ///
    /// # Errors
    /// The fault of the line, and what to write.
    pub fn read(line: &str) -> Result<Self, String> {
        let (left, comparison, bound) = split(line).ok_or_else(|| format!("`{line}`: {FORM}"))?;
        let (subject, what) = left
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("`{line}`: {FORM}"))?;
        let measure = Measure::read(what.trim())?;
        let bound = Bound::read(bound, measure.dimension())?;
        Ok(Self {
            line: line.trim().to_owned(),
            subject: subject.to_owned(),
            measure,
            comparison,
            bound,
        })
    }

    /// Whether a measured number satisfies the claim with this bound. NaN satisfies none.
    pub fn holds(&self, measured: f64, bound: f64) -> bool {
        // 99.9 % has no exact form in binary: 999 of 1000 is that share nonetheless.
        let equal = (measured - bound).abs() <= 1e-9 * bound;
        match self.comparison {
            Comparison::AtMost => measured < bound || equal,
            Comparison::AtLeast => measured > bound || equal,
            Comparison::Exactly => equal,
            Comparison::Below => measured < bound && !equal,
            Comparison::Above => measured > bound && !equal,
        }
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl Bound {
    /// `300ms`, `small-h3 p99` or `5% of small-h2 p99`.
    fn read(text: &str, dimension: Dimension) -> Result<Self, String> {
        let (share, rest) = match text.split_once(" of ") {
            None => (1.0, text),
            Some((share, rest)) => (Dimension::Share.read(share.trim())?.value, rest.trim()),
        };
        let Some((load, what)) = rest.split_once(char::is_whitespace) else {
            return dimension.read(text).map(Self::Number);
        };
        let what = what.trim();
        let known = LOAD_MEASURES.iter().find(|(word, _)| *word == what);
        match known {
            Some((_, measure)) if measure.dimension() == dimension => Ok(Self::OfLoad {
                share,
                load: load.to_owned(),
                measure: *measure,
            }),
            Some(_) => Err(format!("`{text}`: the two sides count different things")),
            None => Err(format!(
                "`{text}`: write a bound, `LOAD WHAT` or `5% of LOAD WHAT`"
            )),
        }
    }
}

/// The left side, the operator, the right side. Operators within the braces of a metric's labels are text.
fn split(line: &str) -> Option<(&str, Comparison, &str)> {
    let from = line.rfind('}').map_or(0, |at| at + 1);
    let at = from + line[from..].find(['<', '>', '='])?;
    let (left, rest) = line.split_at(at);
    let (word, comparison) = COMPARISONS
        .iter()
        .find(|(word, _)| rest.starts_with(word))?;
    Some((left.trim(), *comparison, rest[word.len()..].trim()))
}

impl Measure {
    fn read(what: &str) -> Result<Self, String> {
        if let Some((_, measure)) = LOAD_MEASURES.iter().find(|(word, _)| *word == what) {
            return Ok(Self::Load(*measure));
        }
        match what {
            "reconnects" => Ok(Self::Sidecar(SidecarMeasure::Reconnects)),
            "migrations" => Ok(Self::Sidecar(SidecarMeasure::Migrations)),
            "retries" => Ok(Self::Sidecar(SidecarMeasure::Retries)),
            _ if what.starts_with("weft_") => metric(what).map(Self::Sidecar),
            _ => {
                let mut known: Vec<&str> = LOAD_MEASURES.iter().map(|(word, _)| *word).collect();
                known.extend([
                    "reconnects",
                    "migrations",
                    "retries",
                    "weft_...{label=\"value\"}",
                ]);
                Err(unknown_word(what, &known))
            }
        }
    }

    /// The dimension of its bound.
    pub fn dimension(&self) -> Dimension {
        match self {
            Self::Load(measure) => measure.dimension(),
            Self::Sidecar(_) => Dimension::Count,
        }
    }
}

impl LoadMeasure {
    /// Its dimension.
    pub fn dimension(self) -> Dimension {
        match self {
            Self::Sent | Self::Failed | Self::Corrupt => Dimension::Count,
            Self::Success => Dimension::Share,
            Self::P50 | Self::P90 | Self::P99 | Self::P999 | Self::Max | Self::LongestGap => {
                Dimension::Time
            }
            Self::Goodput => Dimension::Rate,
        }
    }
}

/// `NAME` or `NAME{label="value",...}`.
fn metric(text: &str) -> Result<SidecarMeasure, String> {
    let refuse =
        || format!("`{text}`: write a metric as weft_requests_total{{status=\"503\",route=\"\"}}");
    let (name, labels) = match text.split_once('{') {
        None => (text, ""),
        Some((name, rest)) => (name, rest.strip_suffix('}').ok_or_else(refuse)?),
    };
    if !name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    {
        return Err(refuse());
    }
    let pairs = labels.split(',').filter(|pair| !pair.trim().is_empty());
    let labels = pairs.map(|pair| {
        let (label, value) = pair.split_once('=').ok_or_else(refuse)?;
        let value = value
            .trim()
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'));
        Ok((
            label.trim().to_owned(),
            value.ok_or_else(refuse)?.to_owned(),
        ))
    });
    Ok(SidecarMeasure::Metric {
        name: name.to_owned(),
        labels: labels.collect::<Result<_, String>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_claim_is_read_into_its_parts() {
        let claim = Assertion::read("requests p99 <= 300ms").unwrap();
        assert_eq!(claim.subject, "requests");
        assert_eq!(claim.measure, Measure::Load(LoadMeasure::P99));
        assert_eq!(claim.comparison, Comparison::AtMost);
        assert_eq!(
            claim.bound,
            Bound::Number(Quantity::time(Duration::from_millis(300)))
        );
        let holds = |measured| claim.holds(measured, 0.3);
        assert!(holds(0.3) && !holds(0.31) && !holds(f64::NAN));
    }

    #[test]
    fn a_bound_may_be_what_another_load_found() {
        let bound = |line| Assertion::read(line).map(|claim| claim.bound);
        let of = |share, load: &str| Bound::OfLoad {
            share,
            load: load.to_owned(),
            measure: LoadMeasure::P99,
        };
        assert_eq!(bound("small p99 <= small-h3 p99"), Ok(of(1.0, "small-h3")));
        assert_eq!(bound("small p99 <= 5% of h2 p99"), Ok(of(0.05, "h2")));
        let refusal = |line| bound(line).unwrap_err();
        assert!(refusal("small p99 <= h2 failed").contains("count different things"));
        assert!(refusal("small p99 <= h2 p98").contains("write a bound"));
    }

    #[test]
    fn a_metric_may_be_named_with_labels() {
        let claim =
            Assertion::read("orders weft_requests_total{status=\"503\", error=\"\"} == 0").unwrap();
        let Measure::Sidecar(SidecarMeasure::Metric { name, labels }) = claim.measure else {
            panic!()
        };
        assert_eq!(name, "weft_requests_total");
        assert_eq!(
            labels,
            [
                ("status".to_owned(), "503".to_owned()),
                ("error".to_owned(), String::new())
            ]
        );
    }

    #[test]
    fn each_mistake_in_a_claim_says_what_to_write() {
        let refusal = |line| Assertion::read(line).unwrap_err();
        assert!(refusal("requests p99").contains("write WHO WHAT OPERATOR BOUND"));
        assert!(refusal("p99 <= 1s").contains("write WHO WHAT OPERATOR BOUND"));
        assert!(refusal("requests p98 <= 1s").contains("write one of sent, failed"));
        assert!(refusal("requests p99 <= 5").contains("has no unit"));
        assert!(refusal("requests failed <= 1%").contains("write a number"));
        assert!(refusal("a weft_x{b=c} == 0").contains("write a metric as"));
        assert!(refusal("requests failed = 0").contains("write WHO WHAT OPERATOR BOUND"));
    }
}
