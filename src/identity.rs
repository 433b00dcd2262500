//! This process's identity: from its state directory, or obtained with the token in a file.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use weft_ca::JoinToken;
use weft_ca::agent::{Agent, AgentError, AgentSettings};
use weft_transport::credentials::Credentials;
use weft_transport::identity::SpiffeId;

use crate::command::ca::failed;
use crate::failure::{Code, Failure};

/// A file that a state directory has after its owner has joined.
const CERTIFICATE: &str = "identity.crt";

/// The file of a token is small; a longer file holds no token.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The role of a process: it decides which kind of token the process may join with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A sidecar, with the identity of the application beside it.
    Workload,
    /// The config service.
    Config,
    /// A person who may change the mesh.
    Operator,
}

impl Holder {
    /// The kind of an identity (`ns/weft` is reserved for the mesh's own).
    fn of(identity: &SpiffeId) -> Self {
        let own = identity.workload().filter(|own| own.namespace == "weft");
        match own.map(|own| own.service_account) {
            Some("config") => Self::Config,
            Some(account) if account.starts_with("operator-") => Self::Operator,
            Some(_) | None => Self::Workload,
        }
    }

    /// How its token is made.
    fn order(self) -> &'static str {
        match self {
            Self::Workload => "weft ca token --dir DIR --identity ns/NAMESPACE/sa/NAME",
            Self::Config => "weft ca token --dir DIR --role config",
            Self::Operator => "weft ca token --dir DIR --role operator NAME",
        }
    }
}

/// Returns with a valid identity. Waits while no CA answers, or until `patience` ends, and sets `waiting` to
/// the reason. A token for another role is not spent; if there is an identity already, tokens do not matter.
pub async fn start(
    holder: Holder,
    state_dir: &Path,
    token_file: Option<&Path>,
    waiting: watch::Sender<String>,
    patience: Option<Duration>,
) -> Result<(Agent, Credentials), Failure> {
    let join_token = token_file
        .map(|path| read_token(path, state_dir))
        .transpose()?
        .flatten();
    if let Some(token) = &join_token
        && Holder::of(&token.identity) != holder
        && !has_joined(state_dir)
    {
        let (identity, order) = (&token.identity, holder.order());
        let line = format!("the join token is for {identity}; make one by `{order}`");
        return Err(Failure::new(Code::NotPermitted, line));
    }
    let settings = AgentSettings {
        state_dir: state_dir.to_owned(),
        join_token,
        waiting,
        patience,
    };
    Agent::start(settings).await.map_err(|error| {
        let mut failure = failed(error.kind(), &error);
        if matches!(error, AgentError::NoToken(_) | AgentError::Expired { .. }) {
            failure.line += &format!(
                ": make one by `{} > FILE` and give it by --join-token-file FILE",
                holder.order()
            );
        }
        failure
    })
}

/// Whether there is an identity in a state directory, whatever its age.
pub fn has_joined(state_dir: &Path) -> bool {
    state_dir.join(CERTIFICATE).exists()
}

/// A missing file does not matter once there is an identity: tokens are meant to be deleted.
pub fn read_token(path: &Path, state_dir: &Path) -> Result<Option<JoinToken>, Failure> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && has_joined(state_dir) => {
            return Ok(None);
        }
        Err(error) => {
            let failure = Failure::io(path, &error);
            return Err(Failure {
                line: format!("cannot read the join token: {}", failure.line),
                ..failure
            });
        }
    }
    let token = text.trim().parse();
    token
        .map(Some)
        .map_err(|error: weft_ca::token::TokenError| {
            Failure::new(Code::BadData, format!("{}: {error}", path.display()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserved_namespace_tells_the_role_of_a_token() {
        let of = |path: &str| Holder::of(&format!("spiffe://demo.test/{path}").parse().unwrap());
        assert_eq!(of("ns/weft/sa/config"), Holder::Config);
        assert_eq!(of("ns/weft/sa/operator-me"), Holder::Operator);
        assert_eq!(of("ns/shop/sa/config"), Holder::Workload);
        assert_eq!(of("ns/shop/sa/operator-me"), Holder::Workload);
    }
}
