//! Why settings were refused, as one line each: the place, the fault, and what to write instead.

use std::path::PathBuf;

/// Settings that cannot be used. In all cases but `Read` the file or the caller is at fault; none goes away
/// by trying again.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("{}: cannot read the settings: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file has something that no settings file may have.
    #[error("{}{position}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where in it.
        position: Position,
        /// The fault, and what to write.
        message: String,
    },
    /// An environment variable has a bad value.
    #[error("environment variable {name}: {message}")]
    Environment {
        /// The variable.
        name: String,
        /// The fault, and what to write.
        message: String,
    },
    /// A flag has a bad value, or the layers contradict each other.
    #[error("{origin}: {field}: {message}")]
    Invalid {
        /// The file, `the command line`, or `settings` if there is no file.
        origin: String,
        /// The key, as `inbound.services[0].port`.
        field: String,
        /// The fault, and what to write.
        message: String,
    },
}

/// A place in a file: `:3:7`, or nothing if the format's parser gives none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position(pub Option<(u64, u64)>);

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

/// A rule that the merged settings break: the key and what to write.
pub(super) struct Problem {
    pub(super) field: String,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}
