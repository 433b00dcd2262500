//! `weft lab status`: the topology, the state and the counts of a lab.

use std::fmt::Write as _;

use clap::Args;
use weft_netem_tests::lab::control::{self, Answer, Request, call};

use super::LabFlag;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Table};

/// Flags of `weft lab status`.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    which: LabFlag,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Status) -> Result<(), Failure> {
    let directory = args.which.find()?;
    let Answer::Status(status) = call(&directory, &Request::Status)? else {
        return Err(Failure::new(
            Code::Failed,
            "the lab gave another answer than asked for: is it of another version?",
        ));
    };
    output::print_or(args.output, &status, |status| {
        let mut text = format!(
            "lab {} ({}), files in {}\n\n",
            status.name,
            status.backend,
            directory.path().display()
        );
        let mut hosts = Table::new(&["HOST", "ADDRESS"]);
        for (name, address) in &status.hosts {
            hosts.row([name.clone(), address.to_string()]);
        }
        // Writing to a string cannot fail.
        let _ = write!(text, "{hosts}\n{}\n{}", links(status), lateness(status));
        text
    })
}

fn links(status: &control::Status) -> Table {
    let mut links = Table::new(&[
        "LINK",
        "FROM",
        "TO",
        "IN",
        "OUT",
        "LOST",
        "QUEUE",
        "OTHER",
        "IMPAIRMENT",
    ]);
    for direction in &status.links {
        let counters = &direction.counters;
        let other =
            counters.too_long + counters.blacked_out + counters.unmapped + counters.overflowed;
        links.row([
            direction.link.clone(),
            direction.from.clone(),
            direction.to.clone(),
            counters.received.to_string(),
            counters.delivered.to_string(),
            counters.lost.to_string(),
            counters.queue_full.to_string(),
            other.to_string(),
            direction.impairment.clone(),
        ]);
    }
    links
}

fn lateness(status: &control::Status) -> String {
    let [median, late, worst] = status.lateness_us;
    let mut text = format!(
        "Packets were {median} us late in the middle, {late} us for one in a hundred, {worst} us \
         at worst.\n"
    );
    if let Some(why) = &status.invalid {
        let _ = writeln!(text, "What is measured here is INVALID: {why}.");
    }
    text
}
