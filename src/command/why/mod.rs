//! `weft why`: why a request failed or was slow, from what the sidecars on its way keep of it. `judge.rs`
//! finds the cause, `causes.rs` has them all.

mod causes;
mod judge;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use weft_config::operator::{RecentCalls, SidecarCall};
use weft_config::signals::RecentFilter;
use weft_transport::units::parse_duration;

use crate::command::stat::named;
use crate::context::{ContextFlags, refused};
use crate::failure::{Code, Failure};
use crate::output::{Format, note, print_or, printable};
use crate::process;
use judge::{Why, ended, judge};

/// Tells why a request failed or was slow, and what to do.
///
/// Each sidecar keeps its last failures (up to 512) and the slowest requests of each of the last ten minutes.
/// This asks all of them for one request, by the x-request-id that is in its answer and in the access log, or
/// for the latest ones between two services. A cause is a documented word; docs/observe.md lists them.
#[derive(Debug, Args)]
#[command(
    override_usage = "weft why [OPTIONS] <REQUEST_ID>\n       weft why [OPTIONS] [--from <SERVICE>] [--to <SERVICE>] [--last <TIME>]",
    after_help = "Examples:\n  \
    weft why 0b1f2c3d4e5f60718293a4b5c6d7e8f9\n  \
    weft why --from frontend.shop --to orders.shop\n  \
    weft why --to orders.shop --last 2m -o json | jq '.[].cause'"
)]
pub struct WhyFlags {
    /// The x-request-id of the request
    #[arg(value_name = "REQUEST_ID", conflicts_with_all = ["from", "to"])]
    request_id: Option<String>,
    /// Requests of this caller, or of this namespace as '*.shop'
    #[arg(long, value_name = "SERVICE")]
    from: Option<String>,
    /// Requests to this service, or to those of this namespace as '*.shop'
    #[arg(long, value_name = "SERVICE")]
    to: Option<String>,
    /// How long ago they may have ended
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    last: Duration,
    #[command(flatten)]
    context: ContextFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Requests that are shown when no id is given.
const SHOWN: usize = 10;

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Runs `weft why`.
pub fn run(args: &WhyFlags) -> Result<(), Failure> {
    let wanted = RecentFilter {
        request_id: args.request_id.clone().unwrap_or_default(),
        from: named(args.from.as_deref(), "--from")?.unwrap_or_default(),
        to: named(args.to.as_deref(), "--to")?.unwrap_or_default(),
        within: args.last,
    };
    let (known, whys) = process::runtime()?.block_on(async {
        let mut operator = args.context.connect().await?;
        let known = operator
            .recent(&wanted)
            .await
            .map_err(|error| refused(&error))?;
        if args.request_id.is_some() {
            let why = judge(&known.calls);
            return Ok::<_, Failure>((known, Vec::from_iter(why)));
        }
        let mut whys = Vec::new();
        for id in latest(&known.calls) {
            // What the sidecars before and behind the two services know of it belongs to it.
            let whole = RecentFilter {
                request_id: id,
                within: wanted.within,
                ..RecentFilter::default()
            };
            let all = operator
                .recent(&whole)
                .await
                .map_err(|error| refused(&error))?;
            whys.extend(judge(&all.calls));
        }
        Ok((known, whys))
    })?;
    if !known.silent.is_empty() {
        note(format!(
            "These sidecars did not answer in time: {}",
            known.silent.join(", ")
        ));
    }
    let Some(first) = whys.first() else {
        return Err(nothing(args, &known));
    };
    match args.request_id {
        Some(_) => print_or(args.output, first, text),
        None => print_or(args.output, &whys, |whys| {
            whys.iter().map(text).collect::<Vec<_>>().join("\n")
        }),
    }
}

fn nothing(args: &WhyFlags, known: &RecentCalls) -> Failure {
    let line = match (&args.request_id, known.asked) {
        (_, 0) => {
            "no sidecar tells of its requests: is one connected? (weft get sidecars)".to_owned()
        }
        (Some(id), asked) => format!(
            "none of {asked} sidecars keeps a request {id}: it succeeded and was not slow, or too many failed since; the access log may have it"
        ),
        (None, asked) => format!("none of {asked} sidecars keeps such a request of that time"),
    };
    Failure::new(Code::Failed, line)
}

/// The ids of the latest requests, failures before what was only slow.
fn latest(calls: &[SidecarCall]) -> Vec<String> {
    let mut by_id = BTreeMap::<&str, (bool, Option<Timestamp>)>::new();
    for SidecarCall { call, .. } in calls {
        let Some(id) = &call.request_id else { continue };
        let failed = call.error.is_some() || call.status >= 500;
        let known = by_id.entry(id).or_insert((failed, None));
        *known = (known.0 | failed, known.1.max(ended(call)));
    }
    let mut ids: Vec<_> = by_id.into_iter().collect();
    ids.sort_by(|(_, a), (_, b)| b.cmp(a));
    ids.into_iter()
        .take(SHOWN)
        .map(|(id, _)| id.to_owned())
        .collect()
}

fn text(why: &Why) -> String {
    let mut text = String::new();
    let status = match why.status {
        0 => "no answer".to_owned(),
        status => format!("status {status}"),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}  {}", why.cause, printable(&why.sentence));
    let _ = writeln!(text, "  to do      {}", why.todo);
    let _ = writeln!(
        text,
        "  request    {} of {} to {}: {status} after {:.1} ms, at {} (id {})",
        printable(&why.request),
        printable(&why.from),
        printable(&why.to),
        why.duration_ms,
        why.time,
        printable(&why.request_id)
    );
    if !why.decided_by.is_empty() {
        let _ = writeln!(
            text,
            "  decided by {}",
            printable(why.decided_by.join(", "))
        );
    }
    for attempt in &why.attempts {
        let _ = writeln!(
            text,
            "  attempt    at {:.1} ms, {}, {:.1} ms, most of it in `{}`: {}",
            attempt.at_ms,
            printable(named_or(&attempt.endpoint, "no endpoint")),
            attempt.took_ms,
            attempt.longest,
            printable(&attempt.outcome)
        );
    }
    if let Some(withheld) = &why.not_retried {
        let _ = writeln!(text, "  no further attempt, by {}", printable(withheld));
    }
    for seen in &why.seen {
        let call = &seen.call;
        let parts = match (call.application_ms, call.mesh_ms) {
            (Some(application), Some(mesh)) => {
                format!(", application {application:.1} ms, mesh {mesh:.1} ms")
            }
            (_, _) => String::new(),
        };
        let _ = writeln!(
            text,
            "  seen by    {} ({}): status {}, {:.1} ms{parts}",
            printable(&seen.sidecar),
            printable(&call.direction),
            call.status,
            call.duration_ms
        );
    }
    text
}

fn named_or<'a>(name: &'a str, otherwise: &'a str) -> &'a str {
    match name {
        "" => otherwise,
        name => name,
    }
}
