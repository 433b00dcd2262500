//! `weft lab run` and `weft lab matrix`: carry scenarios out, and say what was found.
//!
//! All of it happens in a sandbox: this process starts itself again as the first of its own PID
//! namespace, so that nothing of a lab survives it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nix::sys::signal::{SigSet, Signal};
use weft_netem_tests::backend::Choice;
use weft_netem_tests::lab::sandbox::{self, Entered};
use weft_netem_tests::report;
use weft_netem_tests::run::outcome::{Outcome, State};
use weft_netem_tests::run::stop::Stop;
use weft_netem_tests::run::{self, RunError, Setup};
use weft_netem_tests::scenario::{Override, Scenario};
use weft_netem_tests::suite::SUITE;

use super::scenarios::{Changes, read};
use crate::failure::{Code, Failure};
use crate::output::{note, text_out};

/// Runs of one scenario by --repeat.
const REPEAT_MAX: u32 = 10_000;
/// Runs of a matrix.
const MATRIX_MAX: usize = 1000;

/// Runs scenarios: real processes on an emulated network, faults on a timeline, claims that must hold.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft lab run loss-5\n  \
    weft lab run mine.yaml --seed 7 --set transport.congestion=bbr --html report.html\n  \
    weft lab run blackout-5s --repeat 20\n  \
    weft lab run --all -o junit > lab.xml\n\n\
    Exit codes: 0 as expected, 99 a claim does not hold, 1 a run was invalid (the lab itself was too slow)\n\
    or could not be carried out. What is known to fail does not count, and is reported.")]
pub struct Run {
    /// Names of scenarios that ship, or files
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["all", "short"])]
    scenarios: Vec<String>,
    /// All scenarios that ship: about ten minutes
    #[arg(long, conflicts_with_all = ["scenarios", "short"])]
    all: bool,
    /// The short selection of them: less than four minutes
    #[arg(long, conflicts_with = "scenarios")]
    short: bool,
    #[command(flatten)]
    changes: Changes,
    /// Run each so often, with seeds from --seed on: pass rate and spread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPEAT_MAX)))]
    repeat: u32,
    #[command(flatten)]
    how: How,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs one scenario with every combination of some settings, and prints one table.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    weft lab matrix small-beside-bulk --rtt 10ms,40ms --loss 0%,1%,3% --congestion cubic,bbr\n\n\
    --rtt sets the delay of both directions of --link to half of it.")]
pub struct Matrix {
    /// Name of a scenario that ships, or a file
    scenario: String,
    /// Round-trip times of the link
    #[arg(long, value_name = "TIME,...", value_delimiter = ',', value_parser = weft_transport::units::parse_duration)]
    rtt: Vec<std::time::Duration>,
    /// Losses of the link, each way
    #[arg(long, value_name = "SHARE,...", value_delimiter = ',')]
    loss: Vec<String>,
    /// Congestion controllers
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    congestion: Vec<String>,
    /// The link that --rtt and --loss are about
    #[arg(long, value_name = "NAME", default_value = "wan")]
    link: String,
    /// Values of another field, as duration=10s,30s
    #[arg(long, value_name = "FIELD=VALUE,...")]
    vary: Vec<Override>,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    how: How,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// How runs are carried out.
#[derive(Debug, Args)]
struct How {
    /// How often an invalid run is tried
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: u32,
    /// Write a report with plots to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Where logs of failed runs are kept
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir().join("weft-lab"))]
    keep: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// One document: a list of runs.
    Json,
    /// For CI: a test case for each run.
    Junit,
}

/// Runs `weft lab run`.
pub fn run(args: &Run) -> Result<(), Failure> {
    let names: Vec<&str> = if args.scenarios.is_empty() {
        let chosen = SUITE.iter().filter(|shipped| args.all || shipped.short);
        chosen.map(|shipped| shipped.name).collect()
    } else {
        args.scenarios.iter().map(String::as_str).collect()
    };
    // Before anything is started: mistakes in the last file are told at once.
    let overrides = args.changes.overrides();
    let scenarios = names
        .iter()
        .map(|name| read(name, &overrides))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(runner) = Runner::enter(&args.how)? else {
        return Ok(());
    };
    let mut outcomes = Vec::new();
    for (name, scenario) in names.iter().zip(&scenarios) {
        let mut repeated = Vec::new();
        for offset in 0..args.repeat {
            let mut scenario = scenario.clone();
            scenario.seed = scenario.seed.wrapping_add(u64::from(offset));
            let outcome = runner.run(name, &scenario, &args.changes)?;
            if args.output == Output::Text {
                text_out(&report::text(&outcome))?;
            }
            repeated.push(outcome);
        }
        if args.output == Output::Text && args.repeat > 1 {
            text_out(&report::repeated(&repeated))?;
        }
        outcomes.append(&mut repeated);
    }
    if args.output == Output::Text && outcomes.len() > 1 {
        text_out(&sum(&outcomes))?;
    }
    print(args.output, &outcomes)?;
    finish(&args.how, &outcomes)
}

/// Runs `weft lab matrix`.
pub fn matrix(args: &Matrix) -> Result<(), Failure> {
    let combinations = args.combinations()?;
    let mut plans = Vec::new();
    for settings in combinations {
        let mut overrides = args.changes.overrides();
        overrides.extend(settings.iter().cloned());
        plans.push((settings, read(&args.scenario, &overrides)?));
    }
    let Some(runner) = Runner::enter(&args.how)? else {
        return Ok(());
    };
    let mut runs = Vec::new();
    for (settings, scenario) in plans {
        let words: Vec<String> = settings.iter().map(ToString::to_string).collect();
        note(format_args!("{}", words.join(" ")));
        let mut changes = Changes {
            seed: args.changes.seed,
            set: args.changes.set.clone(),
        };
        changes.set.extend(settings.iter().cloned());
        let outcome = runner.run(&args.scenario, &scenario, &changes)?;
        runs.push((settings, outcome));
    }
    if args.output == Output::Text {
        text_out(&report::matrix(&runs))?;
    }
    let outcomes: Vec<Outcome> = runs.into_iter().map(|(_, outcome)| outcome).collect();
    print(args.output, &outcomes)?;
    finish(&args.how, &outcomes)
}

impl Matrix {
    /// Every combination of the values, the last field changing fastest.
    fn combinations(&self) -> Result<Vec<Vec<Override>>, Failure> {
        let of = |path: String, values: Vec<String>| (path, values);
        let link = format!("topology.links.{}.set", self.link);
        let delays = self
            .rtt
            .iter()
            .map(|rtt| format!("{}us", rtt.as_micros() / 2));
        let mut fields = vec![
            of(format!("{link}.delay"), delays.collect()),
            of(format!("{link}.loss"), self.loss.clone()),
            of("transport.congestion".to_owned(), self.congestion.clone()),
        ];
        fields.extend(self.vary.iter().map(|field| {
            let values = field.value.split(',').map(str::to_owned);
            of(field.path.clone(), values.collect())
        }));
        fields.retain(|(_, values)| !values.is_empty());
        if fields.is_empty() {
            let line = "nothing varies: write --rtt, --loss, --congestion or --vary";
            return Err(Failure::new(Code::Usage, line));
        }
        let mut combinations = vec![Vec::new()];
        for (path, values) in fields {
            let mut longer = Vec::new();
            for combination in &combinations {
                for value in &values {
                    let mut one: Vec<Override> = combination.clone();
                    let (path, value) = (path.clone(), value.clone());
                    one.push(Override { path, value });
                    longer.push(one);
                }
            }
            combinations = longer;
            if combinations.len() > MATRIX_MAX {
                let line = format!("more than {MATRIX_MAX} combinations: vary less at once");
                return Err(Failure::new(Code::Usage, line));
            }
        }
        Ok(combinations)
    }
}

/// Carries scenarios out, inside a sandbox.
struct Runner<'a> {
    weft: PathBuf,
    how: &'a How,
    stop: Stop,
}

impl<'a> Runner<'a> {
    /// Goes into the sandbox. `None`: the process inside did all there was to do, well.
    fn enter(how: &'a How) -> Result<Option<Self>, Failure> {
        match sandbox::enter()? {
            Entered::Ended(0) => return Ok(None),
            Entered::Ended(code) => return Err(Failure::of_command(code)),
            Entered::Inside => {}
        }
        let weft = std::env::current_exe().map_err(|error| {
            Failure::new(Code::Failed, format!("cannot find my own binary: {error}"))
        })?;
        let stop = Stop::default();
        raise_on_signals(stop.clone())?;
        Ok(Some(Self { weft, how, stop }))
    }

    /// One scenario; an invalid run is tried again.
    fn run(&self, name: &str, scenario: &Scenario, changes: &Changes) -> Result<Outcome, Failure> {
        let mut attempt = 1;
        loop {
            let outcome = self.attempt(name, scenario, changes)?;
            if !matches!(outcome.state, State::Invalid(_)) || attempt >= self.how.attempts {
                return Ok(outcome);
            }
            attempt += 1;
            note(format_args!("{name}: not a valid run, tried again"));
        }
    }

    fn attempt(
        &self,
        name: &str,
        scenario: &Scenario,
        changes: &Changes,
    ) -> Result<Outcome, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("weft-lab-")
            .tempdir()
            .map_err(|error| {
                Failure::new(
                    Code::Failed,
                    format!("cannot make a temporary directory: {error}"),
                )
            })?;
        let setup = Setup {
            weft: self.weft.clone(),
            directory: directory.path().to_owned(),
            backend: Choice::default(),
        };
        let mut progress = |line: &str| note(format_args!("{name}: {line}"));
        let outcome = match run::run(scenario, &setup, &self.stop, &mut progress) {
            Ok(outcome) => outcome,
            Err(RunError::Stopped) => return Err(Failure::silent(Code::Interrupted)),
            Err(error) => Outcome::broken(scenario, crate::failure::chain(&error)),
        };
        if !outcome.is_as_expected() {
            self.say_what_is_left(name, &outcome, directory.path(), changes);
        }
        Ok(outcome)
    }

    /// Keeps the logs and says how to see it again.
    fn say_what_is_left(&self, name: &str, outcome: &Outcome, from: &Path, changes: &Changes) {
        match run::keep::keep(outcome, from, &self.how.keep) {
            Ok(folder) => note(format_args!("{name}: logs are in {}", folder.display())),
            Err(error) => note(format_args!("{name}: logs could not be kept: {error}")),
        }
        let flags = changes.flags(outcome.seed);
        note(format_args!(
            "{name}: again with `weft lab run {name}{flags}`"
        ));
    }
}

/// SIGINT and SIGTERM end the run, which then ends its processes in order. Called before any other
/// thread starts, so that all threads hold the signals back for the one that waits.
fn raise_on_signals(stop: Stop) -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let refuse = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Failed, format!("cannot take signals: {error}"))
    };
    signals.thread_block().map_err(|error| refuse(&error))?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            // An error ends the waiting, not the run.
            if signals.wait().is_ok() {
                stop.raise();
            }
        })
        .map_err(|error| refuse(&error))?;
    Ok(())
}

fn print(output: Output, outcomes: &[Outcome]) -> Result<(), Failure> {
    match output {
        Output::Text => Ok(()),
        Output::Junit => text_out(&report::junit(outcomes)),
        Output::Json => {
            let text = serde_json::to_string_pretty(outcomes).map_err(|error| {
                Failure::new(Code::Failed, format!("cannot print as JSON: {error}"))
            })?;
            text_out(&(text + "\n"))
        }
    }
}

/// One line for each run, after all of them.
fn sum(outcomes: &[Outcome]) -> String {
    let lines = outcomes.iter().map(|outcome| {
        let (name, word) = (&outcome.scenario, outcome.word());
        format!("{name:<26} seed {:<6} {word}\n", outcome.seed)
    });
    format!("\n{}", lines.collect::<String>())
}

/// Writes the page, and decides the exit code.
fn finish(how: &How, outcomes: &[Outcome]) -> Result<(), Failure> {
    if let Some(path) = &how.html {
        std::fs::write(path, report::html(outcomes)).map_err(|error| Failure::io(path, &error))?;
    }
    let failed = outcomes
        .iter()
        .any(|outcome| outcome.state == State::Failed && !outcome.is_as_expected());
    if failed {
        return Err(Failure::silent(Code::Assertion));
    }
    if outcomes.iter().all(Outcome::is_as_expected) {
        Ok(())
    } else {
        Err(Failure::silent(Code::Failed))
    }
}
