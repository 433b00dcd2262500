//! The results of validation: each finding names the place, the fault and, if there is one, the remedy. The
//! command renders more than one line of text.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Whether a finding stops an apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The resources are refused.
    Error,
    /// The resources are accepted, but probably do not mean what the operator intended.
    Warning,
}

/// A place in a file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// One fault or warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it stops an apply.
    pub severity: Severity,
    /// The file, if the resource comes from one of this change; else it is in force already.
    pub file: Option<String>,
    /// The place in the file.
    pub position: Option<Position>,
    /// The resource, such as `HTTPRoute/shop/orders-split`, as far as it could be read.
    pub resource: Option<String>,
    /// Path of the field, such as `spec.rules[0].backendRefs[1].name`; empty for the whole.
    pub field: String,
    /// The fault.
    pub message: String,
    /// The remedy.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    /// `mesh.yaml:12: spec.ports[0].protocol: what is wrong; what to do`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.position, &self.resource) {
            (Some(file), Some(position), _) => {
                write!(f, "{}:{}: ", Visible(file), position.line)?;
            }
            (Some(file), None, _) => write!(f, "{}: ", Visible(file))?,
            (None, _, Some(resource)) => write!(f, "{}: ", Visible(resource))?,
            (None, _, None) => {}
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", Visible(&self.field))?;
        }
        Visible(&self.message).fmt(f)?;
        match &self.hint {
            Some(hint) => write!(f, "; {}", Visible(hint)),
            None => Ok(()),
        }
    }
}

/// A text on one line that changes nothing about the terminal: a key of a document may have any character.
struct Visible<'a>(&'a str);

impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| {
            if character.is_control() {
                write!(f, "{}", character.escape_default())
            } else {
                write!(f, "{character}")
            }
        })
    }
}

/// A bounded collection of findings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// The first [`limits::FINDINGS_MAX`], in the order of files and lines after [`Findings::sort`].
    pub listed: Vec<Finding>,
    /// How many more there were.
    pub omitted: usize,
    errors: usize,
}

impl Findings {
    /// Adds one, or counts it when the list is full. An error is never lost from [`Self::has_errors`].
    pub fn push(&mut self, finding: Finding) {
        self.errors += usize::from(finding.severity == Severity::Error);
        if self.listed.len() < limits::FINDINGS_MAX {
            self.listed.push(finding);
        } else {
            self.omitted += 1;
        }
    }

    /// Adds all of another collection.
    pub fn extend(&mut self, other: Self) {
        let before = self.errors + other.errors;
        for finding in other.listed {
            self.push(finding);
        }
        self.omitted += other.omitted;
        self.errors = before;
    }

    /// How many findings stop an apply.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Whether any finding stops an apply.
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The one that stops an apply whose field comes first by name: the same for any order of the document.
    pub(crate) fn first_error(&self) -> Option<&Finding> {
        let listed = self.listed.iter();
        let errors = listed.filter(|one| one.severity == Severity::Error);
        errors.min_by_key(|one| (&one.field, &one.message))
    }

    /// What was an error stops no apply any more.
    pub(crate) fn become_warnings(&mut self) {
        self.errors = 0;
        for one in &mut self.listed {
            one.severity = Severity::Warning;
        }
    }

    /// Orders by file and line, errors first at the same place.
    pub fn sort(&mut self) {
        self.listed.sort_by(|a, b| {
            (&a.file, a.position, a.severity, &a.resource, &a.field).cmp(&(
                &b.file,
                b.position,
                b.severity,
                &b.resource,
                &b.field,
            ))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_beyond_the_bound_still_count() {
        let warning = Finding {
            severity: Severity::Warning,
            file: None,
            position: None,
            resource: None,
            field: String::new(),
            message: "m".into(),
            hint: None,
        };
        let mut findings = Findings::default();
        for _ in 0..limits::FINDINGS_MAX {
            findings.push(warning.clone());
        }
        assert!(!findings.has_errors());
        findings.push(Finding {
            severity: Severity::Error,
            ..warning
        });
        assert!(findings.has_errors());
        assert_eq!(
            (findings.listed.len(), findings.omitted),
            (limits::FINDINGS_MAX, 1)
        );
    }
}
