//! `weft stat` and `weft edges`: the calls in the mesh, as its sidecars told the config service of them.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::sleep;
use weft_config::operator::{Grouping, Operator, Security, Stat as Told, StatRequest, StatRow};
use weft_transport::units::{format_duration, parse_duration};

use crate::context::{ContextFlags, refused};
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, note, print, text_out};
use crate::process;

/// What the calls are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The service that is called
    Services,
    /// The rule of a route that took the calls
    Routes,
    /// Who calls, and what is called
    Edges,
    /// The sidecar that saw the calls
    Sidecars,
    /// The namespace of the service that is called
    Namespaces,
}

/// Shows rates, success and response times of the calls in the mesh.
///
/// Sidecars tell the config service every 5 seconds what they counted; no other server is needed. P50 to P99
/// are what the caller waited for, as its own sidecar measured it; they are exact within 5 %. MESH P50 is the
/// part of the time until the head of the answer that was the mesh's and not the application's. SUCCESS
/// leaves out what the mesh or the application failed: a status of 500 or more, or an error of gRPC. The
/// config service keeps 10 minutes of all edges, and a day of the 500 busiest; it forgets them when it
/// restarts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft stat\n  \
    weft stat routes --to orders.shop\n  \
    weft stat edges --from frontend.shop --window 10m\n  \
    weft stat services --watch\n  \
    weft stat edges -o json | jq '.[] | select(.success < 0.99)'")]
pub struct Stat {
    /// What the calls are summed up by
    #[arg(value_enum, default_value_t = By::Services)]
    by: By,
    #[command(flatten)]
    which: Which,
}

/// Shows who talks to whom in the mesh, and how each edge is secured.
///
/// Also edges without a call in the window: what the listeners of connected sidecars name. SECURED is "mutual
/// TLS" where both sides proved who they are, "PLAINTEXT" for callers without a sidecar that a Permissive
/// Service takes, "outside" for what leaves the mesh, and "unreached" where no endpoint was. DENIED counts
/// calls that a policy refused.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft edges\n  \
    weft edges --to orders.shop\n  \
    weft edges -o json | jq '.[] | select(.security == \"plaintext\")'")]
pub struct Edges {
    #[command(flatten)]
    which: Which,
}

/// Which calls.
#[derive(Debug, Args)]
struct Which {
    /// Only calls of this caller, or of this namespace as '*.shop'
    #[arg(long, value_name = "SERVICE")]
    from: Option<String>,
    /// Only calls to this service, or to those of this namespace as '*.shop'
    #[arg(long, value_name = "SERVICE")]
    to: Option<String>,
    /// How far back: 5s to 24h
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = window)]
    window: Duration,
    /// Show it anew every 5 seconds, until interrupted
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    context: ContextFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs `weft stat`.
pub fn run(args: &Stat) -> Result<(), Failure> {
    let by = match args.by {
        By::Services => Grouping::Services,
        By::Routes => Grouping::Routes,
        By::Edges => Grouping::Edges,
        By::Sidecars => Grouping::Sidecars,
        By::Namespaces => Grouping::Namespaces,
    };
    show(&args.which, by, false, move |told| stat_table(by, told))
}

/// Runs `weft edges`.
pub fn edges(args: &Edges) -> Result<(), Failure> {
    show(&args.which, Grouping::Edges, true, edge_table)
}

fn show(
    which: &Which,
    by: Grouping,
    silent: bool,
    table: impl Fn(&[StatRow]) -> Table,
) -> Result<(), Failure> {
    let request = StatRequest {
        by,
        from: named(which.from.as_deref(), "--from")?,
        to: named(which.to.as_deref(), "--to")?,
        window_ms: u64::try_from(which.window.as_millis()).unwrap_or(u64::MAX),
        silent,
    };
    if by == Grouping::Sidecars && (request.from.is_some() || request.to.is_some()) {
        let line = "weft stat sidecars sums up all calls of a sidecar: use --from and --to with weft stat edges";
        return Err(Failure::new(Code::Usage, line));
    }
    process::runtime()?.block_on(async {
        let mut operator = which.context.connect().await?;
        loop {
            let told = ask(&mut operator, &request).await?;
            if which.watch && std::io::stdout().is_terminal() {
                text_out(CLEAR)?;
            }
            print(which.output, &told.rows, |rows| table(rows))?;
            if which.output == Format::Table {
                remark(&told, which.window);
            }
            if !which.watch {
                return Ok(());
            }
            sleep(AGAIN).await;
        }
    })
}

async fn ask(operator: &mut Operator, request: &StatRequest) -> Result<Told, Failure> {
    operator
        .stat(request)
        .await
        .map_err(|error| refused(&error))
}

/// How often `--watch` asks: as often as sidecars tell.
const AGAIN: Duration = Duration::from_secs(5);

/// Puts the cursor to the top and clears the screen (ECMA-48 sections 8.3.21 and 8.3.39).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Windows that can be asked for.
const WINDOWS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_hours(24);

fn window(text: &str) -> Result<Duration, String> {
    let window = parse_duration(text).map_err(|error| error.to_string())?;
    match WINDOWS.contains(&window) {
        true => Ok(window),
        false => Err("write a time from 5s to 24h, such as 10m".to_owned()),
    }
}

/// A name as the rows have it.
pub(super) fn named(name: Option<&str>, flag: &str) -> Result<Option<String>, Failure> {
    let Some(name) = name else { return Ok(None) };
    if name.contains('.') {
        return Ok(Some(name.to_owned()));
    }
    let line = format!(
        "{flag} {name} has no namespace: write {name}.NAMESPACE, such as {name}.shop, or *.{name} for all of a namespace"
    );
    Err(Failure::new(Code::Usage, line))
}

/// What a reader of the table must know.
fn remark(told: &Told, asked: Duration) {
    let covered = Duration::from_millis(told.window_ms);
    if told.rows.is_empty() {
        note(match told.reporting {
            0 => "No sidecar tells of its calls: is one connected? (weft get sidecars)".to_owned(),
            reporting => format!(
                "No calls in the last {} at {reporting} sidecars.",
                seconds(covered)
            ),
        });
    } else if covered + AGAIN < asked {
        note(format!(
            "The config service knows the last {} only.",
            seconds(covered)
        ));
    }
    if !told.not_reporting.is_empty() {
        note(format!(
            "Not told of, as these sidecars are older: {}",
            told.not_reporting.join(", ")
        ));
    }
    if told.forgotten > 0 {
        note(
            "The config service has no room for all of the past: windows of more than a minute may lack calls.",
        );
    }
    if told.spilled > 0 {
        note(format!(
            "{} calls are shown as those of `other`: there are too many edges.",
            told.spilled
        ));
    }
}

fn seconds(duration: Duration) -> String {
    format_duration(Duration::from_secs(duration.as_secs()))
}

fn stat_table(by: Grouping, rows: &[StatRow]) -> Table {
    let names: &[&'static str] = match by {
        Grouping::Services => &["SERVICE"],
        Grouping::Routes => &["SERVICE", "ROUTE"],
        Grouping::Edges => &["FROM", "TO"],
        Grouping::Sidecars => &["SIDECAR", "INSTANCE", "DIRECTION"],
        Grouping::Namespaces => &["NAMESPACE"],
    };
    // Columns of connections only where there are any.
    let has_tunnels = rows.iter().any(|row| row.opened + row.closed > 0);
    let mut headings = names.to_vec();
    headings.extend([
        "SUCCESS",
        "RPS",
        "P50",
        "P95",
        "P99",
        "MESH P50",
        "RETRIES",
        "FAILED BY",
    ]);
    if has_tunnels {
        headings.extend(["OPENED", "CLOSED"]);
    }
    let mut table = Table::new(&headings);
    for row in rows {
        let to = to(row);
        let mut cells = match by {
            Grouping::Services => vec![row.to.clone()],
            Grouping::Routes => vec![to, or_dash(&row.route)],
            Grouping::Edges => vec![row.from.clone(), to],
            Grouping::Sidecars => vec![
                row.from.clone(),
                row.instance.clone(),
                row.direction.clone(),
            ],
            Grouping::Namespaces => vec![or_dash(&row.namespace)],
        };
        cells.extend([
            percent(row.success),
            format!("{:.1}", row.rps),
            millis(row.p50_ms),
            millis(row.p95_ms),
            millis(row.p99_ms),
            millis(row.mesh_p50_ms),
            row.retries.to_string(),
            reasons(&row.reasons),
        ]);
        if has_tunnels {
            cells.extend([row.opened.to_string(), row.closed.to_string()]);
        }
        table.row(cells);
    }
    table
}

fn edge_table(rows: &[StatRow]) -> Table {
    let mut table = Table::new(&[
        "FROM", "TO", "SECURED", "IDENTITY", "SUCCESS", "RPS", "DENIED",
    ]);
    for row in rows {
        let secured = row.security.unwrap_or(Security::NoCalls).to_string();
        let denied = row.reasons.get("http_request_denied");
        table.row([
            row.from.clone(),
            to(row),
            secured,
            or_dash(&row.identity),
            percent(row.success),
            format!("{:.1}", row.rps),
            denied.copied().unwrap_or_default().to_string(),
        ]);
    }
    table
}

fn to(row: &StatRow) -> String {
    match (row.to.is_empty(), row.port) {
        (true, _) => "(no such service)".to_owned(),
        (false, Some(port)) => format!("{}:{port}", row.to),
        (false, None) => row.to.clone(),
    }
}

fn or_dash(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text => text.to_owned(),
    }
}

fn percent(share: Option<f64>) -> String {
    // Rounded down: 99.999 % is not all of them.
    share.map_or_else(
        || "-".to_owned(),
        |share| format!("{:.2}%", (share * 1e4).floor() / 1e2),
    )
}

fn millis(millis: Option<f64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 10.0 => format!("{millis:.2}ms"),
        Some(millis) if millis < 1_000.0 => format!("{millis:.0}ms"),
        Some(millis) => format!("{:.2}s", millis / 1_000.0),
    }
}

/// The two most frequent reasons.
fn reasons(all: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = all.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let shown = all
        .iter()
        .take(2)
        .map(|(reason, count)| format!("{count} {reason}"));
    or_dash(&shown.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(percent(Some(0.999_999)), "99.99%");
        assert_eq!(percent(Some(1.0)), "100.00%");
        assert_eq!(percent(None), "-");
    }

    #[test]
    fn times_are_short_at_every_size() {
        let all = [None, Some(0.25), Some(9.999), Some(42.4), Some(1_500.0)].map(millis);
        assert_eq!(all, ["-", "0.25ms", "10.00ms", "42ms", "1.50s"]);
    }

    #[test]
    fn a_name_without_a_namespace_is_refused_with_what_to_write() {
        let refused = named(Some("orders"), "--to").unwrap_err().line;
        assert!(refused.contains("orders.shop"), "{refused}");
        assert_eq!(
            named(Some("*.shop"), "--to").unwrap(),
            Some("*.shop".to_owned())
        );
    }
}
