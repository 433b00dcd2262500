//! `weft check`: is this host fit for a sidecar, and is its sidecar well? `facts.rs` gathers,
//! `judge.rs` judges, this prints.

mod facts;
mod judge;

use std::time::SystemTime;

use clap::Args;
use weft_config::settings::load_proxy;

use crate::command::proxy::flags::ProxyFlags;
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, note, print};
use judge::{Finding, Life, Verdict, judge};

/// Checks this host, and a sidecar's settings if there are any.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft check                        what the host alone tells\n  \
    weft check --config proxy.yaml    and what this sidecar needs: clocks, ports, identity, application\n\n\
    Exit code 1 if a check fails; warnings do not count.")]
pub struct Check {
    #[command(flatten)]
    flags: ProxyFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs `weft check`.
pub fn run(args: Check) -> Result<(), Failure> {
    let runtime = crate::process::runtime()?;
    let sources = args.flags.into_sources();
    let findings = runtime.block_on(async {
        if !sources.has_settings() {
            let wanted = weft_transport::tuning::TransportSettings::default().udp_buffer;
            return Ok(judge(
                &facts::of_host(wanted),
                SystemTime::now(),
                Life::None,
            ));
        }
        let loaded = load_proxy(sources)?;
        loaded.warnings.iter().for_each(note);
        let life = facts::life(&loaded.settings).await;
        let facts = facts::of_sidecar(&loaded.settings).await;
        Ok::<_, Failure>(judge(&facts, SystemTime::now(), life))
    })?;
    print(args.output, &findings, |findings| table(findings))?;
    if findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Fail)
    {
        return Err(Failure::silent(Code::Failed));
    }
    Ok(())
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new(&["CHECK", "VERDICT", "FOUND", "WHAT TO DO"]);
    for finding in findings {
        table.row([
            finding.check.clone(),
            finding.verdict.to_string(),
            finding.found.clone(),
            finding.advice.clone(),
        ]);
    }
    table
}
