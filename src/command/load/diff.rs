//! `weft load diff A B`: whether two results differ by more than chance.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use weft_loadtest::diff::compare;
use weft_loadtest::limits;
use weft_loadtest::report::series;
use weft_loadtest::result::RunResult;

use crate::failure::{Code, Failure};
use crate::output::{Format, print_or};

/// Compares two results of `weft load -o json`. Exits with 0 if they are not distinguishable, with 1 if they
/// differ.
#[derive(Debug, Args)]
pub struct Diff {
    /// The first result
    #[arg(value_name = "A.json")]
    first: PathBuf,
    /// The second result, which is compared with the first
    #[arg(value_name = "B.json")]
    second: PathBuf,
    /// Ignore changes smaller than this, as 5%
    #[arg(long, value_name = "PERCENT", default_value_t = Percent(limits::DIFF_TOLERANCE), value_parser = percent)]
    tolerance: Percent,
    /// How to print the comparison
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// A share that people write in per cent.
#[derive(Clone, Copy, Debug)]
struct Percent(f64);

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0 * 100.0)
    }
}

fn percent(text: &str) -> Result<Percent, String> {
    let digits = text.trim().strip_suffix('%').unwrap_or_default();
    match digits.trim().parse::<f64>() {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(Percent(percent / 100.0)),
        _ => Err("write a share such as 5%, from 0% to 1000%".to_owned()),
    }
}

/// Runs `weft load diff`.
pub fn run(args: &Diff) -> Result<(), Failure> {
    let [first, second] = [&args.first, &args.second].map(|path| read(path));
    let (first, second) = (first?, second?);
    let comparison = compare(&first, &second, args.tolerance.0)
        .map_err(|error| Failure::new(Code::BadData, error))?;
    print_or(args.output, &comparison, series::comparison)?;
    if comparison.differs {
        return Err(Failure::silent(Code::Failed));
    }
    Ok(())
}

fn read(path: &Path) -> Result<RunResult, Failure> {
    let io = |error| Failure::io(path, &error);
    let bad =
        |problem: String| Failure::new(Code::BadData, format!("{}: {problem}", path.display()));
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(limits::RESULT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > limits::RESULT_BYTES_MAX {
        return Err(bad("larger than 16 MiB, and no result is".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("not text".to_owned()))?;
    RunResult::parse(&text).map_err(|error| bad(error.to_string()))
}
