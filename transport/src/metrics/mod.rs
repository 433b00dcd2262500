//! What the processes of weft count: every metric with its name, type, unit, labels and meaning, declared
//! once.
//!
//! Only this folder can make a [`Metric`], and [`Page`], which writes the pages of `/metrics`, takes nothing
//! else. So no page has a metric that is not declared here. `sidecar.rs` and `control.rs` hold the
//! declarations, from which the tables of `docs/operate.md` are made (`tests/documentation/`). Not here: the
//! counts themselves, which are kept where the events happen.

mod control;
mod page;
mod sidecar;

pub use control::*;
pub use page::{Family, Page, Sample};
pub use sidecar::*;

/// One metric. Its labels have an order, in which values are given.
#[derive(Debug)]
pub struct Metric {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    of: &'static [Program],
    /// Labels that a family of metrics shares; they come first.
    group: &'static [Label],
    own: &'static [Label],
    meaning: &'static str,
}

/// How a value behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins at 0 with the process.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts of values up to each bound of [`DURATION_BUCKETS`].
    Histogram,
}

/// The unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The unit that the name says: requests, endpoints.
    Things,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Seconds since the Unix epoch.
    UnixTime,
    /// 1 while a condition holds, else 0.
    Flag,
}

/// The programs that have metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `weft proxy`
    Sidecar,
    /// `weft ca`
    Ca,
    /// `weft config`
    Config,
}

/// A label, and the bound on the number of its values.
#[derive(Debug)]
pub struct Label {
    /// As pages write it.
    pub name: &'static str,
    /// The values that it may have.
    pub values: Values,
}

/// The values that a label may have.
#[derive(Debug)]
pub enum Values {
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A name that the mesh, the host or the program gives.
    Open {
        /// The name's meaning.
        what: &'static str,
        /// The bound on the number of its values.
        bound: &'static str,
    },
}

/// Upper bounds of the duration buckets, in seconds: 1 ms to 30 s, about two per decade and a half.
pub const DURATION_BUCKETS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];

/// Every metric, in the order in which pages and documents have them.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    sidecar::ALL.iter().chain(control::ALL).copied()
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, unit: Unit, meaning: &'static str) -> Self {
        Self {
            name,
            kind,
            unit,
            of: &[Program::Sidecar],
            group: &[],
            own: &[],
            meaning,
        }
    }

    const fn of(mut self, programs: &'static [Program]) -> Self {
        self.of = programs;
        self
    }

    const fn by(mut self, group: &'static [Label], own: &'static [Label]) -> Self {
        self.group = group;
        self.own = own;
        self
    }

    /// With its unit; a counter's ends in `_total`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How a value behaves.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The unit of a value.
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The programs that have it.
    pub fn programs(&self) -> &'static [Program] {
        self.of
    }

    /// Its labels, in the order in which values are given.
    pub fn labels(&self) -> impl Iterator<Item = &'static Label> + Clone {
        self.group.iter().chain(self.own)
    }

    /// Labels that only this metric gives these values.
    pub fn own_labels(&self) -> &'static [Label] {
        self.own
    }

    /// What it counts, in Markdown.
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim()
    }
}

impl Label {
    const fn one_of(name: &'static str, values: &'static [&'static str]) -> Self {
        let values = Values::OneOf(values);
        Self { name, values }
    }

    const fn open(name: &'static str, what: &'static str, bound: &'static str) -> Self {
        let values = Values::Open { what, bound };
        Self { name, values }
    }

    /// Whether it may have this value.
    pub fn takes(&self, value: &str) -> bool {
        match &self.values {
            Values::OneOf(values) => values.contains(&value),
            Values::Open { .. } => true,
        }
    }
}

/// Declares metrics and the list of them, so that none can be left out. The doc comment of a metric is the
/// meaning that pages and documents show.
macro_rules! catalogue {
    ($($(#[doc = $meaning:literal])+ $name:ident = $kind:ident($text:literal, $unit:ident) $(.$with:ident($($labels:expr),*))*;)*) => {
        $(
            $(#[doc = $meaning])+
            pub static $name: $crate::metrics::Metric = $crate::metrics::Metric::new(
                $text,
                $crate::metrics::Kind::$kind,
                $crate::metrics::Unit::$unit,
                concat!($($meaning),+),
            )$(.$with($($labels),*))*;
        )*
        pub(super) const ALL: &[&$crate::metrics::Metric] = &[$(&$name),*];
    };
}
use catalogue;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_with_what_they_are() {
        let mut names = BTreeSet::new();
        for metric in all() {
            let name = metric.name;
            assert!(names.insert(name), "{name} is declared twice");
            assert!(
                name.starts_with("weft_") || name.starts_with("process_"),
                "{name}"
            );
            let (stem, is_total) = match name.strip_suffix("_total") {
                Some(stem) => (stem, true),
                None => (name, false),
            };
            assert_eq!(is_total, metric.kind == Kind::Counter, "{name}");
            let unit = match metric.unit {
                Unit::Seconds => stem.ends_with("_seconds"),
                Unit::Bytes => stem.ends_with("_bytes"),
                Unit::UnixTime => {
                    stem.ends_with("_time_seconds") || stem.ends_with("_timestamp_seconds")
                }
                Unit::Things | Unit::Flag => !stem.ends_with("_seconds"),
            };
            assert!(unit, "{name} is in {:?}", metric.unit);
        }
    }

    #[test]
    fn every_metric_says_what_it_counts_and_what_bounds_its_labels() {
        for metric in all() {
            let (name, meaning) = (metric.name, metric.meaning());
            assert!(
                meaning.ends_with('.') && !meaning.contains('|'),
                "{name}: {meaning}"
            );
            assert!(!metric.of.is_empty(), "{name}");
            let mut labels = BTreeSet::new();
            for label in metric.labels() {
                assert!(labels.insert(label.name), "{name}: {} twice", label.name);
                assert_ne!(label.name, "le", "{name}");
                match &label.values {
                    Values::OneOf(values) => {
                        let distinct: BTreeSet<_> = values.iter().collect();
                        assert_eq!(distinct.len(), values.len(), "{name}: {values:?}");
                    }
                    Values::Open { what, bound } => {
                        assert!(!what.is_empty() && !bound.is_empty(), "{name}")
                    }
                }
            }
        }
    }
}
