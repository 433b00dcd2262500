//! How a command ends with a failure: one line for people, one exit code for scripts.

use std::fmt;

/// Exit codes, as README and `weft --help` list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The operation or a check failed, or `diff` found a difference.
    Failed = 1,
    /// The command line is wrong (clap's own code).
    Usage = 2,
    /// A file or a resource is wrong (EX_DATAERR).
    BadData = 65,
    /// The CA, the config service or the sidecar cannot be reached (EX_UNAVAILABLE).
    Unreachable = 69,
    // 70 (EX_SOFTWARE) is that of `weft_transport::vital`: a task within the process ended by a fault.
    /// Refused by a service, or by the file system (EX_NOPERM).
    NotPermitted = 77,
    /// A threshold or an assertion of the run failed.
    Assertion = 99,
    /// Ended by SIGINT.
    Interrupted = 130,
}

/// Why a command ends with another code than 0.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// One line for stderr; empty if everything was printed already.
    pub line: String,
}

impl Failure {
    /// A failure with its line.
    pub fn new(code: Code, line: impl fmt::Display) -> Self {
        Self {
            code: code as u8,
            line: line.to_string(),
        }
    }

    /// A failure that was reported on stdout or stderr already.
    pub fn silent(code: Code) -> Self {
        Self::new(code, "")
    }

    /// The exit code of a wrapped command, handed on.
    pub fn of_command(code: u8) -> Self {
        Self {
            code,
            line: String::new(),
        }
    }

    /// An operation on `path` that the system refused.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::PermissionDenied {
            Code::NotPermitted
        } else {
            Code::Failed
        };
        Self::new(code, format!("{}: {error}", path.display()))
    }
}

/// Errors of libraries that need no distinction. The line ends with their causes.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Code::Failed, format!("{error:#}"))
    }
}

impl From<weft_config::settings::SettingsError> for Failure {
    fn from(error: weft_config::settings::SettingsError) -> Self {
        use weft_config::settings::SettingsError;
        match &error {
            SettingsError::Read { path, source } => Self {
                line: error.to_string(),
                ..Self::io(path, source)
            },
            SettingsError::File { .. }
            | SettingsError::Environment { .. }
            | SettingsError::Invalid { .. } => Self::new(Code::BadData, error),
        }
    }
}

/// An error and its causes in one line, without repeating what a cause already says.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
