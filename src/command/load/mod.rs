//! `weft load`: sends requests at a rate and reports how long they took.
//!
//! `flags.rs` reads what to do, `run.rs` does it and tells how it goes. The work is in `weft_loadtest`.

mod flags;
mod run;

use clap::Args;

use self::flags::Flags;
use crate::failure::Failure;

/// Sends requests at a rate, whether the server keeps up or not, and reports how long they took.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Load {
    #[command(flatten)]
    flags: Flags,
}

const EXAMPLES: &str = "\
Examples:
  weft load http://127.0.0.1:8080/ --rate 1000 --duration 10s
  weft load http://127.0.0.1:8080/ --ramp 100:5000:60s --arrivals poisson
  weft load http://127.0.0.1:8080/ --closed -c 64 -d 10s     what wrk does
  weft load 9@http://a/read 1@http://a/report --rate 200 -d 1m

Latency is counted from the moment when a request was due, so that a server that stalls cannot hide it.
There is no scripting: what one request says is said by flags, and a mix of requests by several URLs.";

/// Runs `weft load`.
pub fn run(args: Load) -> Result<(), Failure> {
    run::run(args.flags)
}
