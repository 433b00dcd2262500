//! The login that `weft login` keeps: for each context, the config service's addresses and the operator's
//! identity, under `$WEFT_HOME`, else `$XDG_CONFIG_HOME/weft`, else `~/.config/weft`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use tokio::sync::watch::Sender;
use weft_config::operator::{Operator, OperatorError};
use weft_config::settings::HostPort;
use weft_transport::credentials::Credentials;
use weft_transport::identity::TrustDomain;

use crate::failure::{Code, Failure, chain};
use crate::identity::{self, Holder};
use crate::output::{moment, note};

/// The context of a first login.
pub const DEFAULT: &str = "default";
/// How long a command waits for a CA that does not answer: a person waits for the command.
const CA_PATIENCE: Duration = Duration::from_secs(5);
/// File that names the context in use.
const CURRENT: &str = "current";
/// File with the addresses of a context, one per line.
const SERVER: &str = "server";
/// Directory of a context's identity.
const IDENTITY: &str = "identity";

/// Which config service is meant, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct ContextFlags {
    /// Address of the config service [default: that of the login]
    #[arg(long, value_name = "HOST:PORT")]
    server: Vec<HostPort>,
    /// Which login to use [default: the latest, or $WEFT_CONTEXT]
    #[arg(long, value_name = "NAME", env = "WEFT_CONTEXT", hide_env = true)]
    context: Option<String>,
}

impl ContextFlags {
    /// Connects to the config service as the operator of the context.
    pub async fn connect(&self) -> Result<Operator, Failure> {
        self.connect_for(Duration::ZERO).await
    }

    /// As [`Self::connect`], for a call that may take this long.
    pub async fn connect_for(&self, call: Duration) -> Result<Operator, Failure> {
        let context = Context::find(self.context.as_deref())?;
        let addresses = if self.server.is_empty() {
            context.addresses()?
        } else {
            self.server.iter().map(ToString::to_string).collect()
        };
        let credentials = context.credentials(None, call, CA_PATIENCE).await?;
        Operator::connect(&addresses, &credentials)
            .await
            .map_err(|error| refused(&error))
    }

    /// The trust domain of the mesh that the context belongs to.
    pub fn trust_domain(&self) -> Result<TrustDomain, Failure> {
        let context = Context::find(self.context.as_deref())?;
        let identity = weft_ca::agent::saved_identity(&context.directory().join(IDENTITY));
        let (identity, _) = identity.ok_or_else(|| {
            let line = "the login has no identity any more: log in again with weft login";
            Failure::new(Code::Unreachable, line)
        })?;
        Ok(identity.trust_domain().clone())
    }
}

/// One login.
pub struct Context {
    home: PathBuf,
    name: String,
}

impl Context {
    /// The context asked for, else the one in use.
    pub fn find(name: Option<&str>) -> Result<Self, Failure> {
        let home = home()?;
        let name = match name {
            Some(name) => name.to_owned(),
            None => std::fs::read_to_string(home.join(CURRENT))
                .map(|text| text.trim().to_owned())
                .unwrap_or_else(|_| DEFAULT.to_owned()),
        };
        let context = Self::named(home, &name)?;
        if context.is_kept() {
            return Ok(context);
        }
        Err(Failure::new(
            Code::NotPermitted,
            format!(
                "no login `{name}` in {}: weft login HOST:PORT --join-token-file FILE",
                context.home.display()
            ),
        ))
    }

    /// A context to log in to.
    pub fn new(name: &str) -> Result<Self, Failure> {
        Self::named(home()?, name)
    }

    fn named(home: PathBuf, name: &str) -> Result<Self, Failure> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(Failure::new(
                Code::Usage,
                format!("`{name}` is not a context's name: write letters, digits, - and _"),
            ));
        }
        Ok(Self {
            home,
            name: name.to_owned(),
        })
    }

    /// Whether an operator has logged in to it.
    pub fn is_kept(&self) -> bool {
        self.directory().join(SERVER).exists()
    }

    /// Keeps the addresses and makes this the context in use.
    pub fn keep(&self, server: &[HostPort]) -> Result<(), Failure> {
        let lines: String = server
            .iter()
            .map(|address| format!("{address}\n"))
            .collect();
        write(&self.directory().join(SERVER), &lines)?;
        write(&self.home.join(CURRENT), &self.name)
    }

    /// Removes all files of it, and reports what was there.
    pub fn remove(&self) -> Result<String, Failure> {
        let directory = self.directory();
        let addresses = self.addresses().unwrap_or_default().join(", ");
        let identity = weft_ca::agent::saved_identity(&directory.join(IDENTITY));
        std::fs::remove_dir_all(&directory).map_err(|error| Failure::io(&directory, &error))?;
        let current = self.home.join(CURRENT);
        if std::fs::read_to_string(&current).is_ok_and(|name| name.trim() == self.name) {
            std::fs::remove_file(&current).map_err(|error| Failure::io(&current, &error))?;
        }
        let whom = identity.map_or_else(String::new, |(id, not_after)| {
            let end = not_after.duration_since(SystemTime::UNIX_EPOCH);
            let end = moment(end.unwrap_or_default().as_secs());
            format!(" as {id} (a copy of that identity would be good until {end})")
        });
        Ok(format!(
            "logged out of {addresses}{whom}: removed {} with key and certificate",
            directory.display()
        ))
    }

    /// The operator's identity, obtained with a token, or renewed if it is due or lasts for less than
    /// `needed`. A CA that does not answer is waited for until `patience` ends.
    pub async fn credentials(
        &self,
        token_file: Option<&Path>,
        needed: Duration,
        patience: Duration,
    ) -> Result<Credentials, Failure> {
        let state_dir = self.directory().join(IDENTITY);
        let (agent, credentials) = identity::start(
            Holder::Operator,
            &state_dir,
            token_file,
            Sender::default(),
            Some(patience),
        )
        .await?;
        if let Err(error) = agent.renew_if_due(needed, patience).await {
            note(format_args!(
                "weft: the operator's identity was not renewed: {}",
                chain(&error)
            ));
        }
        if let Some(reason) = agent.status().unsaved() {
            note(format_args!(
                "weft: the operator's identity was renewed for this command, and could not be saved: {reason}"
            ));
        }
        Ok(credentials)
    }

    fn addresses(&self) -> Result<Vec<String>, Failure> {
        let path = self.directory().join(SERVER);
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::io(&path, &error))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    }

    fn directory(&self) -> PathBuf {
        self.home.join("contexts").join(&self.name)
    }
}

/// The exit code for a failed call to the config service.
pub fn refused(error: &OperatorError) -> Failure {
    let code = match error {
        OperatorError::Unreachable(_) => Code::Unreachable,
        OperatorError::NotPermitted(_) => Code::NotPermitted,
        OperatorError::Invalid(_) => Code::BadData,
        OperatorError::NotFound(_) | OperatorError::Failed(_) => Code::Failed,
    };
    Failure::new(code, chain(error))
}

fn home() -> Result<PathBuf, Failure> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    variable("WEFT_HOME")
        .or_else(|| variable("XDG_CONFIG_HOME").map(|config| config.join("weft")))
        .or_else(|| variable("HOME").map(|home| home.join(".config/weft")))
        .ok_or_else(|| {
            Failure::new(
                Code::Failed,
                "nowhere to keep logins: set WEFT_HOME to a directory",
            )
        })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::io(path, &error);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
