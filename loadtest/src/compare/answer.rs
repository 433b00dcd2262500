//! The line of JSON that a plug-in of `weft load compare` prints when its pair of proxies is up. Pure.
//! `docs/compare.md` describes it for those who write one.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Path, Role};
use crate::limits;

/// A pair of proxies that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its name, with its version.
    pub version: String,
    /// The address at which the caller's side takes HTTP/1.1.
    pub http: Option<SocketAddr>,
    /// Where it takes TCP connections.
    pub tcp: Option<SocketAddr>,
    /// The processes whose time and memory count.
    pub processes: Vec<Process>,
}

/// A process of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Process {
    /// On whose side it is.
    pub role: Role,
    /// Its id.
    pub pid: u32,
}

/// Why a line is not an answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AnswerError {
    /// Not JSON, or not of this form.
    #[error(
        "it printed `{line}`, which is not the line of JSON that docs/compare.md describes ({reason})"
    )]
    Form {
        /// The beginning of what it printed.
        line: String,
        /// The error of the parser.
        reason: String,
    },
    /// An address that cannot be called.
    #[error("`{field}` is {text:?}: write IP:PORT")]
    Address {
        /// `http` or `tcp`.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// The answer names neither of the two.
    #[error("it says neither `http` nor `tcp`: where is it to be called?")]
    NoAddress,
    /// Nothing to measure, or too much.
    #[error("`processes` has {0} entries: write 1 to {max}", max = limits::PLUGIN_PROCESSES_MAX)]
    Processes(usize),
}

#[derive(Deserialize)]
struct Raw {
    version: String,
    http: Option<String>,
    tcp: Option<String>,
    processes: Vec<Process>,
}

impl Answer {
    /// Reads the line. Unknown fields are ignored, so that a plug-in may add its own.
    ///
    /// # Errors
    /// When the line breaks the format for plug-ins.
    pub fn parse(line: &str) -> Result<Self, AnswerError> {
        let raw: Raw = serde_json::from_str(line).map_err(|error| AnswerError::Form {
            line: line.trim().chars().take(60).collect(),
            reason: error.to_string(),
        })?;
        let http = raw.http.map(|text| address("http", text)).transpose()?;
        let tcp = raw.tcp.map(|text| address("tcp", text)).transpose()?;
        if http.or(tcp).is_none() {
            return Err(AnswerError::NoAddress);
        }
        if !(1..=limits::PLUGIN_PROCESSES_MAX).contains(&raw.processes.len()) {
            return Err(AnswerError::Processes(raw.processes.len()));
        }
        Ok(Self {
            version: raw.version,
            http,
            tcp,
            processes: raw.processes,
        })
    }

    /// Where to call it.
    pub fn address(&self, path: Path) -> Option<SocketAddr> {
        match path {
            Path::Http => self.http,
            Path::Tcp => self.tcp,
        }
    }
}

/// `IP:PORT`, also written as a URL.
fn address(field: &'static str, text: String) -> Result<SocketAddr, AnswerError> {
    let bare = text
        .strip_prefix(field)
        .and_then(|rest| rest.strip_prefix("://"));
    let bare = bare.unwrap_or(&text).trim_end_matches('/');
    bare.parse()
        .map_err(|_| AnswerError::Address { field, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_addresses_and_processes() {
        let line = r#"{"version": "proxy 1.2", "http": "http://127.0.0.1:81/", "tcp": "127.0.0.1:82",
            "processes": [{"role": "caller", "pid": 7}, {"role": "server", "pid": 8}], "more": 1}"#;
        let answer = Answer::parse(line).unwrap();
        assert_eq!(
            answer.address(Path::Http),
            Some("127.0.0.1:81".parse().unwrap())
        );
        assert_eq!(
            answer.address(Path::Tcp),
            Some("127.0.0.1:82".parse().unwrap())
        );
        assert_eq!(
            answer.processes[1],
            Process {
                role: Role::Server,
                pid: 8
            }
        );
    }

    #[test]
    fn an_invalid_answer_is_reported_in_one_line() {
        let one = r#""processes":[{"role":"caller","pid":1}]"#;
        for (line, says) in [
            ("listening on port 80".to_owned(), "`listening on port 80`"),
            (
                format!(r#"{{"version":"x",{one}}}"#),
                "neither `http` nor `tcp`",
            ),
            (
                format!(r#"{{"version":"x","http":"localhost:80",{one}}}"#),
                "write IP:PORT",
            ),
            (
                r#"{"version":"x","http":"1.2.3.4:5","processes":[]}"#.to_owned(),
                "0 entries",
            ),
            (
                r#"{"version":"x","http":"1.2.3.4:5","processes":[{"role":"b","pid":1}]}"#
                    .to_owned(),
                "`caller` or `server`",
            ),
        ] {
            let error = Answer::parse(&line).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
