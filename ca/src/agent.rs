//! Keeps the identity of one process: joins with a token or loads the identity from the state directory,
//! renews it in time, and swaps the new certificate into [`Credentials`] while connections go on.
//!
//! `renewal.rs` decides when to renew; the files are in `agent/state.rs`; one purchase of a certificate is
//! `agent/purchase.rs`.

mod claim;
mod purchase;
mod state;
mod status;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use weft_transport::credentials::{Credentials, CredentialsError, Svid, TrustBundle};
use weft_transport::files::FileError;
use weft_transport::identity::SpiffeId;

pub use self::claim::Claim;
use self::purchase::{Wait, buy, no_answer, patiently};
use self::state::{Bought, CaAddresses, StateDirectory, Stored};
pub use self::status::AgentStatus;
use self::status::Status;
use crate::attest::unix_seconds;
use crate::client::RequestProof;
use crate::limits::{
    ADDRESSES_MAX, NOT_BEFORE_SLACK, RENEWAL_AT, SAVE_INTERVAL, WALL_CHECK_INTERVAL,
};
use crate::renewal::{Action, Life, Renewal, Urgency};
use crate::token::JoinToken;

/// The parameters of an agent.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Where the identity is kept (made with mode 0700).
    pub state_dir: PathBuf,
    /// For the first start; ignored while `state_dir` holds a usable identity.
    pub join_token: Option<JoinToken>,
    /// Gets the reason for which a start waits, in words that follow "waiting for".
    pub waiting: watch::Sender<String>,
    /// For how long a start waits for a CA that does not answer; for ever without it.
    pub patience: Option<Duration>,
}

/// Why a process has no identity. Each of these ends the process.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The CA's final refusal.
    #[error("{reason} (CA {address}, for {identity})")]
    Refused {
        /// The address of the CA that refused.
        address: String,
        /// The reason that it gave.
        reason: String,
        /// The identity asked for.
        identity: SpiffeId,
    },
    /// Nothing to start from.
    #[error("{0} holds no identity, and there is no join token")]
    NoToken(PathBuf),
    /// The identity has expired, the CA does not renew it, and there is no token.
    #[error(
        "the identity in {path} has expired, and cannot be renewed without a new join token: {reason}"
    )]
    Expired {
        /// The state directory.
        path: PathBuf,
        /// The CA's words.
        reason: String,
    },
    /// The token is for another identity than the state directory.
    #[error(
        "{path} holds the identity {found}, and the join token is for {wanted}: use another state_dir, or empty it"
    )]
    OtherIdentity {
        /// The state directory.
        path: PathBuf,
        /// The identity in the directory.
        found: SpiffeId,
        /// The identity in the token.
        wanted: SpiffeId,
    },
    /// A file of the state directory is not what it should be.
    #[error("{path} is damaged ({reason}): empty the state directory and give a new join token")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        reason: String,
    },
    /// The CA sent an unusable certificate.
    #[error("the CA sent a certificate that is not usable: {0}")]
    Answer(String),
    /// The CA does not answer; only from [`Agent::renew_if_due`], and if patience is limited.
    #[error("{0}")]
    Unreachable(String),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// No key could be made; not expected.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
}

/// The keeper of one identity. [`Agent::run`] is its life.
pub struct Agent {
    state: StateDirectory,
    credentials: Credentials,
    ca: CaAddresses,
    /// The identity in force, until the state directory has saved it.
    unsaved: Mutex<Option<Bought>>,
    status: Arc<Status>,
}

impl Agent {
    /// Returns with an identity that is valid now: from the state directory, or obtained from the CA. Waits,
    /// with back-off, while no CA answers, or until patience ends. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`AgentError`]; each of them is definitive.
    pub async fn start(settings: AgentSettings) -> Result<(Self, Credentials), AgentError> {
        let state = StateDirectory::open(&settings.state_dir)?;
        let token = settings.join_token;
        let wait = Wait {
            told: settings.waiting,
            patience: settings.patience,
        };
        let stored = match state.load() {
            Err(error @ AgentError::Damaged { .. }) if token.is_some() => {
                tracing::warn!(%error, "joining anew");
                None
            }
            other => other?,
        };
        let agent = match (stored, token) {
            (None, None) => return Err(AgentError::NoToken(settings.state_dir)),
            (None, Some(token)) => Self::join(state, &token, &wait).await?,
            (Some(stored), token) => {
                if let Some(token) = &token {
                    check_identity(&settings.state_dir, &stored, token)?;
                }
                Self::resume(state, stored, token, settings.state_dir, &wait).await?
            }
        };
        let credentials = agent.credentials.clone();
        Ok((agent, credentials))
    }

    /// The identity of this process.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        self.credentials.svid().id().clone()
    }

    /// `HOST:PORT` of each CA that this process knows.
    #[must_use]
    pub fn ca_addresses(&self) -> &[String] {
        &self.ca.addresses
    }

    /// The counters.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        AgentStatus {
            status: self.status.clone(),
            credentials: self.credentials.clone(),
        }
    }

    /// Renews until `shutdown`. Failures never end it: the identity in force goes on to its end, and later
    /// attempts may succeed.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut rng = rand::rng();
        let mut renewal = Renewal::new(Instant::now(), self.life(), &mut rng);
        let mut last_failure = String::new();
        loop {
            let check = match self.has_unsaved() {
                true => SAVE_INTERVAL,
                false => WALL_CHECK_INTERVAL,
            };
            let check = Instant::now() + check;
            let wake = renewal.poll_timeout().map_or(check, |due| due.min(check));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep_until(wake.into()) => {}
            }
            self.save_again();
            let now = Instant::now();
            renewal.handle_wall_clock(now, self.life().left, &mut rng);
            let Some(Action::Renew) = renewal.handle_timeout(now) else {
                continue;
            };
            let result = tokio::select! {
                () = shutdown.cancelled() => return,
                result = self.renew() => result,
            };
            let now = Instant::now();
            match result {
                Ok(()) => {
                    renewal.handle_renewed(now, self.life(), &mut rng);
                    self.status.alarm.store(false, Ordering::Relaxed);
                    last_failure.clear();
                }
                Err(error) => {
                    let urgency = renewal.handle_failure(now, &mut rng);
                    self.report_failure(&error, urgency, renewal.left(now), &mut last_failure);
                }
            }
        }
    }

    /// For short-lived commands: one attempt to renew if two thirds of the life are over, or if less than
    /// `needed` is left, because a connection ends with its certificate. Returns whether it renewed, after
    /// `patience` at the latest.
    ///
    /// # Errors
    /// See [`AgentError`]; the identity in force stays.
    pub async fn renew_if_due(
        &self,
        needed: Duration,
        patience: Duration,
    ) -> Result<bool, AgentError> {
        let life = self.life();
        if life.left > life.total.mul_f64(1.0 - RENEWAL_AT).max(needed) {
            return Ok(false);
        }
        timeout(patience, self.renew())
            .await
            .unwrap_or_else(|_| Err(no_answer(patience)))?;
        Ok(true)
    }

    async fn join(
        state: StateDirectory,
        token: &JoinToken,
        wait: &Wait,
    ) -> Result<Self, AgentError> {
        let ca = CaAddresses {
            trust_domain: token.identity.trust_domain().clone(),
            addresses: token.addresses.clone(),
        };
        let proof = RequestProof::Token {
            anchor: token.anchor,
            secret: &token.secret,
        };
        let attempt = || buy(&state, &ca, &proof, &token.identity);
        let bought = patiently(attempt, wait).await?;
        let credentials = credentials(&bought, &ca)?;
        if !credentials.bundle().fingerprints().contains(&token.anchor) {
            return Err(AgentError::Answer(
                "its bundle lacks the root that the token names".to_owned(),
            ));
        }
        let agent = Self::new(state, credentials, ca);
        agent.save(bought);
        tracing::info!(identity = %token.identity, "joined the mesh");
        Ok(agent)
    }

    async fn resume(
        state: StateDirectory,
        stored: Stored,
        token: Option<JoinToken>,
        path: PathBuf,
        wait: &Wait,
    ) -> Result<Self, AgentError> {
        let not_after = stored.svid.not_after();
        let mut ca = stored.ca;
        if let Some(token) = &token
            && let Err(error) = learn_addresses(&state, &mut ca, token, &stored.bundle)
        {
            tracing::warn!(%error, "the CA's addresses of the join token hold until this process ends");
        }
        let id = stored.svid.id().clone();
        let credentials =
            Credentials::new(stored.svid, stored.bundle).map_err(|error| AgentError::Damaged {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        let agent = Self::new(state, credentials, ca);
        if SystemTime::now() < not_after {
            tracing::info!(identity = %id, "took up the identity of the state directory");
            return Ok(agent);
        }
        // The CA decides how long an expired identity may be renewed.
        tracing::warn!(identity = %id, not_after = unix_seconds(not_after), "the identity has expired and must be renewed first");
        match patiently(|| agent.renew(), wait).await {
            Ok(()) => Ok(agent),
            Err(error @ AgentError::Refused { .. }) => match token {
                Some(token) => {
                    tracing::warn!(%error, "joining anew");
                    Self::join(agent.state, &token, wait).await
                }
                None => Err(AgentError::Expired {
                    path,
                    reason: error.to_string(),
                }),
            },
            Err(AgentError::Unreachable(reason)) => Err(AgentError::Unreachable(format!(
                "the identity in {} has expired, and only the CA can renew it: {reason}",
                path.display()
            ))),
            Err(error) => Err(error),
        }
    }

    /// One attempt to obtain the next certificate and put it in force.
    async fn renew(&self) -> Result<(), AgentError> {
        let identity = self.id();
        let proof = RequestProof::Svid(&self.credentials);
        let bought = buy(&self.state, &self.ca, &proof, &identity).await?;
        // Checks that the chain leads to the bundle, before anything on disk changes.
        let new = credentials(&bought, &self.ca)?.svid();
        let (svid, bundle) = pair(&bought, &self.ca)?;
        // The disk comes first: a process that crashes after using the new certificate must find it again.
        self.save(bought);
        self.credentials.replace(svid, bundle).map_err(unusable)?;
        self.status.renewals.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%identity, not_after = unix_seconds(new.not_after()), "renewed the identity");
        Ok(())
    }

    fn new(state: StateDirectory, credentials: Credentials, ca: CaAddresses) -> Self {
        Self {
            state,
            credentials,
            ca,
            unsaved: Mutex::default(),
            status: Arc::default(),
        }
    }

    /// Writes a new identity to disk. One that cannot be written is used all the same, and kept for
    /// [`Self::save_again`]: a full disk is no outage.
    fn save(&self, bought: Bought) {
        let Err(error) = self.state.save(&bought, &self.ca) else {
            return self.set_unsaved(None, String::new());
        };
        tracing::error!(
            %error,
            "the new identity is used from memory: the state directory did not take it; a restart goes back to the identity on disk"
        );
        self.set_unsaved(Some(bought), error.to_string());
    }

    fn save_again(&self) {
        let unsaved = weft_transport::locks::lock(&self.unsaved);
        let Some(bought) = unsaved.as_ref() else {
            return;
        };
        match self.state.save(bought, &self.ca) {
            Ok(()) => {
                drop(unsaved);
                tracing::info!("the identity that was used from memory is on disk");
                self.set_unsaved(None, String::new());
            }
            Err(error) => tracing::debug!(%error, "the identity is still not on disk"),
        }
    }

    fn has_unsaved(&self) -> bool {
        let unsaved = weft_transport::locks::lock(&self.unsaved);
        unsaved.is_some()
    }

    fn set_unsaved(&self, bought: Option<Bought>, reason: String) {
        *weft_transport::locks::lock(&self.unsaved) = bought;
        self.status.set_unsaved(reason);
    }

    fn life(&self) -> Life {
        let svid = self.credentials.svid();
        let left = svid
            .not_after()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        let whole = svid
            .not_after()
            .duration_since(svid.not_before())
            .unwrap_or_default();
        // The time before the issue does not count as life: a certificate of a minute has a minute.
        Life {
            total: whole.saturating_sub(NOT_BEFORE_SLACK).max(left),
            left,
        }
    }

    fn report_failure(
        &self,
        error: &AgentError,
        urgency: Urgency,
        left: Duration,
        last: &mut String,
    ) {
        self.status.failures.fetch_add(1, Ordering::Relaxed);
        let left = left.as_secs();
        match urgency {
            Urgency::Alarm => {
                self.status.alarm.store(true, Ordering::Relaxed);
                tracing::warn!(%error, seconds_left = left, "cannot renew the identity, and a third of its life is left");
            }
            Urgency::Expired => {
                self.status.alarm.store(true, Ordering::Relaxed);
                tracing::error!(%error, "the identity has expired");
            }
            Urgency::Calm => {
                let text = error.to_string();
                // One line per reason, not per attempt.
                if text == *last {
                    tracing::debug!(%error, "cannot renew the identity yet");
                } else {
                    tracing::warn!(%error, seconds_left = left, "cannot renew the identity yet");
                    *last = text;
                }
            }
        }
    }
}

/// The new certificate, in the transport's form. Checks that the chain leads to the bundle.
fn credentials(bought: &Bought, ca: &CaAddresses) -> Result<Credentials, AgentError> {
    let (svid, bundle) = pair(bought, ca)?;
    Credentials::new(svid, bundle).map_err(unusable)
}

fn pair(bought: &Bought, ca: &CaAddresses) -> Result<(Svid, TrustBundle), AgentError> {
    let unusable = |error: &dyn std::error::Error| AgentError::Answer(error.to_string());
    let svid = bought.svid().map_err(|error| unusable(&error))?;
    let bundle = bought.bundle(&ca.trust_domain);
    Ok((svid, bundle.map_err(|error| unusable(&error))?))
}

fn unusable(error: CredentialsError) -> AgentError {
    AgentError::Answer(error.to_string())
}

/// A token beside a stored identity must be for the same identity: otherwise two directories were confused.
fn check_identity(path: &Path, stored: &Stored, token: &JoinToken) -> Result<(), AgentError> {
    if stored.svid.id() == &token.identity {
        return Ok(());
    }
    Err(AgentError::OtherIdentity {
        path: path.to_owned(),
        found: stored.svid.id().clone(),
        wanted: token.identity.clone(),
    })
}

/// The addresses of the CA that an agent with this state directory knows; none before it has joined.
pub fn saved_ca_addresses(state_dir: &Path) -> Vec<String> {
    let saved = state::saved_ca(state_dir);
    saved.map(|ca| ca.addresses).unwrap_or_default()
}

/// The identity in a state directory, and when it ends; none before its owner has joined.
#[must_use]
pub fn saved_identity(state_dir: &Path) -> Option<(SpiffeId, SystemTime)> {
    let stored = StateDirectory::look(state_dir).load().ok()??;
    Some((stored.svid.id().clone(), stored.svid.not_after()))
}

/// A token for the same CA may know newer addresses of it.
fn learn_addresses(
    state: &StateDirectory,
    ca: &mut CaAddresses,
    token: &JoinToken,
    bundle: &TrustBundle,
) -> Result<(), AgentError> {
    if !bundle.fingerprints().contains(&token.anchor) {
        tracing::warn!(
            root = %token.anchor, identity = %token.identity,
            "the state directory holds an identity of another mesh than the join token's, which names this root: the token is ignored; empty the directory to join its mesh"
        );
        return Ok(());
    }
    let mut addresses = token.addresses.clone();
    addresses.extend(
        ca.addresses
            .iter()
            .filter(|known| !token.addresses.contains(known))
            .cloned(),
    );
    addresses.truncate(ADDRESSES_MAX);
    if addresses != ca.addresses {
        ca.addresses = addresses;
        state.write_ca(ca)?;
    }
    Ok(())
}
