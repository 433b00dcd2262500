//! The CA's settings, complete and checked (`ca.yaml`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weft_transport::hosts;

use super::admin::{Observe, parse_control};
use super::error::{Problem, SettingsError};
use super::layers::{Loaded, Sources, merge};
use super::limits;
use super::proxy::duration;
use super::raw::RawCa;

/// The parameters of `weft ca serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaSettings {
    /// Directory that `weft ca init` made.
    pub dir: PathBuf,
    /// TCP address to serve on.
    pub listen: SocketAddr,
    /// Life of the certificates issued.
    pub svid_ttl: Duration,
    /// How long an expired certificate still authenticates a renewal.
    pub renewal_grace: Duration,
    /// The admin endpoint, if there is to be one.
    pub admin: Option<Observe>,
}

/// Loads the CA's settings from all layers.
pub fn load_ca(sources: Sources<RawCa>) -> Result<Loaded<CaSettings>, SettingsError> {
    let merged = merge(sources)?;
    match parse(merged.raw) {
        Ok(settings) => Ok(Loaded {
            settings,
            warnings: merged.warnings,
        }),
        Err(problem) => Err(merged.origin.blame(problem)),
    }
}

fn parse(raw: RawCa) -> Result<CaSettings, Problem> {
    Ok(CaSettings {
        dir: raw.dir.ok_or_else(|| Problem::new("dir", "is missing: write the directory of `weft ca init`, as dir: /var/lib/weft/ca (or --dir)"))?,
        listen: raw.listen.map_or_else(|| hosts::everywhere(limits::CA_PORT), |listen| listen.0),
        svid_ttl: duration("svid_ttl", raw.svid_ttl, limits::SVID_TTL, &limits::SVID_TTL_RANGE)?,
        renewal_grace: duration("renewal_grace", raw.renewal_grace, limits::RENEWAL_GRACE, &limits::RENEWAL_GRACE_RANGE)?,
        admin: parse_control(raw.admin)?,
    })
}
