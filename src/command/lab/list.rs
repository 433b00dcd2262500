//! `weft lab list`: the scenarios that ship. `weft lab validate`: checks whether files are scenarios.

use clap::Args;
use serde::Serialize;
use weft_netem_tests::scenario::PROFILES;
use weft_netem_tests::suite::{self, SUITE};

use super::scenarios::{Changes, read};
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, print, text_out};

/// Lists the scenarios that ship, or shows one to be read and copied.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft lab list\n  \
    weft lab list loss-5 > mine.yaml    a scenario to change\n  \
    weft lab list --profiles            named networks")]
pub struct List {
    /// Show the file of this one
    name: Option<String>,
    /// List the named networks that a link's `profile` may be
    #[arg(long, conflicts_with = "name")]
    profiles: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Checks scenario files without running them.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft lab validate mine.yaml --set transport.congestion=bbr")]
pub struct Validate {
    /// Files, or names of scenarios that ship
    #[arg(required = true, value_name = "SCENARIO")]
    scenarios: Vec<String>,
    #[command(flatten)]
    changes: Changes,
}

#[derive(Serialize)]
struct Row {
    name: String,
    short: Option<bool>,
    seconds: Option<f64>,
    description: String,
    expected_failure: Option<String>,
}

/// Runs `weft lab list`.
pub fn list(args: &List) -> Result<(), Failure> {
    if let Some(name) = &args.name {
        let shipped = suite::find(name).ok_or_else(|| {
            let line = format!("no scenario {name} ships: `weft lab list` shows those that do");
            Failure::new(Code::Usage, line)
        })?;
        return text_out(shipped.text);
    }
    if args.profiles {
        let rows: Vec<Row> = PROFILES
            .iter()
            .map(|profile| Row {
                name: profile.name.to_owned(),
                short: None,
                seconds: None,
                description: profile.about.to_owned(),
                expected_failure: None,
            })
            .collect();
        return print(args.output, &rows, |rows| {
            let mut table = Table::new(&["PROFILE", "WHAT IT IS LIKE"]);
            for row in rows {
                table.row([row.name.clone(), row.description.clone()]);
            }
            table
        });
    }
    let mut rows = Vec::new();
    for shipped in SUITE {
        let scenario = read(shipped.name, &[])?;
        rows.push(Row {
            name: scenario.name,
            short: Some(shipped.short),
            seconds: Some(scenario.duration.as_secs_f64()),
            description: scenario.description,
            expected_failure: scenario.expected_failure,
        });
    }
    print(args.output, &rows, |rows| {
        let mut table = Table::new(&["SCENARIO", "SHORT", "SECONDS", "WHAT IT SHOWS"]);
        for row in rows {
            let known = row
                .expected_failure
                .as_ref()
                .map_or("", |_| " (known to fail)");
            table.row([
                row.name.clone(),
                if row.short == Some(true) { "yes" } else { "" }.to_owned(),
                row.seconds
                    .map(|seconds| seconds.to_string())
                    .unwrap_or_default(),
                format!("{}{known}", row.description),
            ]);
        }
        table
    })
}

/// Runs `weft lab validate`.
pub fn validate(args: &Validate) -> Result<(), Failure> {
    let mut refused = Vec::new();
    for name in &args.scenarios {
        match read(name, &args.changes.overrides()) {
            Ok(scenario) => text_out(&format!("{name}: valid: {}\n", scenario.description))?,
            Err(failure) if failure.code == Code::BadData as u8 => refused.push(failure.line),
            Err(failure) => return Err(failure),
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Code::BadData, refused.join("\n")))
}
