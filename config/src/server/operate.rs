//! The operators' calls. Every one checks the caller first; every change is validated as a whole and
//! written before anyone sees it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tonic::{Request, Response, Status};
use weft_transport::identity::PeerId;

use super::mesh::Mesh;
use crate::diff::diff;
use crate::findings::Findings;
use crate::limits;
use crate::operator::ChangeResult;
use crate::proto::operator_server::Operator;
use crate::proto::{
    ApplyRequest, Change, DeleteRequest, File, Files, GetRequest, ListRevisionsRequest,
    ListSidecarsRequest, Reply, RollbackRequest,
};
use crate::resources::{Key, Kind, Parsed, Resource, Set, SourceFile, parse};
use crate::store::{RevisionInfo, StoreError};
use crate::validate::{RESERVED_NAMESPACE, validate};

/// What the service account of an operator begins with.
const OPERATOR_PREFIX: &str = "operator-";

pub(super) struct Operations {
    pub(super) mesh: Arc<Mesh>,
}

#[tonic::async_trait]
impl Operator for Operations {
    async fn validate(&self, request: Request<Files>) -> Result<Response<Reply>, Status> {
        operator(&request)?;
        reply(&self.plan(request.into_inner().files)?.1)
    }

    async fn diff(&self, request: Request<Files>) -> Result<Response<Reply>, Status> {
        operator(&request)?;
        reply(&self.plan(request.into_inner().files)?.1)
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<Reply>, Status> {
        let author = operator(&request)?;
        let ApplyRequest { files, change } = request.into_inner();
        let writing = self.mesh.writing.lock().await;
        let (next, result) = self.plan(files)?;
        self.change(next, result, &author, change.unwrap_or_default(), writing)
            .await
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<Reply>, Status> {
        let author = operator(&request)?;
        let DeleteRequest { keys, change } = request.into_inner();
        let writing = self.mesh.writing.lock().await;
        let mut next = Set::clone(&self.mesh.current().1);
        for text in keys {
            let key: Key = text.parse().map_err(|error: crate::resources::KeyError| {
                Status::invalid_argument(error.to_string())
            })?;
            if next.resources.remove(&key).is_none() {
                return Err(Status::not_found(format!("there is no {key}")));
            }
        }
        let result = self.check(&next, &Parsed::default());
        self.change(next, result, &author, change.unwrap_or_default(), writing)
            .await
    }

    async fn rollback(&self, request: Request<RollbackRequest>) -> Result<Response<Reply>, Status> {
        let author = operator(&request)?;
        let RollbackRequest { number, change } = request.into_inner();
        let mut change = change.unwrap_or_default();
        if change.message.is_empty() {
            change.message = format!("rollback to {number}");
        }
        let writing = self.mesh.writing.lock().await;
        let (next, revisions) = self
            .blocking(move |mesh| Ok((mesh.store.set_at(number)?, mesh.store.revisions()?)))
            .await?;
        let mut result = self.check(&next, &Parsed::default());
        let others = |info: &RevisionInfo| info.number > number && info.author != author;
        result.overwritten = revisions.into_iter().filter(others).collect();
        self.change(next, result, &author, change, writing).await
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Reply>, Status> {
        operator(&request)?;
        let GetRequest {
            kind,
            namespace,
            name,
        } = request.into_inner();
        let kind: Option<Kind> = match kind.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|error: crate::resources::KeyError| {
                Status::invalid_argument(error.to_string())
            })?),
        };
        let wanted = |key: &Key| {
            kind.is_none_or(|kind| kind == key.kind)
                && (namespace.is_empty() || namespace == key.namespace)
                && (name.is_empty() || name == key.name)
        };
        let (_, set) = self.mesh.current();
        let found: Vec<&Resource> = set
            .resources
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(_, found)| found)
            .collect();
        reply(&found)
    }

    async fn list_revisions(
        &self,
        request: Request<ListRevisionsRequest>,
    ) -> Result<Response<Reply>, Status> {
        operator(&request)?;
        reply(&self.blocking(|mesh| mesh.store.revisions()).await?)
    }

    async fn list_sidecars(
        &self,
        request: Request<ListSidecarsRequest>,
    ) -> Result<Response<Reply>, Status> {
        operator(&request)?;
        reply(&self.mesh.sidecars())
    }
}

impl Operations {
    /// The set with the files' resources in it, and what that would find and change.
    fn plan(&self, files: Vec<File>) -> Result<(Set, ChangeResult), Status> {
        if files.len() > limits::RESOURCE_FILES_MAX {
            return Err(Status::invalid_argument("too many files"));
        }
        let files: Vec<SourceFile> = files
            .into_iter()
            .map(|file| SourceFile {
                name: file.name,
                text: file.text,
            })
            .collect();
        let parsed = parse(&files);
        let mut next = Set::clone(&self.mesh.current().1);
        for resource in &parsed.resources {
            next.insert(resource.clone());
        }
        let result = self.check(&next, &parsed);
        Ok((next, result))
    }

    fn check(&self, next: &Set, parsed: &Parsed) -> ChangeResult {
        let mut findings: Findings = parsed.findings.clone();
        findings.extend(validate(next, Some(&self.mesh.trust_domain), parsed));
        findings.sort();
        ChangeResult {
            findings,
            changes: diff(&self.mesh.current().1, next),
            revision: None,
            sidecars: Vec::new(),
            overwritten: Vec::new(),
        }
    }

    /// Writes and publishes a change that has no errors, then waits for the sidecars, without holding
    /// up the next writer.
    async fn change(
        &self,
        next: Set,
        mut result: ChangeResult,
        author: &str,
        change: Change,
        writing: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Response<Reply>, Status> {
        if result.findings.has_errors() || change.dry_run {
            return reply(&result);
        }
        if result.changes.is_empty() {
            // Nothing new to write; but the caller wants to know that what is in force is everywhere.
            drop(writing);
            let (revision, _) = self.mesh.current();
            result.sidecars = self.mesh.settle(&revision, wait(&change)).await;
            return reply(&result);
        }
        if change.message.chars().count() > limits::MESSAGE_LENGTH_MAX {
            return Err(Status::invalid_argument("the message is too long"));
        }
        let (author, message) = (author.to_owned(), change.message.clone());
        let set = next.clone();
        let time = format!("{:.0}", jiff::Timestamp::now());
        let revision = self
            .blocking(move |mesh| mesh.store.write(&set, &author, &time, &message))
            .await?;
        self.mesh.advance(revision.clone(), next);
        drop(writing);
        result.sidecars = self.mesh.settle(&revision, wait(&change)).await;
        result.revision = Some(revision);
        reply(&result)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mesh) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let mesh = self.mesh.clone();
        tokio::task::spawn_blocking(move || work(&mesh))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| match error {
                StoreError::NoRevision(_) => Status::not_found(error.to_string()),
                StoreError::InUse(_)
                | StoreError::Database(_)
                | StoreError::Damaged(_)
                | StoreError::Schema(_)
                | StoreError::Failed
                | StoreError::Exists(_)
                | StoreError::Backup(_) => Status::internal(error.to_string()),
            })
    }
}

fn wait(change: &Change) -> Duration {
    Duration::from_millis(change.wait_ms).min(limits::APPLY_WAIT_MAX)
}

/// The name of the operator who calls.
fn operator<T>(request: &Request<T>) -> Result<String, Status> {
    let peer: PeerId = super::peer(request)?;
    let name = peer
        .id()
        .workload()
        .filter(|workload| workload.namespace == RESERVED_NAMESPACE)
        .and_then(|workload| {
            workload
                .service_account
                .strip_prefix(OPERATOR_PREFIX)
                .map(str::to_owned)
        });
    name.ok_or_else(|| {
        tracing::warn!(peer = %peer.id(), "an operator's call by no operator was refused");
        Status::permission_denied(format!("{} is not an operator", peer.id()))
    })
}

fn reply<T: Serialize>(value: &T) -> Result<Response<Reply>, Status> {
    let json = serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(Reply { json }))
}
