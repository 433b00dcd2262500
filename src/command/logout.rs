//! `weft logout`: removes what `weft login` keeps.

use clap::Args;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::note;

/// Removes a login: the operator's identity with its key, and the address of the config service.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is revoked: a copy of the identity stays good until it ends, a day at most unless svid_ttl says otherwise.\n\
    To log in again takes a new join token."
)]
pub struct Logout {
    /// Which login [default: the latest, or $WEFT_CONTEXT]
    #[arg(long, value_name = "NAME", env = "WEFT_CONTEXT", hide_env = true)]
    context: Option<String>,
}

/// Runs `weft logout`.
pub fn run(args: &Logout) -> Result<(), Failure> {
    let removed = Context::find(args.context.as_deref())?.remove()?;
    note(format_args!("{removed}"));
    Ok(())
}
