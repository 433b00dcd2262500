//! Runs `weft load serve` and `weft load`, and reads the result.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running `weft load serve`. Ended when dropped.
pub(crate) struct Server {
    child: Child,
    addresses: Vec<String>,
}

impl Server {
    /// Starts a server with these flags on free ports of the loopback interface.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut child = weft()
            .args(["load", "serve"])
            .args(["--http", "127.0.0.1:0"])
            .args(["--tcp", "127.0.0.1:0"])
            .args(["--udp", "127.0.0.1:0"])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addresses: Vec<String> = lines.take(3).map(Result::unwrap).collect();
        assert_eq!(addresses.len(), 3, "{addresses:?}");
        Self { child, addresses }
    }

    /// The URL of `path` by a scheme: http, grpc, tcp or udp.
    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        let listening = if scheme == "grpc" { "http" } else { scheme };
        let prefix = format!("{listening}://");
        let mut addresses = self.addresses.iter();
        let address = addresses.find_map(|address| address.strip_prefix(&prefix));
        format!("{scheme}://{}{path}", address.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `weft load` left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The document that `-o json` prints.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A number of the summary.
    #[track_caller]
    pub(crate) fn summary(&self, field: &str) -> u64 {
        self.json()["summary"][field].as_u64().unwrap()
    }

    /// How many requests failed in a way.
    #[track_caller]
    pub(crate) fn failed(&self, kind: &str) -> u64 {
        self.json()["errors"][kind].as_u64().unwrap_or(0)
    }

    /// A percentile of the latency in milliseconds.
    #[track_caller]
    pub(crate) fn latency_ms(&self, percentile: &str) -> f64 {
        let json = self.json();
        let value = &json["latency"]["percentiles"][percentile]["us"];
        value
            .as_f64()
            .unwrap_or_else(|| panic!("no {percentile}: {json}"))
            / 1e3
    }

    /// Its one line on stderr, and nothing on stdout.
    #[track_caller]
    pub(crate) fn one_line(&self) -> &str {
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        self.stderr.trim_end()
    }
}

/// Runs `weft load` to its end.
pub(crate) fn load(arguments: &[&str]) -> Ran {
    let output = weft()
        .args(["load", "--quiet", "-o", "json"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The command under test.
pub(crate) fn weft() -> Command {
    Command::new(env!("CARGO_BIN_EXE_weft"))
}
