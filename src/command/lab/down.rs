//! `weft lab down`: ends labs, and finds what a crash left behind.

use std::time::{Duration, Instant};

use clap::Args;
use weft_netem_tests::lab::control::{Request, call};
use weft_netem_tests::lab::{Directory, join};

use crate::failure::{Code, Failure};
use crate::output;

/// How long a lab may take to end before it is killed: its programs are killed at once, and the rest is
/// closing files.
const PATIENCE: Duration = Duration::from_secs(5);

/// Flags of `weft lab down`.
#[derive(Debug, Args)]
pub struct Down {
    /// The lab; needed only if several are up
    name: Option<String>,
    /// End all labs of this user
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

pub fn run(args: &Down) -> Result<(), Failure> {
    let base = super::base();
    let swept = base.sweep()?;
    for name in &swept {
        output::note(format_args!(
            "removed what lab {name} left behind when it crashed"
        ));
    }
    let labs = match &args.name {
        _ if args.all => base.up()?,
        // The lab was asked to end, and it is gone.
        Some(name) if swept.contains(name) => Vec::new(),
        None if !swept.is_empty() && base.up()?.is_empty() => Vec::new(),
        name => vec![base.find(name.as_deref())?],
    };
    labs.iter().try_for_each(end)
}

fn end(lab: &Directory) -> Result<(), Failure> {
    // A lab that does not answer is killed further down.
    let _ = call(lab, &Request::Down);
    if !gone(lab) {
        join::kill(lab)?;
        if !gone(lab) {
            let line = format!("lab {} does not end, even by SIGKILL", lab.name());
            return Err(Failure::new(Code::Failed, line));
        }
    }
    Ok(lab.remove()?)
}

/// Waits until the lab's process has ended, and with it all others.
fn gone(lab: &Directory) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while lab.is_up() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    true
}
