//! The operators' calls. `access.rs` has checked before that an operator calls. Every change is validated as
//! a whole and written before a sidecar or an operator sees it. Steps that take long with large files run on
//! separate threads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::access::OperatorCall;
use super::state::ServerState;
use crate::diff::diff;
use crate::findings::Findings;
use crate::limits;
use crate::operator::{ChangeResult, RouteJudged};
use crate::proto::operator_server::Operator;
use crate::proto::{
    ApplyRequest, Change, DeleteRequest, File, Files, GetRequest, ListRevisionsRequest,
    ListSidecarsRequest, Recent, Reply, RollbackRequest, StatRequest,
};
use crate::resources::{
    InvalidRules, Key, Kind, Parsed, Resource, RouteStatus, Set, SourceFile, parse_with,
};
use crate::signals::RecentFilter;
use crate::status::{ParentStatus, route_statuses};
use crate::store::{RevisionInfo, StoreError};
use crate::table::Revision;
use crate::validate::validate;

pub(super) struct Operations {
    pub(super) state: Arc<ServerState>,
}

#[tonic::async_trait]
impl Operator for Operations {
    async fn validate(&self, request: Request<Files>) -> Result<Response<Reply>, Status> {
        self.look(request).await
    }

    async fn diff(&self, request: Request<Files>) -> Result<Response<Reply>, Status> {
        self.look(request).await
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<Reply>, Status> {
        let call = OperatorCall::of(&request)?;
        let ApplyRequest {
            files,
            change,
            prune_namespaces,
            drop_invalid_rules,
        } = request.into_inner();
        let rules = InvalidRules::dropped_if(drop_invalid_rules);
        let writing = self.state.writing.lock().await;
        let planned = self
            .plan(move |state| with_files(state, files, rules, &prune_namespaces))
            .await?;
        self.change(planned, &call, change, writing).await
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<Reply>, Status> {
        let call = OperatorCall::of(&request)?;
        let DeleteRequest { keys, change } = request.into_inner();
        let writing = self.state.writing.lock().await;
        let planned = self.plan(move |state| without(state, &keys)).await?;
        self.change(planned, &call, change, writing).await
    }

    async fn rollback(&self, request: Request<RollbackRequest>) -> Result<Response<Reply>, Status> {
        let call = OperatorCall::of(&request)?;
        let RollbackRequest { number, change } = request.into_inner();
        let mut change = change.unwrap_or_default();
        if change.message.is_empty() {
            change.message = format!("rollback to {number}");
        }
        let author = call.author().to_owned();
        let writing = self.state.writing.lock().await;
        let planned = self
            .plan(move |state| {
                let mut next = state.store.set_at(number).map_err(|error| failed(&error))?;
                go_on(state, &mut next);
                let revisions = state.store.revisions().map_err(|error| failed(&error))?;
                let mut result = check(state, &next, &Parsed::default());
                let others = |info: &RevisionInfo| info.number > number && info.author != author;
                result.overwritten = revisions.into_iter().filter(others).collect();
                Ok(Planned { next, result })
            })
            .await?;
        self.change(planned, &call, Some(change), writing).await
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Reply>, Status> {
        let _call = OperatorCall::of(&request)?;
        let GetRequest {
            kind,
            namespace,
            name,
            whole,
        } = request.into_inner();
        let kind: Option<Kind> = match kind.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|error: crate::resources::KeyError| {
                Status::invalid_argument(error.to_string())
            })?),
        };
        self.blocking(move |state| {
            let wanted = |key: &Key| {
                kind.is_none_or(|kind| kind == key.kind)
                    && (namespace.is_empty() || namespace == key.namespace)
                    && (name.is_empty() || name == key.name)
            };
            let (_, set) = state.current();
            let shows_routes = set
                .resources
                .keys()
                .any(|key| key.kind.is_route() && wanted(key));
            let mut statuses = match whole && shows_routes {
                true => route_statuses(&set),
                false => BTreeMap::new(),
            };
            let found = set.resources.iter().filter(|(key, _)| wanted(key));
            let found: Vec<Resource> = found
                .map(|(key, resource)| match whole {
                    true => with_status(statuses.remove(key), resource.clone()),
                    false => without_life(resource.clone()),
                })
                .collect();
            reply(&found)
        })
        .await
    }

    async fn list_revisions(
        &self,
        request: Request<ListRevisionsRequest>,
    ) -> Result<Response<Reply>, Status> {
        let _call = OperatorCall::of(&request)?;
        self.blocking(|state| reply(&state.store.revisions().map_err(|error| failed(&error))?))
            .await
    }

    async fn list_sidecars(
        &self,
        request: Request<ListSidecarsRequest>,
    ) -> Result<Response<Reply>, Status> {
        let _call = OperatorCall::of(&request)?;
        self.blocking(|state| reply(&state.sidecars())).await
    }

    async fn recent(&self, request: Request<Recent>) -> Result<Response<Reply>, Status> {
        let call = OperatorCall::of(&request)?;
        let wanted = RecentFilter::from(request.into_inner());
        call.give_up();
        reply(&self.state.signals.recent(&wanted).await?)
    }

    async fn stat(&self, request: Request<StatRequest>) -> Result<Response<Reply>, Status> {
        let _call = OperatorCall::of(&request)?;
        let asked = serde_json::from_slice(&request.into_inner().json);
        let asked = asked.map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.blocking(move |state| {
            let (connected, declared) = state.callers();
            reply(
                &state
                    .signals
                    .stat(&asked, &declared, &connected, Instant::now()),
            )
        })
        .await
    }
}

/// The resources after a change, and the findings about it.
struct Planned {
    next: Set,
    result: ChangeResult,
}

impl Operations {
    /// The findings and changes that applying files would give.
    async fn look(&self, request: Request<Files>) -> Result<Response<Reply>, Status> {
        let _call = OperatorCall::of(&request)?;
        let Files {
            files,
            drop_invalid_rules,
        } = request.into_inner();
        let rules = InvalidRules::dropped_if(drop_invalid_rules);
        let planned = self
            .plan(move |state| with_files(state, files, rules, &[]))
            .await?;
        reply(&planned.result)
    }

    /// Plans a change, one at a time, so that the memory for large files is needed only once.
    async fn plan(
        &self,
        work: impl FnOnce(&ServerState) -> Result<Planned, Status> + Send + 'static,
    ) -> Result<Planned, Status> {
        let turn = Arc::clone(&self.state.planning).lock_owned().await;
        self.blocking(move |state| {
            // Held until the work is done, even if the caller has gone.
            let _turn = turn;
            work(state)
        })
        .await
    }

    /// Writes and publishes a change that has no errors, then waits for the sidecars, without delaying the
    /// next writer.
    async fn change(
        &self,
        planned: Planned,
        call: &OperatorCall,
        change: Option<Change>,
        writing: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Response<Reply>, Status> {
        let Planned { next, mut result } = planned;
        let change = change.unwrap_or_default();
        if result.findings.has_errors() || change.dry_run {
            return reply(&result);
        }
        if result.changes.is_empty() {
            // There is no change to write; but the caller wants to know that the revision in force has
            // reached all sidecars.
            drop((writing, next));
            call.give_up();
            let (revision, _) = self.state.current();
            return self.settle(result, &revision, &change).await;
        }
        if change.message.chars().count() > limits::MESSAGE_LENGTH_MAX {
            return Err(Status::invalid_argument("the message is too long"));
        }
        let (author, message) = (call.author().to_owned(), change.message.clone());
        let time = format!("{:.0}", jiff::Timestamp::now());
        let revision = self
            .blocking(move |state| {
                let written = state.store.write(&next, &author, &time, &message);
                let revision = written.map_err(|error| failed(&error))?;
                state.advance(revision.clone(), next);
                Ok(revision)
            })
            .await?;
        drop(writing);
        call.give_up();
        result.revision = Some(revision.clone());
        self.settle(result, &revision, &change).await
    }

    /// Waits until the sidecars have `revision`, and lists those that do not.
    async fn settle(
        &self,
        mut result: ChangeResult,
        revision: &Revision,
        change: &Change,
    ) -> Result<Response<Reply>, Status> {
        let wait = Duration::from_millis(change.wait_ms).min(limits::APPLY_WAIT_MAX);
        let settled = self.state.settle(revision, wait).await;
        result.sidecars = settled.sidecars;
        result.settling = settled.more_may_come;
        reply(&result)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ServerState) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let state = self.state.clone();
        tokio::task::spawn_blocking(move || work(&state))
            .await
            .map_err(|error| Status::internal(error.to_string()))?
    }
}

/// The set with the files' resources in it, without others of the namespaces to be pruned, and the findings
/// and changes of that.
fn with_files(
    state: &ServerState,
    files: Vec<File>,
    invalid_rules: InvalidRules,
    prune: &[String],
) -> Result<Planned, Status> {
    if prune.iter().any(String::is_empty) {
        return Err(Status::invalid_argument(
            "a namespace to prune has a name: what is in none is not pruned",
        ));
    }
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
    let parsed = parse_with(&files, invalid_rules);
    drop(files);
    let mut next = Set::clone(&state.current().1);
    if !prune.is_empty() {
        next.resources
            .retain(|key, _| !prune.contains(&key.namespace));
    }
    let before = next.mesh_configs().next().map(|(_, spec)| spec.clone());
    for resource in &parsed.resources {
        let mut resource = resource.clone();
        if let Resource::MeshConfig(object) = &mut resource {
            object.spec.complete(before.as_ref());
        }
        next.insert(resource);
    }
    go_on(state, &mut next);
    let mut result = check(state, &next, &parsed);
    if parsed.resources.iter().any(|one| one.kind().is_route()) {
        let mut statuses = route_statuses(&next);
        let keys = parsed.resources.iter().map(Resource::key);
        result.routes = keys
            .filter_map(|key| {
                let parents = statuses.remove(&key)?;
                let resource = key.to_string();
                Some(RouteJudged { resource, parents })
            })
            .collect();
    }
    Ok(Planned { next, result })
}

/// Lets the resources of a coming set go on with the lives of those in force. One that says the same is the
/// same.
fn go_on(state: &ServerState, next: &mut Set) {
    let (_, current) = state.current();
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default();
    for (key, resource) in &mut next.resources {
        let before = current.resources.get(key);
        let same_spec = before.is_some_and(|before| before.says_the_same(resource));
        let before = before.map(Resource::metadata);
        resource.metadata_mut().live(before, same_spec, now, uid);
    }
}

/// A random UUID (RFC 9562 section 5.4).
fn uid() -> String {
    let random: u128 = rand::random();
    let number = random & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let digits = format!("{number:032x}");
    let parts = [
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..],
    ];
    parts.join("-")
}

fn with_status(parents: Option<Vec<ParentStatus>>, mut resource: Resource) -> Resource {
    if let Some(parents) = parents {
        resource.show_status(RouteStatus { parents });
    }
    resource
}

/// For operators' commands of before resources had one.
fn without_life(mut resource: Resource) -> Resource {
    let metadata = resource.metadata_mut();
    (
        metadata.uid,
        metadata.creation_timestamp,
        metadata.generation,
    ) = (None, None, None);
    resource
}

/// The set without some resources.
fn without(state: &ServerState, keys: &[String]) -> Result<Planned, Status> {
    let mut next = Set::clone(&state.current().1);
    for text in keys {
        let key: Key = text.parse().map_err(|error: crate::resources::KeyError| {
            Status::invalid_argument(error.to_string())
        })?;
        if next.resources.remove(&key).is_none() {
            return Err(Status::not_found(format!("there is no {key}")));
        }
    }
    let result = check(state, &next, &Parsed::default());
    Ok(Planned { next, result })
}

fn check(state: &ServerState, next: &Set, parsed: &Parsed) -> ChangeResult {
    let mut findings: Findings = parsed.findings.clone();
    findings.extend(validate(next, Some(&state.trust_domain), parsed));
    findings.extend(state.registered_too(parsed));
    findings.sort();
    ChangeResult {
        findings,
        changes: diff(&state.current().1, next),
        revision: None,
        sidecars: Vec::new(),
        settling: false,
        overwritten: Vec::new(),
        routes: Vec::new(),
    }
}

fn failed(error: &StoreError) -> Status {
    match error {
        StoreError::NoRevision(_) => Status::not_found(error.to_string()),
        StoreError::Store(_) | StoreError::Unexpected(_) | StoreError::Backup(_) => {
            Status::internal(error.to_string())
        }
    }
}

fn reply<T: Serialize>(value: &T) -> Result<Response<Reply>, Status> {
    let json = serde_json::to_vec(value).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(Reply { json }))
}
