//! `weft lab run` and `weft lab matrix`: choose the scenarios to run, and print the results. `runner.rs` runs
//! them.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use weft_netem_tests::report;
use weft_netem_tests::run::outcome::Outcome;
use weft_netem_tests::scenario::{Override, Scenario};
use weft_netem_tests::suite::SUITE;

use super::runner::{RunFlags, Runner, finish};
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
    /// All scenarios that ship: less than fifteen minutes
    #[arg(long, conflicts_with_all = ["scenarios", "short"])]
    all: bool,
    /// The short selection of them: less than four minutes
    #[arg(long, conflicts_with = "scenarios")]
    short: bool,
    #[command(flatten)]
    changes: Changes,
    /// Run each scenario this many times, with seeds from --seed on: pass rate and spread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPEAT_MAX)))]
    repeat: u32,
    #[command(flatten)]
    how: RunFlags,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs one scenario with every combination of some settings, and prints one table.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    weft lab matrix small-beside-bulk --rtt 10ms,40ms --loss 0%,1%,3% --congestion tolerant,cubic,bbr\n\n\
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
    how: RunFlags,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
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
    // Before anything is started, so that mistakes in the last file are reported at once.
    let overrides = args.changes.overrides();
    let scenarios = names
        .iter()
        .map(|name| read(name, &overrides))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(runner) = Runner::enter(&args.how)? else {
        return Ok(());
    };
    let mut outcomes = Vec::new();
    let mut progress = Progress::new(&scenarios, args.repeat);
    for (name, scenario) in names.iter().zip(&scenarios) {
        let mut repeated = Vec::new();
        for offset in 0..args.repeat {
            let mut scenario = scenario.clone();
            scenario.seed = scenario.seed.wrapping_add(u64::from(offset));
            progress.next(&scenario);
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

/// One line for each run, after all of them, and one for all.
fn sum(outcomes: &[Outcome]) -> String {
    let lines = outcomes.iter().map(|outcome| {
        let (name, word) = (&outcome.scenario, outcome.word());
        format!("{name:<26} seed {:<6} {word}\n", outcome.seed)
    });
    let expected = outcomes
        .iter()
        .filter(|outcome| outcome.is_as_expected())
        .count();
    let took: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    format!(
        "\n{}{expected} of {} as expected, {} s of runs\n",
        lines.collect::<String>(),
        outcomes.len(),
        took.as_secs()
    )
}

/// Reports the progress of a series of runs.
struct Progress {
    began: Instant,
    runs: usize,
    done: usize,
    /// The planned time of the loads of all runs, and of those that are over.
    planned: [Duration; 2],
}

impl Progress {
    fn new(scenarios: &[Scenario], repeat: u32) -> Self {
        let once: Duration = scenarios.iter().map(|scenario| scenario.duration).sum();
        Self {
            began: Instant::now(),
            runs: scenarios.len() * repeat as usize,
            done: 0,
            planned: [once * repeat, Duration::ZERO],
        }
    }

    /// Called before each run. The remaining time is estimated from that of the runs before.
    fn next(&mut self, scenario: &Scenario) {
        self.done += 1;
        if self.runs > 1 {
            let [all, over] = self.planned.map(|planned| planned.as_secs_f64());
            let left = match over > 0.0 {
                true => self.began.elapsed().as_secs_f64() * (all - over) / over,
                false => all,
            };
            let (done, runs) = (self.done, self.runs);
            note(format_args!("run {done} of {runs}, about {left:.0} s left"));
        }
        self.planned[1] += scenario.duration;
    }
}
