//! `weft proxy status`, `config`, `drain` and `logging`: questions and requests to a running sidecar on this
//! host.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http::Method;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use weft_config::settings::DurationText;

use crate::admin_client::{ask, connect, get};
use crate::admin_place::SidecarFlags;
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, note, print, text_out, visible_json};
use crate::process;

/// Shows whether a sidecar is ready, as whom, and what it is connected to; exit code 1 if not ready.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    at: SidecarFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints the table that a sidecar runs, as JSON.
#[derive(Debug, Args)]
pub struct Dump {
    #[command(flatten)]
    at: SidecarFlags,
}

/// Asks a sidecar to drain and end.
///
/// Returns when the drain has begun; with --wait, when the sidecar has ended, as a stop hook wants it. Only
/// the user that the sidecar runs as, and root, may ask: over the Unix socket in its state directory.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft proxy drain --config proxy.yaml\n  \
    weft proxy drain --state-dir /var/lib/weft/orders --wait 30s")]
pub struct Drain {
    #[command(flatten)]
    at: SidecarFlags,
    /// Wait until the sidecar has ended, at most so long
    #[arg(long, value_name = "DURATION", conflicts_with = "admin")]
    wait: Option<DurationText>,
}

/// Shows the log filter of a sidecar, or replaces it until the sidecar ends.
///
/// Only the user that the sidecar runs as, and root, may replace it: over the Unix socket in its state
/// directory.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft proxy logging --config proxy.yaml info,weft_proxy=debug")]
pub struct Logging {
    #[command(flatten)]
    at: SidecarFlags,
    /// The new filter: a level, and levels of parts
    #[arg(value_name = "DIRECTIVES")]
    directives: Option<String>,
}

/// Runs `weft proxy status`.
pub fn status(args: &Status) -> Result<(), Failure> {
    let at = args.at.to_read()?;
    let (ready, status) = process::runtime()?.block_on(async {
        let ready = get(&at, "/ready").await?;
        let certs = get(&at, "/certs").await?.json()?;
        let dump = get(&at, "/config_dump").await?.json()?;
        let connections = get(&at, "/connections").await?.json()?;
        let status = json!({
            "ready": ready.status.is_success(),
            "state": String::from_utf8_lossy(&ready.body).trim(),
            "identity": certs["identity"],
            "svid_expires": certs["not_after"],
            "revision": dump["table"]["revision"]["number"],
            "control_plane": dump["control_plane"],
            "registrations": dump["registrations"],
            "listeners": dump["listeners"],
            "peers": connections["peers"],
        });
        Ok::<_, Failure>((ready.status.is_success(), status))
    })?;
    print(args.output, &status, status_table)?;
    if ready {
        Ok(())
    } else {
        Err(Failure::silent(Code::Failed))
    }
}

fn status_table(status: &Value) -> Table {
    let mut table = Table::new(&["WHAT", "VALUE"]);
    for key in ["state", "identity", "svid_expires", "revision"] {
        table.row([key.replace('_', " "), plain(&status[key])]);
    }
    if let Some(control_plane) = status["control_plane"].as_object() {
        for (key, value) in control_plane {
            let value = match value {
                // The offered revision and the running one; each names its store, too, which is in the JSON.
                Value::Object(revision) if revision.contains_key("number") => {
                    plain(&revision["number"])
                }
                // Registrations have lines of their own.
                Value::Null | Value::Object(_) | Value::Array(_) => continue,
                other @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain(other),
            };
            table.row([format!("config service: {}", key.replace('_', " ")), value]);
        }
    }
    let rows = |list: &str| status[list].as_array().cloned().unwrap_or_default();
    for row in rows("registrations") {
        let problem = row["problem"].as_str().unwrap_or("no problem");
        let what = format!("serves {}", plain(&row["service"]));
        table.row([what, problem.to_owned()]);
    }
    for row in rows("listeners") {
        let leads_to = row["leads_to"].as_str().unwrap_or("by host");
        let state = match row["why"].as_str() {
            None => leads_to.to_owned(),
            Some(why) => format!("{leads_to}: {why}"),
        };
        table.row([format!("listens on {}", plain(&row["listen"])), state]);
    }
    for peer in status["peers"].as_array().into_iter().flatten() {
        let (worker, peer) = (plain(&peer["worker"]), &peer["peer"]);
        let what = format!("peer {}", plain(&peer["identity"]));
        table.row([
            what,
            format!(
                "{} at {}, worker {worker}",
                plain(&peer["state"]),
                plain(&peer["address"])
            ),
        ]);
    }
    table
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

/// Runs `weft proxy config`.
pub fn dump(args: &Dump) -> Result<(), Failure> {
    let answer = process::runtime()?.block_on(get(&args.at.to_read()?, "/config_dump"))?;
    let dump = answer.json()?;
    text_out(&visible_json(&format!("{dump:#}")))
}

/// Runs `weft proxy drain`.
pub fn drain(args: &Drain) -> Result<(), Failure> {
    let at = args.at.to_change()?;
    let end = process::runtime()?.block_on(async {
        let connection = connect(&at).await?;
        // Before it is asked: a process that answers has not ended.
        let end = match args.wait {
            Some(_) => Some(End::of(connection.process())?),
            None => None,
        };
        let answer = connection.ask(Method::POST, "/drain", Bytes::new());
        answer.await?.good()?;
        Ok::<_, Failure>(end)
    })?;
    let (Some(end), Some(DurationText(patience))) = (end, args.wait) else {
        note("the sidecar drains and will end");
        return Ok(());
    };
    if end.comes_within(patience)? {
        note("the sidecar has ended");
        return Ok(());
    }
    let line = format!("the sidecar still drains after {}", DurationText(patience));
    Err(Failure::new(Code::Failed, line))
}

/// Waits for the end of a process, by a descriptor that never refers to a later process with the same number.
struct End(OwnedFd);

impl End {
    fn of(process: Option<i32>) -> Result<Self, Failure> {
        // 0: a process of a PID namespace that is not visible from this one.
        let process = process.and_then(Pid::from_raw).ok_or_else(|| {
            Self::failed("its process is not visible from here, or it was asked over TCP")
        })?;
        let descriptor = pidfd_open(process, PidfdFlags::empty());
        descriptor.map(Self).map_err(Self::failed)
    }

    /// Waits until the process has ended.
    fn comes_within(&self, patience: Duration) -> Result<bool, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(Self::failed)?;
            // A pidfd is readable once the process has ended (pidfd_open(2)).
            let mut ends = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut ends, Some(&left)) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Self::failed(error)),
            }
        }
    }

    fn failed(what: impl std::fmt::Display) -> Failure {
        let line = format!(
            "cannot wait for the end of the sidecar: {what}; without --wait this asks for the drain and returns"
        );
        Failure::new(Code::Failed, line)
    }
}

/// Runs `weft proxy logging`.
pub fn logging(args: Logging) -> Result<(), Failure> {
    let runtime = process::runtime()?;
    let Some(directives) = args.directives else {
        let answer = runtime.block_on(get(&args.at.to_read()?, "/logging"))?;
        return text_out(&format!("{}\n", answer.good()?));
    };
    let at = args.at.to_change()?;
    let asked = ask(&at, Method::PUT, "/logging", Bytes::from(directives));
    runtime.block_on(asked)?.good()?;
    note("the sidecar logs by the new filter until it ends");
    Ok(())
}
