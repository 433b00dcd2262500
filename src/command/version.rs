//! `weft version`.

use clap::Args;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Format, Table, print};

/// Shows the version of this binary.
#[derive(Debug, Args)]
pub struct Version {
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Facts {
    version: &'static str,
    /// Empty for a build other than a release.
    commit: &'static str,
    target: String,
}

/// Runs `weft version`.
pub fn run(args: &Version) -> Result<(), Failure> {
    let facts = Facts {
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("WEFT_COMMIT"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    };
    print(args.output, &facts, |facts| {
        let mut table = Table::new(&["VERSION", "COMMIT", "TARGET"]);
        let commit = match facts.commit {
            "" => "-",
            commit => commit,
        };
        table.row([
            facts.version.to_owned(),
            commit.to_owned(),
            facts.target.clone(),
        ]);
        table
    })
}
