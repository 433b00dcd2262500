//! `weft lab check`: what a lab can use on this machine, found by trying.

use clap::Args;
use weft_netem_tests::lab::check::{Finding, probe};
use weft_netem_tests::lab::sandbox::{self, Entered};

use crate::failure::{Code, Failure};
use crate::output::{self, Format, Table};

/// Flags of `weft lab check`.
#[derive(Debug, Args)]
pub struct Check {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: &Check) -> Result<(), Failure> {
    let root = nix::unistd::geteuid().is_root();
    match sandbox::enter() {
        Ok(Entered::Ended(0)) => Ok(()),
        Ok(Entered::Ended(code)) => Err(Failure::of_command(code)),
        Ok(Entered::Inside) => {
            let mut findings = vec![Finding {
                what: "a sandbox",
                found: true,
                needed: true,
                said: "PID and mount namespaces: a lab ends with everything in it".to_owned(),
            }];
            findings.extend(probe());
            report(args, &findings)
        }
        Err(error) => {
            let said = match root {
                true => error.to_string(),
                false => format!("{error} (as root it works without user namespaces)"),
            };
            report(
                args,
                &[Finding {
                    what: "a sandbox",
                    found: false,
                    needed: true,
                    said,
                }],
            )
        }
    }
}

fn report(args: &Check, findings: &[Finding]) -> Result<(), Failure> {
    output::print(args.output, &findings, |findings| {
        let mut table = Table::new(&["WHAT", "FOUND", "MEANING"]);
        for finding in *findings {
            let found = match (finding.found, finding.needed) {
                (true, _) => "yes",
                (false, true) => "NO",
                (false, false) => "no",
            };
            table.row([
                finding.what.to_owned(),
                found.to_owned(),
                finding.said.clone(),
            ]);
        }
        table
    })?;
    match findings
        .iter()
        .any(|finding| finding.needed && !finding.found)
    {
        true => Err(Failure::new(
            Code::NotPermitted,
            "this machine can run no lab: what is needed and missing says NO above",
        )),
        false => Ok(()),
    }
}
