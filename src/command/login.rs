//! `weft login`: turns an operator's join token into an identity that later commands use.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weft_config::operator::{ConnectError, Operator, OperatorError};
use weft_config::settings::{DurationText, HostPort};

use crate::context::{Context, DEFAULT, refused};
use crate::failure::{Code, Failure};
use crate::output::note;
use crate::process;

/// How often an absent config service is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Logs in to a config service as an operator.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    weft ca token --dir ca --role operator alice > alice.token\n  \
    weft login 10.9.0.9:6201 --join-token-file alice.token\n\n\
    The identity is kept in ~/.config/weft (or $WEFT_HOME) and renewed on use.")]
pub struct Login {
    /// Addresses of the config service
    #[arg(required = true, value_name = "HOST:PORT")]
    server: Vec<HostPort>,
    /// File with a join token of `weft ca token --role operator NAME`
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Name under which to keep this login
    #[arg(long, value_name = "NAME", env = "WEFT_CONTEXT", hide_env = true, default_value = DEFAULT)]
    context: String,
    /// How long to wait for the CA, and for the config service
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    wait: DurationText,
}

/// Runs `weft login`.
pub fn run(args: &Login) -> Result<(), Failure> {
    process::runtime()?.block_on(async {
        let context = Context::new(&args.context)?;
        let credentials = context
            .credentials(args.join_token_file.as_deref(), Duration::ZERO, args.wait.0)
            .await?;
        let addresses: Vec<String> = args.server.iter().map(ToString::to_string).collect();
        let mut last = Failure::new(Code::Unreachable, "the config service does not answer");
        let connect = async {
            loop {
                match Operator::connect(&addresses, &credentials).await {
                    Ok(_) => return Ok(()),
                    // It will not become another.
                    Err(OperatorError::Unreachable(error @ ConnectError::OtherServer { .. })) => {
                        return Err(error);
                    }
                    Err(error) => last = refused(&error),
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let connected = tokio::time::timeout(args.wait.0, connect).await;
        if let Ok(Err(wrong)) = connected {
            let line = format!("{wrong}; the identity is kept, so no new token is needed");
            return Err(Failure::new(Code::Unreachable, line));
        }
        if connected.is_err() {
            // The token is spent, so a first login is kept; but a login that does not work does not replace
            // one that does.
            let what = if context.is_kept() {
                "the earlier login stays"
            } else {
                context.keep(&args.server)?;
                "the login is kept"
            };
            let line = format!("{what}, but {}", last.line);
            return Err(Failure { line, ..last });
        }
        context.keep(&args.server)?;
        note(format_args!(
            "logged in to {} as {}",
            addresses.join(", "),
            credentials.svid().id()
        ));
        Ok(())
    })
}
