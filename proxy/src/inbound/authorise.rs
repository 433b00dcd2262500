//! Decides which caller may have which request delivered. Pure, deny by default, and asked again whenever the
//! table changes.
//!
//! The proof of a positive decision is a [`Permit`]. Only this file can make one, and delivery takes it: no
//! other way leads to the application.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_config::table::{
    Action, Authorization, Default, PathCase, Rule, ServiceName, Table, folded,
};
use weft_transport::identity::SpiffeId;

use super::meant::Meant;
use super::served::ServedService;
use crate::directory::Leaving;
use crate::failure::{Failure, Reason};
use crate::http::path;

/// The right to deliver one request or tunnel to one application, or to one service outside of the mesh.
pub(crate) struct Permit {
    service: Arc<ServedService>,
    leaving: Option<Arc<Leaving>>,
}

impl Permit {
    /// The service to which it may be delivered, or through which it may be sent.
    pub(crate) fn service(&self) -> &Arc<ServedService> {
        &self.service
    }

    /// What is outside of the mesh, if it may be sent there, and to no application.
    pub(crate) fn leaving(&self) -> Option<&Arc<Leaving>> {
        self.leaving.as_ref()
    }
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// The proven identity of the caller; none of one that came without mutual TLS.
    pub(crate) caller: Option<&'a SpiffeId>,
    /// The addressed service if a route led here, as the caller states it.
    pub(crate) parent: Option<&'a ServiceName>,
    /// Method and path (without query); `None` for a tunnel.
    pub(crate) request: Option<(&'a str, &'a str)>,
}

impl Call<'_> {
    /// The caller in messages.
    fn whose(&self) -> &str {
        self.caller
            .map_or("a caller that proves no identity", SpiffeId::as_str)
    }
}

/// A decision, with the policies behind it.
pub(crate) struct Verdict<'t> {
    /// The answer.
    pub(crate) outcome: Result<Permit, Failure>,
    /// The policy that decided; none if the default did.
    pub(crate) policy: Option<&'t str>,
    /// Audit policies that the call matches.
    pub(crate) audited: Vec<&'t str>,
}

/// The policies behind a decision.
#[derive(Default)]
struct Grounds<'t> {
    policy: Option<&'t str>,
    audited: Vec<&'t str>,
}

/// Decides one call, before it is delivered and whenever the table changes while it runs. The policies of the
/// service and of the parent must both allow it. Those of what is outside of the mesh hold in place of those
/// of the service that it is sent through.
///
/// A parent that the table does not know adds nothing: a route was just made or removed, and the caller's
/// table is newer or older than this one. The caller may address the service directly, so the policies of the
/// service itself decide. Where only routes may lead to the service, such a call is refused.
pub(crate) fn authorise<'t>(
    table: Option<&'t Table>,
    meant: &Meant<'_>,
    call: &Call<'_>,
) -> Verdict<'t> {
    let mut grounds = Grounds::default();
    let outcome = judge(table, meant, call, &mut grounds);
    Verdict {
        outcome: outcome.map(|()| Permit {
            service: Arc::clone(meant.service),
            leaving: meant.leaving.clone(),
        }),
        policy: grounds.policy,
        audited: grounds.audited,
    }
}

fn judge<'t>(
    table: Option<&'t Table>,
    meant: &Meant<'_>,
    call: &Call<'_>,
    grounds: &mut Grounds<'t>,
) -> Result<(), Failure> {
    let Some(table) = table else {
        return Err(denied(
            "no table from the config service yet: all is denied",
        ));
    };
    let name = meant.name();
    if !meant.is_sent_by(table) {
        let through = &meant.service.label;
        let detail = format!("{name} is not sent through {through} any more");
        return Err(Failure::new(Reason::Denied, detail));
    }
    let Some(own) = authorization_of(table, name) else {
        // Strict: a service that no policy table mentions gets no delivery.
        let detail = format!("no policy table for {name} here");
        return Err(Failure::new(Reason::Denied, detail));
    };
    if call.caller.is_none() && !own.plaintext {
        return Err(unproven(name));
    }
    decide(own, name, call, grounds)?;
    if let Some(parent) = call.parent
        && let Some(authorization) = authorization_of(table, parent)
    {
        decide(authorization, parent, call, grounds)?;
    }
    Ok(())
}

fn authorization_of<'t>(table: &'t Table, name: &ServiceName) -> Option<&'t Authorization> {
    table.services.get(name)?.authorization.as_ref()
}

/// Whether calls of callers that prove no identity are judged at all: if not, why.
pub(crate) fn takes_plaintext(table: Option<&Table>, name: &ServiceName) -> Result<(), Failure> {
    let Some(table) = table else {
        return Err(denied(
            "no table from the config service yet: all is denied",
        ));
    };
    match authorization_of(table, name) {
        Some(authorization) if authorization.plaintext => Ok(()),
        Some(_) | None => Err(unproven(name)),
    }
}

fn unproven(name: &ServiceName) -> Failure {
    let detail = format!(
        "{name} takes only callers of the mesh (mutualTls: Strict): call it through a sidecar"
    );
    Failure::new(Reason::Denied, detail)
}

/// Whether the policies of one service would allow a call, and by which policy; for explanations, not for
/// delivery.
pub(crate) fn would_allow(
    table: &Table,
    name: &ServiceName,
    call: &Call<'_>,
) -> (Option<String>, Result<(), Failure>) {
    let Some(authorization) = authorization_of(table, name) else {
        return (None, Err(denied("no policy table for it")));
    };
    let mut grounds = Grounds::default();
    let outcome = decide(authorization, name, call, &mut grounds);
    let policy = match &outcome {
        Ok(()) => grounds.policy.map(str::to_owned),
        Err(failure) => failure.policy.as_deref().map(str::to_owned),
    };
    (policy, outcome)
}

fn decide<'t>(
    authorization: &'t Authorization,
    name: &ServiceName,
    call: &Call<'_>,
    grounds: &mut Grounds<'t>,
) -> Result<(), Failure> {
    if let Some(parents) = &authorization.parents
        && !is_led_by_route(name, call, parents)
    {
        return Err(Failure::new(
            Reason::Denied,
            format!("only routes lead to {name}: call the service that routes to it"),
        ));
    }
    if let Some((method, path)) = call.request {
        check_clarity(authorization, method, path)?;
    }
    let mut allowed_by = None;
    for rule in authorization
        .rules
        .iter()
        .filter(|rule| rule.matches(call.caller, call.request))
    {
        match rule.action {
            Action::Deny => {
                grounds.policy = Some(&rule.policy);
                let detail = format!(
                    "{} denies the call of {} to {name}",
                    rule.policy,
                    call.whose()
                );
                return Err(Failure::new(Reason::Denied, detail).by(grounds.policy));
            }
            Action::Allow => allowed_by = allowed_by.or(Some(rule.policy.as_str())),
            Action::Audit => grounds.audited.push(&rule.policy),
        }
    }
    grounds.policy = allowed_by;
    match (allowed_by, authorization.default) {
        (Some(_), _) | (None, Default::Allow) => Ok(()),
        (None, Default::Deny) => {
            let detail = format!("no policy allows the call of {} to {name}", call.whose());
            let allow = |rule: &&Rule| rule.action == Action::Allow;
            let near = authorization.rules.iter().find(allow);
            let failure = Failure::new(Reason::Denied, detail);
            Err(failure.by(near.map(|rule| rule.policy.as_str())))
        }
    }
}

/// Whether a route of one of `parents` led the call to `name`, as the caller states it. The policies of the
/// stated parent are judged, too.
fn is_led_by_route(name: &ServiceName, call: &Call<'_>, parents: &BTreeSet<ServiceName>) -> bool {
    call.parent
        .is_some_and(|parent| parent != name && parents.contains(parent))
}

/// Refuses requests that the application could read in another way than the rules do.
fn check_clarity(authorization: &Authorization, method: &str, path: &str) -> Result<(), Failure> {
    let rules = &authorization.rules;
    // Methods are case-sensitive (RFC 9110 section 9.1), and yet many frameworks take `delete` for DELETE.
    if method.bytes().any(|byte| byte.is_ascii_lowercase())
        && rules.iter().any(|rule| rule.methods.is_some())
    {
        return Err(denied(
            "method is not in upper case and a policy judges methods",
        ));
    }
    if rules.iter().all(|rule| rule.paths.is_none()) {
        return Ok(());
    }
    let case = authorization.path_case;
    path::check(path, case).map_err(|ambiguous| denied(ambiguous.describe()))?;
    if case == PathCase::Insensitive {
        let folded = folded(path);
        if !rules.iter().all(|rule| rule.ignores_case_of(path, &folded)) {
            return Err(denied(
                "path differs only in case from one that a policy judges",
            ));
        }
    }
    Ok(())
}

fn denied(detail: &'static str) -> Failure {
    Failure::new(Reason::Denied, detail)
}

#[cfg(test)]
mod tests;
