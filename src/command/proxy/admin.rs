//! `weft proxy status`, `config` and `drain`: what one asks a running sidecar on this host.

use std::net::SocketAddr;

use clap::Args;
use serde_json::{Value, json};

use crate::admin_client::{get, post};
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, note, print, text_out};
use crate::process;

#[derive(Debug, Args)]
struct Where {
    /// Address of the sidecar's admin endpoint
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:6191")]
    admin: SocketAddr,
}

/// Shows whether a sidecar is ready, as whom, and what it is connected to; exit code 1 if not ready.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    at: Where,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Prints the table that a sidecar runs, as JSON.
#[derive(Debug, Args)]
pub struct Dump {
    #[command(flatten)]
    at: Where,
}

/// Asks a sidecar to drain and end.
#[derive(Debug, Args)]
pub struct Drain {
    #[command(flatten)]
    at: Where,
}

/// Runs `weft proxy status`.
pub fn status(args: &Status) -> Result<(), Failure> {
    let (ready, status) = process::runtime()?.block_on(async {
        let ready = get(args.at.admin, "/ready").await?;
        let certs = get(args.at.admin, "/certs").await?.json()?;
        let dump = get(args.at.admin, "/config_dump").await?.json()?;
        let connections = get(args.at.admin, "/connections").await?.json()?;
        let status = json!({
            "ready": ready.status.is_success(),
            "state": String::from_utf8_lossy(&ready.body).trim(),
            "identity": certs["identity"],
            "svid_expires": certs["not_after"],
            "revision": dump["table"]["revision"]["number"],
            "control_plane": dump["control_plane"],
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
        for (key, value) in control_plane.iter().filter(|(_, value)| !value.is_null()) {
            table.row([
                format!("config service: {}", key.replace('_', " ")),
                plain(value),
            ]);
        }
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
    let answer = process::runtime()?.block_on(get(args.at.admin, "/config_dump"))?;
    let dump = answer.json()?;
    text_out(&format!("{dump:#}\n"))
}

/// Runs `weft proxy drain`.
pub fn drain(args: &Drain) -> Result<(), Failure> {
    let answer = process::runtime()?.block_on(post(args.at.admin, "/drain"))?;
    if !answer.status.is_success() {
        return Err(Failure::new(
            Code::Failed,
            format!("the sidecar answered {}", answer.status),
        ));
    }
    note("the sidecar drains and will end");
    Ok(())
}
