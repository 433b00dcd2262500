//! The answers of the config service to operators, and the client that asks for them. The types travel as
//! JSON; `-o json` prints the same.

mod recent;
mod stat;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use weft_transport::credentials::Credentials;
use weft_transport::identity::SpiffeId;

pub use self::recent::{AttemptSeen, CallSeen, RecentCalls, SidecarCall};
pub use self::stat::{Grouping, Security, Stat, StatRequest, StatRow};
pub use crate::connect::ConnectError;
use crate::connect::connect;
use crate::diff;
use crate::findings::Findings;
use crate::last_heard::LastHeard;
use crate::limits;
use crate::proto::{self, operator_client::OperatorClient};
use crate::resources::{InvalidRules, Key, Kind, Resource, SourceFile};
use crate::signals::RecentFilter;
use crate::status::ParentStatus;
use crate::store::RevisionInfo;
use crate::table::{Revision, ServiceName, Withheld};

/// The effect of a change, made or only checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeResult {
    /// The findings of validation.
    pub findings: Findings,
    /// The differences from the revision in force before.
    pub changes: Vec<diff::Change>,
    /// The new revision; absent if there were errors, nothing to change, or it was a dry run.
    pub revision: Option<Revision>,
    /// The sidecars that are there, and whether they run the new revision.
    pub sidecars: Vec<SidecarState>,
    /// The service started less than a lease ago and does not know yet whether there are more.
    #[serde(default)]
    pub settling: bool,
    /// Revisions that others made since the one rolled back to.
    #[serde(default)]
    pub overwritten: Vec<RevisionInfo>,
    /// What becomes of the routes that the files name.
    #[serde(default)]
    pub routes: Vec<RouteJudged>,
}

/// What the mesh makes of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteJudged {
    /// Such as `HTTPRoute/shop/orders-split`.
    pub resource: String,
    /// What each of its parents makes of it.
    pub parents: Vec<ParentStatus>,
}

/// One sidecar and a revision. Neither acknowledged nor refused means that it lags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarState {
    /// Its identity.
    pub identity: SpiffeId,
    /// Which process.
    pub instance: String,
    /// It runs the revision or a later one.
    pub acknowledged: bool,
    /// Why it does not run it.
    pub refusal: Option<String>,
    /// Its stream broke less than a lease ago: it may run its last table, and knows of no later change.
    #[serde(default)]
    pub lost: bool,
    /// The parts of its table that are missing because it does not support them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
}

/// All that is known of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SidecarInfo {
    /// Its identity.
    pub identity: SpiffeId,
    /// Which process.
    pub instance: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// Where other sidecars reach it.
    pub address: Option<SocketAddr>,
    /// Its version of weft.
    pub version: String,
    /// Services that its outbound listeners name.
    pub listens_for: Vec<ServiceName>,
    /// `orders.shop:80` and whether its application is healthy; only what it is registered for.
    pub serves: BTreeMap<String, bool>,
    /// `orders.shop:80` and why it is not registered, although the sidecar serves it.
    #[serde(default)]
    pub problems: BTreeMap<String, String>,
    /// The revision that it runs.
    pub revision: Option<Revision>,
    /// Why it refused the last one.
    pub refusal: Option<String>,
    /// The features of tables that it supports, by the names of [`crate::table::Feature`].
    #[serde(default)]
    pub features: Vec<String>,
    /// The parts of its table that are missing because it does not support them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<Withheld>,
    /// End of its SVID, in RFC 3339.
    pub svid_expires: String,
    /// When it last reported, in RFC 3339.
    pub last_seen: String,
}

/// How a change is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// Why, for the history.
    pub message: String,
    /// How long to wait for acknowledgements.
    pub wait: Duration,
    /// Only say what would change.
    pub dry_run: bool,
    /// Applying deletes resources that the files lack in these namespaces.
    pub prune: Vec<String>,
    /// What becomes of rules that are not valid, when files are applied.
    pub invalid_rules: InvalidRules,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The config service was not reached: retrying may help.
    #[error(transparent)]
    Unreachable(#[from] ConnectError),
    /// This identity may not do that.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// The request names something that does not exist, or is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The named resource or revision does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The config service failed.
    #[error("the config service failed: {0}")]
    Failed(String),
}

/// Calls the config service as an operator.
#[derive(Clone, Debug)]
pub struct Operator {
    client: OperatorClient<Channel>,
    /// The connection ends then, with the certificate that opened it.
    ends: SystemTime,
}

impl Operator {
    /// Connects to the first of `addresses` (`HOST:PORT`) that answers and proves to be the config service of
    /// the mesh.
    ///
    /// # Errors
    /// When none does.
    pub async fn connect(
        addresses: &[String],
        credentials: &Credentials,
    ) -> Result<Self, OperatorError> {
        let ends = credentials.svid().not_after();
        let channel = connect(addresses, credentials, &LastHeard::default()).await?;
        let client = OperatorClient::new(channel)
            .max_decoding_message_size(limits::TABLE_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::OPERATOR_MESSAGE_BYTES_MAX);
        Ok(Self { client, ends })
    }

    /// The findings and changes that applying the files would give.
    ///
    /// # Errors
    /// When the call fails; findings are no failure.
    pub async fn diff(
        &mut self,
        files: &[SourceFile],
        invalid_rules: InvalidRules,
    ) -> Result<ChangeResult, OperatorError> {
        let files = proto::Files {
            files: sources(files),
            drop_invalid_rules: invalid_rules == InvalidRules::Drop,
        };
        read(self.client.diff(files).await)
    }

    /// As [`Self::diff`]: validates the files together with the resources in force.
    ///
    /// # Errors
    /// When the call fails; findings are no failure.
    pub async fn validate(&mut self, files: &[SourceFile]) -> Result<ChangeResult, OperatorError> {
        read(
            self.client
                .validate(proto::Files {
                    files: sources(files),
                    drop_invalid_rules: false,
                })
                .await,
        )
    }

    /// Applies the files as one revision.
    ///
    /// # Errors
    /// When the call fails; findings are no failure, but then there is no revision.
    pub async fn apply(
        &mut self,
        files: &[SourceFile],
        options: &ChangeOptions,
    ) -> Result<ChangeResult, OperatorError> {
        let request = proto::ApplyRequest {
            files: sources(files),
            change: Some(self.change(options)),
            prune_namespaces: options.prune.clone(),
            drop_invalid_rules: options.invalid_rules == InvalidRules::Drop,
        };
        read(self.client.apply(request).await)
    }

    /// Deletes resources as one revision.
    ///
    /// # Errors
    /// When the call fails or one does not exist.
    pub async fn delete(
        &mut self,
        keys: &[Key],
        options: &ChangeOptions,
    ) -> Result<ChangeResult, OperatorError> {
        let keys = keys.iter().map(ToString::to_string).collect();
        read(
            self.client
                .delete(proto::DeleteRequest {
                    keys,
                    change: Some(self.change(options)),
                })
                .await,
        )
    }

    /// Makes the resources of an earlier revision a new one.
    ///
    /// # Errors
    /// When the call fails or there is no such revision.
    pub async fn rollback(
        &mut self,
        number: u64,
        options: &ChangeOptions,
    ) -> Result<ChangeResult, OperatorError> {
        read(
            self.client
                .rollback(proto::RollbackRequest {
                    number,
                    change: Some(self.change(options)),
                })
                .await,
        )
    }

    fn change(&self, options: &ChangeOptions) -> proto::Change {
        let left = self.ends.duration_since(SystemTime::now());
        let wait = wait(options.wait, left.unwrap_or_default());
        proto::Change {
            message: options.message.clone(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            dry_run: options.dry_run,
        }
    }

    /// Resources in force; `None` selects everything.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn get(
        &mut self,
        kind: Option<Kind>,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<Vec<Resource>, OperatorError> {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let kind = text(kind.map(Kind::as_str));
        let request = proto::GetRequest {
            kind,
            namespace: text(namespace),
            name: text(name),
            whole: true,
        };
        read(self.client.get(request).await)
    }

    /// All revisions, newest first.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn revisions(&mut self) -> Result<Vec<RevisionInfo>, OperatorError> {
        read(
            self.client
                .list_revisions(proto::ListRevisionsRequest {})
                .await,
        )
    }

    /// All sidecars that are or were connected.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn sidecars(&mut self) -> Result<Vec<SidecarInfo>, OperatorError> {
        read(
            self.client
                .list_sidecars(proto::ListSidecarsRequest {})
                .await,
        )
    }

    /// What sidecars keep of requests that failed or were slow.
    ///
    /// # Errors
    /// When the call fails; sidecars that do not answer are no failure.
    pub async fn recent(&mut self, wanted: &RecentFilter) -> Result<RecentCalls, OperatorError> {
        read(self.client.recent(proto::Recent::from(wanted)).await)
    }

    /// The calls in the mesh, as its sidecars told of them.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn stat(&mut self, request: &StatRequest) -> Result<Stat, OperatorError> {
        let json = serde_json::to_vec(request);
        let json = json.map_err(|error| OperatorError::Invalid(error.to_string()))?;
        read(self.client.stat(proto::StatRequest { json }).await)
    }
}

fn sources(files: &[SourceFile]) -> Vec<proto::File> {
    files
        .iter()
        .map(|file| proto::File {
            name: file.name.clone(),
            text: file.text.clone(),
        })
        .collect()
}

/// The wait that is asked for, limited to the life of the connection: a call that is cut off does not report
/// a change that was made.
fn wait(asked: Duration, left: Duration) -> Duration {
    asked.min(left.saturating_sub(limits::ANSWER_MARGIN))
}

fn read<T: DeserializeOwned>(
    reply: Result<tonic::Response<proto::Reply>, tonic::Status>,
) -> Result<T, OperatorError> {
    let reply = reply.map_err(|status| {
        let message = status.message().to_owned();
        match status.code() {
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
                OperatorError::NotPermitted(message)
            }
            tonic::Code::InvalidArgument | tonic::Code::OutOfRange => {
                OperatorError::Invalid(message)
            }
            tonic::Code::NotFound => OperatorError::NotFound(message),
            tonic::Code::Unavailable => OperatorError::Unreachable(ConnectError::Lost(message)),
            tonic::Code::Unimplemented => OperatorError::Failed(
                "it is older than this command, and does not know the call".to_owned(),
            ),
            tonic::Code::Ok
            | tonic::Code::Cancelled
            | tonic::Code::Unknown
            | tonic::Code::DeadlineExceeded
            | tonic::Code::AlreadyExists
            | tonic::Code::ResourceExhausted
            | tonic::Code::FailedPrecondition
            | tonic::Code::Aborted
            | tonic::Code::Internal
            | tonic::Code::DataLoss => OperatorError::Failed(message),
        }
    })?;
    serde_json::from_slice(&reply.into_inner().json)
        .map_err(|error| OperatorError::Failed(format!("its reply is not understood: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_no_longer_than_its_connection_lives() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(seconds(10), seconds(3600)), seconds(10));
        let cut = seconds(10) - limits::ANSWER_MARGIN;
        assert_eq!(wait(seconds(60), seconds(10)), cut);
        assert_eq!(wait(seconds(60), Duration::ZERO), Duration::ZERO);
    }
}
