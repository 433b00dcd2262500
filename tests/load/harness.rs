//! Runs `weft load serve` and `weft load`, and reads the result.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running `weft load serve`. Ended when dropped.
pub(crate) struct Server {
    child: Child,
    /// By the name of the flag that asked for them.
    addresses: BTreeMap<&'static str, String>,
}

impl Server {
    /// Starts a server of HTTP, TCP and UDP with these flags on free ports of the loopback interface.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::on(&["http", "tcp", "udp"], flags)
    }

    /// As [`Self::start`], for these protocols.
    pub(crate) fn on(protocols: &[&str], flags: &[&str]) -> Self {
        let mut command = weft();
        command.args(["load", "serve"]);
        for protocol in protocols {
            command.args([&format!("--{protocol}"), "127.0.0.1:0"]);
        }
        let mut child = command
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines = lines.take(protocols.len()).map(Result::unwrap);
        let addresses: BTreeMap<_, _> = lines.map(|line| listening(&line)).collect();
        assert_eq!(addresses.len(), protocols.len(), "{addresses:?}");
        Self { child, addresses }
    }

    /// The URL of `path` by a scheme: http, https, grpc, grpcs, tcp or udp; by http3, tcp-sink and tcp-source
    /// that of the server which they name.
    pub(crate) fn url(&self, scheme: &str, path: &str) -> String {
        let (scheme, protocol) = match scheme {
            "grpc" => (scheme, "http"),
            "grpcs" => (scheme, "https"),
            "http3" => ("https", scheme),
            "tcp-sink" | "tcp-source" => ("tcp", scheme),
            _ => (scheme, scheme),
        };
        format!("{scheme}://{}{path}", self.addresses[protocol])
    }
}

/// What a line of the server says: which protocol is where.
fn listening(line: &str) -> (&'static str, String) {
    let (url, flags) = line.split_once(' ').unwrap_or((line, ""));
    let (scheme, address) = url.split_once("://").unwrap();
    let protocol = match (scheme, flags) {
        ("http", "") => "http",
        ("https", "") => "https",
        ("https", "--http3") => "http3",
        ("tcp", "") => "tcp",
        ("tcp", "--tcp upload") => "tcp-sink",
        ("tcp", "--tcp download") => "tcp-source",
        ("udp", "") => "udp",
        _ => panic!("{line}"),
    };
    (protocol, address.to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The output of `weft load`.
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

    /// How many requests failed in this way.
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

/// Runs `weft load URL...` to its end.
pub(crate) fn load(arguments: &[&str]) -> Ran {
    run(&[&["--quiet", "-o", "json"], arguments].concat())
}

/// Runs `weft load` with only these arguments, to its end.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    let output = weft()
        .arg("load")
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
