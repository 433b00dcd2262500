//! This process's identity: from its state directory, or bought with the token of a file.

use std::path::Path;

use weft_ca::JoinToken;
use weft_ca::agent::{Agent, AgentSettings};
use weft_transport::credentials::Credentials;

use crate::command::ca::failed;
use crate::failure::{Code, Failure};

/// A token's file is small; a longer one is something else.
const TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Returns with a valid identity; waits while no CA answers.
pub async fn start(
    state_dir: &Path,
    token_file: Option<&Path>,
) -> Result<(Agent, Credentials), Failure> {
    let settings = AgentSettings {
        state_dir: state_dir.to_owned(),
        join_token: token_file
            .map(|path| read_token(path, state_dir))
            .transpose()?
            .flatten(),
    };
    Agent::start(settings)
        .await
        .map_err(|error| failed(error.kind(), &error))
}

/// A file that is gone is no matter once there is an identity: tokens are meant to be deleted.
fn read_token(path: &Path, state_dir: &Path) -> Result<Option<JoinToken>, Failure> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound
                && state_dir.join("identity.crt").exists() =>
        {
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
