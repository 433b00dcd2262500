//! The config service's settings, complete and checked (`config.yaml`).

use std::net::SocketAddr;
use std::path::PathBuf;

use weft_transport::hosts;

use super::admin::{Observe, parse_control};
use super::error::{Problem, SettingsError};
use super::layers::{Loaded, Sources, merge};
use super::limits;
use super::raw::RawConfigService;

/// The parameters of `weft config serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSettings {
    /// Directory of the store, the admin socket and the service's own identity.
    pub dir: PathBuf,
    /// TCP address to serve on.
    pub listen: SocketAddr,
    /// File with a join token; not needed once `dir` holds a usable SVID.
    pub join_token_file: Option<PathBuf>,
    /// The admin endpoint, if there is to be one.
    pub admin: Option<Observe>,
}

/// Loads the config service's settings from all layers.
pub fn load_config(
    sources: Sources<RawConfigService>,
) -> Result<Loaded<ConfigSettings>, SettingsError> {
    let merged = merge(sources)?;
    match parse(merged.raw) {
        Ok(settings) => Ok(Loaded {
            settings,
            warnings: merged.warnings,
        }),
        Err(problem) => Err(merged.origin.blame(problem)),
    }
}

fn parse(raw: RawConfigService) -> Result<ConfigSettings, Problem> {
    Ok(ConfigSettings {
        dir: raw.dir.ok_or_else(|| {
            Problem::new(
                "dir",
                "is missing: write a directory, as dir: /var/lib/weft/config (or --dir)",
            )
        })?,
        listen: raw
            .listen
            .map_or_else(|| hosts::everywhere(limits::CONFIG_PORT), |listen| listen.0),
        join_token_file: raw.join.and_then(|join| join.token_file),
        admin: parse_control(raw.admin)?,
    })
}
