//! Finds the scenarios that a command names: those that ship, and files.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use weft_netem_tests::scenario::limits::FILE_BYTES_MAX;
use weft_netem_tests::scenario::{Override, Scenario, parse};
use weft_netem_tests::suite;

use crate::failure::{Code, Failure};

/// The scenario, and the fields that the command line changes.
#[derive(Debug, Args)]
pub struct Changes {
    /// Fixes the fate of packet n on each link and direction (not how processes are scheduled)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Another value for a field, as transport.congestion=bbr or topology.links.wan.set.loss=1%
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub set: Vec<Override>,
}

impl Changes {
    /// All of them as overrides.
    pub fn overrides(&self) -> Vec<Override> {
        let mut overrides = self.set.clone();
        overrides.extend(self.seed.map(|seed| Override {
            path: "seed".to_owned(),
            value: seed.to_string(),
        }));
        overrides
    }

    /// The flags again, for the line that reproduces a run with `seed`.
    pub fn flags(&self, seed: u64) -> String {
        let sets = self.set.iter().map(|set| format!(" --set '{set}'"));
        format!("{} --seed {seed}", sets.collect::<String>())
    }
}

/// Reads a scenario that ships, by its name, or a file, by its path.
pub fn read(name: &str, overrides: &[Override]) -> Result<Scenario, Failure> {
    if let Some(shipped) = suite::find(name) {
        return shipped
            .parse(overrides)
            .map_err(|error| Failure::new(Code::BadData, error));
    }
    let path = PathBuf::from(name);
    if !name.contains('/') && !name.ends_with(".yaml") && !path.exists() {
        let known: Vec<&str> = suite::SUITE.iter().map(|shipped| shipped.name).collect();
        let hint = match weft_config::nearest::nearest(name, &known) {
            Some(near) => format!("did you mean {near}?"),
            None => "`weft lab list` shows those that ship; a file is named by its path".to_owned(),
        };
        let line = format!("there is no scenario {name}: {hint}");
        return Err(Failure::new(Code::Usage, line));
    }
    let text = read_file(&path)?;
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    parse(
        &stem.unwrap_or_default(),
        name,
        &text,
        overrides,
        &files_of(&path),
    )
    .map_err(|error| Failure::new(Code::BadData, error))
}

/// Reads a file of a user. Even if it is a device, at most the bound is read.
pub fn read_file(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::io(path, &error))?;
    let wrong = |what: String| Failure::new(Code::BadData, format!("{}: {what}", path.display()));
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))
}

/// Reads the files that the scenario at `path` names, relative to that path.
pub fn files_of(path: &Path) -> impl Fn(&str) -> Result<String, String> {
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    move |name| read_file(&folder.join(name)).map_err(|failure| failure.line)
}
