//! `weft load compare`: measures weft, other proxies, and connections without a proxy, beside each other.
//!
//! `perform` has the steps in order. `flags.rs` reads what to do, `wire.rs` makes the two hosts, `stage.rs`
//! owns the processes on them (`weft.rs`, `plugin.rs`), `measure.rs` measures one variant once.
//! `weft_loadtest::compare` says what is measured and what the figures mean together.

mod call;
mod flags;
mod measure;
mod plugin;
mod stage;
mod weft;
mod wire;

use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use nix::sys::signal::SigSet;
use weft_loadtest::compare::answer::Answer;
use weft_loadtest::compare::document::{Comparison, Conditions, Facts};
use weft_loadtest::compare::load::Loads;
use weft_loadtest::compare::observe::{Figure, Observation};
use weft_loadtest::compare::{self, CONTROL, DIRECT, Direction, Measurement, Role, WEFT, rotated};
use weft_loadtest::{machine, text};
use weft_netem_tests::lab::sandbox::{self, Entered};

pub use self::flags::Compare;
use self::measure::Subject;
use self::plugin::Plugin;
use self::stage::Stage;
use self::wire::Wire;
use crate::failure::{Code, Failure};
use crate::output::{note, print_or, text_out};
use crate::process::{Signals, raise_file_limit};

/// Bytes of the small body: these figures are about requests, not about bytes.
const BODY_BYTES: usize = 55;

/// Runs `weft load compare`.
pub fn run(args: &Compare) -> Result<(), Failure> {
    // Mistakes are reported before anything starts.
    let plugins = args.plugins()?;
    let loads = args.loads()?;
    raise_file_limit();
    let wire = if args.wants_namespaces() {
        match sandbox::enter()? {
            Entered::Ended(0) => return Ok(()),
            Entered::Ended(code) => return Err(Failure::of_command(code)),
            Entered::Inside => Wire::namespaces(args.mtu())?,
        }
    } else {
        Wire::loopback()
    };
    let directory = tempfile::Builder::new().prefix("weft-compare-").tempdir();
    let directory = directory.map_err(|error| {
        let line = format!("cannot make a temporary directory: {error}");
        Failure::new(Code::Failed, line)
    })?;
    let result =
        crate::process::runtime()?.block_on(run_in(args, &wire, directory.path(), plugins, &loads));
    // Before the exit code is decided, so that Ctrl-C leaves no process either.
    if let Err(error) = directory.close() {
        note(format_args!(
            "weft: the temporary directory remains: {error}"
        ));
    }
    let Some(comparison) = result? else {
        return Ok(());
    };
    print_or(args.output, &comparison, compare::text::report)?;
    if let Some(path) = &args.html {
        let page = compare::html::page(&comparison);
        std::fs::write(path, page).map_err(|error| Failure::io(path, &error))?;
    }
    match comparison.all_failed() {
        Some(line) => Err(Failure::new(Code::Failed, line)),
        None => Ok(()),
    }
}

async fn run_in(
    args: &Compare,
    wire: &Wire,
    directory: &Path,
    plugins: Vec<Plugin>,
    loads: &Loads,
) -> Result<Option<Comparison>, Failure> {
    let mut signals = Signals::take()?;
    // The sandbox blocks signals until a thread takes them.
    SigSet::empty().thread_set_mask().map_err(|error| {
        let line = format!("cannot take signals: {error}");
        Failure::new(Code::Failed, line)
    })?;
    let mut stage = Stage::new(wire, directory, args.workers, plugins)?;
    let result = tokio::select! {
        result = perform(args, wire, &mut stage, loads) => result,
        _ = signals.next() => {
            note("weft: interrupted: ending what was started");
            Err(Failure::silent(Code::Interrupted))
        }
    };
    let result = match result {
        // Ctrl-C is the intended end of a held stage.
        Ok(None) => {
            signals.next().await;
            Ok(None)
        }
        other => other,
    };
    stage.end().await;
    result
}

/// A comparison from start to report; no report if everything should only stay up.
async fn perform(
    args: &Compare,
    wire: &Wire,
    stage: &mut Stage<'_>,
    loads: &Loads,
) -> Result<Option<Comparison>, Failure> {
    let started = SystemTime::now();
    let first_load_average = measure::load_average();
    let measurements = Measurement::list(&args.groups(), &args.rates);
    let (idle, active): (Vec<_>, Vec<_>) = measurements
        .into_iter()
        .partition(|one| matches!(one, Measurement::Idle(_)));
    let mut observations = Vec::new();
    if !args.hold {
        observations = measure_idle(args, stage, &idle).await?;
    }
    for pair in stage.pairs() {
        args.tell(format_args!("starting {pair}"));
        stage.start(&pair).await?;
    }
    if args.hold {
        for pair in std::iter::once(DIRECT.to_owned()).chain(stage.pairs()) {
            if let Some(answer) = stage.answer(&pair) {
                text_out(&held(&pair, &answer))?;
            }
        }
        note("held until Ctrl-C");
        return Ok(None);
    }
    let mut order = vec![DIRECT.to_owned(), WEFT.to_owned()];
    order.extend(stage.pairs().into_iter().skip(1));
    order.push(CONTROL.to_owned());
    args.tell_how_long(&active, order.len());
    for round in 0..args.rounds {
        let order = rotated(&order, round as usize);
        for measurement in &active {
            stage.serve(args.body(*measurement)).await?;
            let mut found = Vec::new();
            for variant in &order {
                let Some(answer) = stage.answer(variant) else {
                    continue;
                };
                let Some(subject) = Subject::of(variant, &answer, *measurement) else {
                    continue;
                };
                found.push(measure::load(round, *measurement, &subject, loads).await?);
                stage.check()?;
            }
            args.tell(format_args!(
                "round {} of {}  {measurement}: {}",
                round + 1,
                args.rounds,
                in_short(&found)
            ));
            observations.append(&mut found);
        }
    }
    let facts = Facts {
        command: command_line(),
        started_unix_ms: unix_ms(started),
        wire: wire.description.clone(),
        machine: machine::this(env!("CARGO_PKG_VERSION")),
        conditions: Conditions {
            rounds: args.rounds,
            duration_s: loads.duration.as_secs_f64(),
            warm_up_s: loads.warm_up.as_secs_f64(),
            connections: loads.connections,
            rates: args.rates.clone(),
            bulk_bytes: loads.bulk.len(),
            idle_connections: args.idle,
            body_bytes: BODY_BYTES,
            workers: args.workers,
            generator_threads: loads.threads,
            mtu: wire.mtu,
        },
        variants: stage.variants(),
        load_average: [first_load_average, measure::load_average()],
        debug_build: cfg!(debug_assertions),
    };
    Ok(Some(Comparison::new(facts, observations)))
}

/// Memory, of each pair freshly started for each path, one after the other.
async fn measure_idle(
    args: &Compare,
    stage: &mut Stage<'_>,
    measurements: &[Measurement],
) -> Result<Vec<Observation>, Failure> {
    let mut observations = Vec::new();
    let mut variants = stage.pairs();
    variants.push(CONTROL.to_owned());
    for measurement in measurements {
        for variant in &variants {
            let pair = if variant == CONTROL { WEFT } else { variant };
            stage.stop(pair).await;
            stage.start(pair).await?;
            let answer = stage.answer(variant);
            let subject = answer.as_ref();
            let subject = subject.and_then(|answer| Subject::of(variant, answer, *measurement));
            if let Some(subject) = subject {
                args.tell(format_args!("{measurement}: {variant}"));
                let found = measure::idle(*measurement, &subject, args.idle).await;
                observations.push(found.map_err(|failure| Failure {
                    line: format!("{variant}: {}", failure.line),
                    ..failure
                })?);
            }
            stage.stop(pair).await;
        }
    }
    Ok(observations)
}

impl Compare {
    /// The size of the server's answer.
    fn body(&self, measurement: Measurement) -> usize {
        match measurement {
            Measurement::Bulk(_, Direction::Down) => self.bulk,
            Measurement::Bulk(_, Direction::Up)
            | Measurement::Closed(_)
            | Measurement::Serial(_)
            | Measurement::Rate(..)
            | Measurement::Connect(_)
            | Measurement::Idle(_) => BODY_BYTES,
        }
    }

    fn tell(&self, line: std::fmt::Arguments<'_>) {
        if !self.quiet {
            note(line);
        }
    }

    fn tell_how_long(&self, measurements: &[Measurement], variants: usize) {
        let is_timed = |one: &&Measurement| !matches!(one, Measurement::Bulk(..));
        let timed = measurements.iter().filter(is_timed).count() * variants;
        let each = self.duration + self.warm_up;
        let all = each * u32::try_from(timed).unwrap_or(u32::MAX) * self.rounds;
        let has_bulk = timed < measurements.len() * variants;
        self.tell(format_args!(
            "{} rounds of {} measurements of {variants} variants: about {}{}",
            self.rounds,
            measurements.len(),
            text::duration(all),
            if has_bulk {
                ", and the bulk transfers"
            } else {
                ""
            }
        ));
    }

    fn loads(&self) -> Result<Loads, Failure> {
        let loads = Loads {
            connections: self.connections,
            duration: self.duration,
            warm_up: self.warm_up,
            threads: self.threads,
            bulk: Bytes::from(vec![b'w'; self.bulk]),
        };
        // Each plan is checked before the first of them runs.
        let nobody = ([127, 0, 0, 1], 1).into();
        for measurement in Measurement::list(&self.groups(), &self.rates) {
            let plan = loads.plan(measurement, nobody);
            plan.map_err(|line| Failure::new(Code::Usage, line))?;
        }
        Ok(loads)
    }
}

/// How to reach a variant by hand.
fn held(name: &str, answer: &Answer) -> String {
    let mut line = name.to_owned();
    for path in compare::Path::ALL {
        if let Some(address) = answer.address(path) {
            line += &format!("  {} {address}", path.token());
        }
    }
    for process in &answer.processes {
        let role = match process.role {
            Role::Caller => "caller",
            Role::Server => "server",
        };
        line += &format!("  {role} pid {}", process.pid);
    }
    line + "\n"
}

/// The figure of each variant that people look at first.
fn in_short(found: &[Observation]) -> String {
    type Show = fn(f64) -> String;
    let shown: [(Figure, Show); 3] = [
        (Figure::PerSecond, |rate| format!("{}/s", text::rate(rate))),
        (Figure::Throughput, |rate| {
            format!("{} MB/s", text::rate(rate))
        }),
        (Figure::P50, |micros| text::micros(micros as u64)),
    ];
    let of = |one: &Observation| {
        let first = shown
            .iter()
            .find_map(|(figure, show)| Some(show(*one.figures.get(figure)?)));
        let first = first.unwrap_or_else(|| "nothing".to_owned());
        match one.failed {
            0 => format!("{} {first}", one.variant),
            failed => format!("{} {first} ({failed} failed)", one.variant),
        }
    };
    found.iter().map(of).collect::<Vec<_>>().join(", ")
}

/// As it was typed.
fn command_line() -> String {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    std::iter::once("weft".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}
