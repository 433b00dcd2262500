//! Rates that a scenario takes from files, as `rate: trace file drive.csv`. Pure: the function that reads a
//! file is an argument. `link/trace.rs` reads the contents.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::link::{Rate, Trace};

/// Reads a file that a scenario names, relative to the scenario; or returns the error.
pub type ReadFile<'f> = &'f dyn Fn(&str) -> Result<String, String>;

/// The traces of a scenario, each read once.
pub(super) struct Traces<'f> {
    read: ReadFile<'f>,
    known: BTreeMap<String, Result<Rate, String>>,
}

impl<'f> Traces<'f> {
    pub(super) fn new(read: ReadFile<'f>) -> Self {
        Self {
            read,
            known: BTreeMap::new(),
        }
    }

    /// The rate in the file `name`; or the fault, with the file's line.
    pub(super) fn get(&mut self, name: &str) -> Result<Rate, String> {
        let known = self.known.entry(name.to_owned());
        known.or_insert_with(|| read(self.read, name)).clone()
    }
}

fn read(read: ReadFile<'_>, name: &str) -> Result<Rate, String> {
    let trace = Trace::read(&read(name)?).map_err(|error| format!("{name}:{error}"))?;
    Ok(Rate::Trace(Arc::new(trace)))
}
