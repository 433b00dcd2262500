//! `--replay`: the requests of weft's own access log, at its times.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use clap::ValueEnum;
use weft_loadtest::replay::{self, Direction, Replay, ReplayError};

use crate::failure::{Code, Failure};
use crate::output::note;

/// Which of a sidecar's lines are replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// What the application beside the sidecar asked for
    Outbound,
    /// What others asked of it
    Inbound,
}

/// Reads a log, and reports which lines are not replayed.
pub fn read(path: &Path, side: Option<Side>, speed: f64) -> Result<Replay, Failure> {
    let file = File::open(path).map_err(|error| Failure::io(path, &error))?;
    let direction = side.map(|side| match side {
        Side::Outbound => Direction::Outbound,
        Side::Inbound => Direction::Inbound,
    });
    let log = replay::read(BufReader::new(file), direction, speed);
    let log = log.map_err(|error| refused(path, &error))?;
    for (count, what) in [
        (log.tunnels, "tunnels, which cannot be replayed"),
        (log.suppressed, "requests that the log itself left out"),
    ] {
        if count > 0 {
            note(format_args!(
                "weft: {}: without {count} {what}",
                path.display()
            ));
        }
    }
    Ok(log)
}

fn refused(path: &Path, error: &ReplayError) -> Failure {
    let code = match error {
        ReplayError::Read(_) => Code::Failed,
        ReplayError::Speed { .. } => Code::Usage,
        ReplayError::Line { .. }
        | ReplayError::Direction
        | ReplayError::Empty
        | ReplayError::TooMany => Code::BadData,
    };
    Failure::new(code, format!("--replay {}: {error}", path.display()))
}
