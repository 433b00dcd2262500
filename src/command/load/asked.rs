//! The flags of `weft load` about results: how to show them, which limits must hold, and which rates to try.

use std::path::PathBuf;

use clap::Args;
use weft_loadtest::search::Sweep;
use weft_loadtest::threshold::Conditions;

use crate::output::Format;

const RESULT: &str = "Result";
const SERIES: &str = "Several runs";

/// The flags that show and judge a result.
#[derive(Debug, Args)]
pub struct Asked {
    /// How to print the result; JSON is described in docs/load-json.md
    #[arg(short, long, value_enum, default_value_t, help_heading = RESULT)]
    pub output: Format,
    /// Also write one HTML file with plots
    #[arg(long, value_name = "FILE", help_heading = RESULT)]
    pub html: Option<PathBuf>,
    /// Also write a log of interval histograms, for the tools of HdrHistogram
    #[arg(long, value_name = "FILE", help_heading = RESULT)]
    pub hdr_log: Option<PathBuf>,
    /// Exit with 99 if one of these conditions holds, as 'p99>50ms,errors>0.1%'
    #[arg(long, value_name = "CONDITIONS", help_heading = RESULT)]
    pub fail_if: Option<Conditions>,
    /// No line of progress each second
    #[arg(long, help_heading = RESULT)]
    pub quiet: bool,

    /// Find the highest rate with which all of these hold, as 'p99<20ms,errors<0.1%'; --rate is where
    /// to begin, --duration the length of each trial
    #[arg(long, value_name = "CONDITIONS", conflicts_with_all = SINGLE, help_heading = SERIES)]
    pub find_max: Option<Conditions>,
    /// Run at several rates, each the same factor above the last, and find the knee: as 100:10000:10
    #[arg(long, value_name = "FROM:TO:COUNT", conflicts_with_all = SINGLE, conflicts_with_all = ["rate", "find_max"], help_heading = SERIES)]
    pub sweep: Option<Sweep>,
}

/// Options for one run only.
const SINGLE: [&str; 8] = [
    "closed", "ramp", "stages", "replay", "requests", "fail_if", "html", "hdr_log",
];

impl Asked {
    /// Whether the rate is chosen from trial to trial.
    pub fn is_series(&self) -> bool {
        self.find_max.is_some() || self.sweep.is_some()
    }
}
