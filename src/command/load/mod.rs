//! `weft load`: sends requests at a rate and reports how long they took.
//!
//! `flags.rs` and `asked.rs` read what to do, `run.rs` does it and reports progress, `series.rs` does it at
//! several rates; `diff.rs` compares results; `tls.rs` reads the files for handshakes; `serve.rs` is the
//! server for a load; `compare/` measures proxies beside each other. The work is in `weft_loadtest`.

mod asked;
mod compare;
mod diff;
mod flags;
mod replay;
mod run;
mod series;
mod serve;
mod tls;

use clap::{Args, Subcommand};

use self::asked::Asked;
use self::flags::Flags;
use crate::failure::{Code, Failure};

/// Sends requests at a rate, whether the server keeps up or not, and reports how long they took.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Load {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    flags: Option<Flags>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer requests after a known delay: the other end of a load
    Serve(Box<serve::Serve>),
    /// Say whether two results differ by more than chance
    Diff(diff::Diff),
    /// Measure weft, no proxy, and other proxies beside each other
    Compare(Box<compare::Compare>),
}

const EXAMPLES: &str = "\
Examples:
  weft load http://127.0.0.1:8080/ --rate 1000 --duration 10s
  weft load http://127.0.0.1:8080/ --ramp 100:5000:60s --arrivals poisson
  weft load http://127.0.0.1:8080/ --closed -c 64 -d 10s     what wrk does
  weft load 9@http://a/read 1@http://a/report --rate 200 -d 1m
  weft load http://127.0.0.1:8080/ --rate 1000 --fail-if 'p99>50ms,errors>0.1%' --html report.html
  weft load http://127.0.0.1:8080/ --find-max 'p99<20ms' -d 5s

Latency is counted from the moment when a request was due, so that a server that stalls cannot hide it.
There is no scripting: what one request says is said by flags, and a mix of requests by several URLs.";

/// Runs `weft load`.
pub fn run(args: Load) -> Result<(), Failure> {
    match (args.command, args.flags) {
        (Some(Command::Serve(args)), _) => serve::run(*args),
        (Some(Command::Diff(args)), _) => diff::run(&args),
        (Some(Command::Compare(args)), _) => compare::run(&args),
        (None, Some(flags)) => run::run(flags, args.asked),
        (None, None) => Err(Failure::new(
            Code::Usage,
            "where to? give a URL, for example weft load http://127.0.0.1:8080/ --rate 1000",
        )),
    }
}
