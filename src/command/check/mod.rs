//! `weft check`: judges whether this host suits a sidecar, and whether its sidecar works. `facts.rs` gathers
//! facts about the host and `judge.rs` judges them; `running.rs` does both for a running sidecar and the
//! mesh; this file prints.

mod facts;
mod holders;
mod judge;
mod running;

use std::time::SystemTime;

use clap::Args;
use weft_config::settings::{ProxySettings, load_proxy};

use crate::admin_client::Target;
use crate::command::proxy::flags::ProxyFlags;
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, note, print};
use judge::{Finding, Life, Verdict, judge};
use running::judge_stranger;

/// Checks this host, a sidecar's settings if there are any, and the sidecar itself if it runs.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft check                        what the host alone tells\n  \
    weft check --config proxy.yaml    and what this sidecar needs: clocks, ports, identity, application; if it runs, what it says\n  \
    weft check --admin 127.0.0.1:6191    only what the sidecar there says of itself and of the mesh\n\n\
    Exit code 1 if a check fails; warnings do not count. 69 if no sidecar answers at --admin.")]
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
    let alone = args.flags.admin_alone();
    let sources = args.flags.into_sources();
    let findings = runtime.block_on(async {
        if let Some(admin) = alone {
            let running = running::ask(&[Target::Tcp(admin)]).await?;
            return Ok(running.judge(SystemTime::now()));
        }
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
        Ok::<_, Failure>(of_settings(&loaded.settings).await)
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

/// This host, the sidecar of the settings if it runs, and the mesh as that sidecar sees it.
async fn of_settings(settings: &ProxySettings) -> Vec<Finding> {
    let mut running = facts::running(settings).await;
    let mut facts = facts::of_sidecar(settings).await;
    let own = facts.svid.as_ref().and_then(|svid| svid.as_ref().ok());
    let own = own.map_or("", |svid| svid.id.as_str());
    let admin = settings.admin.listen.to_string();
    let mut findings = Vec::new();
    let stranger = running
        .as_ref()
        .and_then(|running| judge_stranger(running, own, &admin));
    if let Some(stranger) = stranger {
        facts.ports.retain(|port| port.address != admin);
        findings.push(stranger);
        running = None;
    }
    let now = SystemTime::now();
    let life = match &running {
        Some(running) if running.identity().is_empty() => Life::Waits,
        Some(_) => Life::Runs,
        None => Life::None,
    };
    if let Some(running) = &running {
        for port in &mut facts.ports {
            port.ours = port.is_admin() || running.listens_on(&port.address);
        }
        findings.extend(running.judge(now));
    }
    findings.extend(judge(&facts, now, life));
    findings
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
