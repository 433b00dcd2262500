//! Which settings file a process reads, and its environment.

use std::path::{Path, PathBuf};

use weft_config::settings::Sources;

/// Where packages put the settings.
const DIRECTORY: &str = "/etc/weft";

/// The layers for a process: `requested` by `--config`, or `/etc/weft/NAME.yaml` if it exists.
pub fn sources<L>(name: &str, requested: Option<PathBuf>, flags: L) -> Sources<L> {
    let standard = Path::new(DIRECTORY).join(name).with_extension("yaml");
    Sources {
        file: requested.or_else(|| standard.exists().then_some(standard)),
        // A variable that is not UTF-8 is no setting.
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        flags,
    }
}
