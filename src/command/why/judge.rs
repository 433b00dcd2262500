//! What sidecars saw of one request, put together: who failed first, in which way, and what to do. Pure.

use jiff::Timestamp;
use serde::Serialize;
use weft_config::operator::{CallSeen, SidecarCall};

use super::causes::{self, By, Cause};

/// Why a request failed or was slow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    /// Its `x-request-id`; empty if it had none.
    pub request_id: String,
    /// The documented word of the cause.
    pub cause: &'static str,
    /// What happened, in a sentence.
    pub sentence: String,
    /// What to do about it.
    pub todo: &'static str,
    /// When it ended, in RFC 3339.
    pub time: String,
    /// Who called.
    pub from: String,
    /// What was called, where it failed.
    pub to: String,
    /// The request's method and path.
    pub request: String,
    /// The status that the first caller got; 0 if none.
    pub status: u16,
    /// How long it took there, in milliseconds.
    pub duration_ms: f64,
    /// What the resources say that decided: a policy or a rule of a route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decided_by: Vec<String>,
    /// Why it was not sent once more, although such failures are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_retried: Option<String>,
    /// The attempts of the caller's sidecar where it failed.
    pub attempts: Vec<Tried>,
    /// What each sidecar on its way saw, the first caller's first.
    pub seen: Vec<SidecarCall>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// The endpoint that was asked; empty if there was none.
    pub endpoint: String,
    /// From the request's head to its begin, in milliseconds.
    pub at_ms: f64,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
    /// The part that took longest: pick, dial, stream or head.
    pub longest: &'static str,
    /// A status, or an error type of RFC 9209.
    pub outcome: String,
}

/// A call between two sidecars, as one or both of them saw it.
enum Hop<'a> {
    Caller(&'a SidecarCall),
    Service(&'a SidecarCall),
    Both {
        caller: &'a SidecarCall,
        service: &'a SidecarCall,
    },
}

/// Puts together what sidecars saw of one request. None if none saw it.
pub fn judge(seen: &[SidecarCall]) -> Option<Why> {
    let hops = hops(seen);
    let first = hops.first()?;
    // What failed deepest is why the rest did.
    let failed = hops.iter().rev().find(|hop| hop.is_failed());
    let hop = failed.unwrap_or(first);
    let (cause, told) = hop.cause();
    let (shown, place) = (first.nearest(), hop.nearest());
    let to = named(&place.call.destination, &place.call.authority);
    let mut why = Why {
        request_id: shown.call.request_id.clone().unwrap_or_default(),
        cause: cause.word,
        sentence: sentence(&to, cause, told),
        todo: cause.todo,
        time: shown.call.time.clone(),
        from: named(
            &place.call.source,
            place
                .call
                .source_address
                .as_deref()
                .unwrap_or("an unknown caller"),
        ),
        to,
        request: format!("{} {}", shown.call.method, shown.call.path),
        status: shown.call.status,
        duration_ms: shown.call.duration_ms,
        decided_by: Vec::new(),
        not_retried: None,
        attempts: Vec::new(),
        seen: Vec::new(),
    };
    why.decided_by.extend(told.policy.clone());
    if !place.call.route.is_empty() {
        why.decided_by.push(place.call.route.clone());
    }
    if let Hop::Caller(caller) | Hop::Both { caller, .. } = hop {
        why.not_retried.clone_from(&caller.call.not_retried);
        why.attempts = caller.call.tried.iter().map(tried).collect();
    }
    why.seen = hops.iter().flat_map(Hop::seen).cloned().collect();
    Some(why)
}

/// The calls in their order: each service that was called calls the next ones.
fn hops(seen: &[SidecarCall]) -> Vec<Hop<'_>> {
    let is_outbound = |call: &&SidecarCall| call.call.direction == "outbound";
    let mut outbound: Vec<_> = seen.iter().filter(is_outbound).collect();
    let mut inbound: Vec<_> = seen.iter().filter(|call| !is_outbound(call)).collect();
    // Later ends are nearer to the first caller.
    outbound.sort_by_key(|one| std::cmp::Reverse(ended(&one.call)));
    let mut hops = Vec::new();
    for caller in outbound {
        let is_other_end = |one: &&SidecarCall| {
            one.call.source == caller.call.source && one.call.destination == caller.call.destination
        };
        // Of several attempts the one that counted ended last.
        let mut ends: Vec<_> = inbound.iter().copied().filter(is_other_end).collect();
        ends.sort_by_key(|one| ended(&one.call));
        inbound.retain(|one| !is_other_end(one));
        hops.push(match ends.pop() {
            Some(service) => Hop::Both { caller, service },
            None => Hop::Caller(caller),
        });
    }
    hops.extend(inbound.into_iter().map(Hop::Service));
    // One that is called by a service that was called itself comes after it.
    hops.sort_by_key(|hop| hop_depth(seen, &hop.nearest().call.source, 0));
    hops
}

/// When it ended, if it says so.
pub(super) fn ended(call: &CallSeen) -> Option<Timestamp> {
    call.time.parse().ok()
}

/// How many calls lie before those of this identity.
fn hop_depth(seen: &[SidecarCall], source: &str, depth: usize) -> usize {
    let called = seen.iter().find(|one| {
        one.call.direction == "inbound" && one.sidecar == source && one.call.source != source
    });
    match called {
        // A circle ends somewhere.
        Some(call) if depth < seen.len() => hop_depth(seen, &call.call.source, depth + 1),
        Some(_) | None => depth,
    }
}

impl<'a> Hop<'a> {
    /// The sidecar that is nearest to the first caller.
    fn nearest(&self) -> &'a SidecarCall {
        match self {
            Hop::Caller(one) | Hop::Service(one) | Hop::Both { caller: one, .. } => one,
        }
    }

    /// What was seen, the caller's first.
    fn seen(&self) -> impl Iterator<Item = &'a SidecarCall> + use<'a> {
        let (first, second) = match self {
            Hop::Caller(one) | Hop::Service(one) => (*one, None),
            Hop::Both { caller, service } => (*caller, Some(*service)),
        };
        std::iter::once(first).chain(second)
    }

    fn is_failed(&self) -> bool {
        self.seen().any(|one| is_failed(&one.call))
    }

    /// The cause, and the words of the sidecar that knows it best.
    fn cause(&self) -> (Cause, &'a CallSeen) {
        match self {
            // The service's sidecar was still waiting for its application.
            Hop::Both { caller, service }
                if is_late(&caller.call) && is_given_up(&service.call) =>
            {
                (causes::APPLICATION_SLOW, &caller.call)
            }
            Hop::Service(service) | Hop::Both { service, .. } if service.call.reason.is_some() => {
                (causes::of(By::Service, &service.call), &service.call)
            }
            Hop::Caller(caller) | Hop::Both { caller, .. } if caller.call.reason.is_some() => {
                let told = caller.call.details.as_deref().unwrap_or_default();
                let by = match told.starts_with(FAR_SIDE) {
                    true => By::Service,
                    false => By::Caller,
                };
                (causes::of(by, &caller.call), &caller.call)
            }
            Hop::Caller(one) | Hop::Service(one) | Hop::Both { caller: one, .. } => {
                let cause = match is_failed(&one.call) {
                    true => causes::APPLICATION_ERROR,
                    false => of_slow(&one.call),
                };
                (cause, &one.call)
            }
        }
    }
}

/// How the caller's sidecar marks what the far one answered.
const FAR_SIDE: &str = "the far sidecar:";

fn is_failed(call: &CallSeen) -> bool {
    call.error.is_some() || call.status >= 500 || call.grpc_status.is_some_and(|code| code != 0)
}

fn is_late(call: &CallSeen) -> bool {
    matches!(
        call.reason.as_deref(),
        Some("deadline" | "response_timeout")
    )
}

fn is_given_up(call: &CallSeen) -> bool {
    matches!(
        call.reason.as_deref(),
        Some("deadline" | "response_timeout" | "caller_gone")
    )
}

/// Whose time it was.
fn of_slow(call: &CallSeen) -> Cause {
    match (call.application_ms, call.mesh_ms) {
        (Some(application), Some(mesh)) if application >= mesh => causes::APPLICATION_SLOW,
        (Some(_), Some(_)) => causes::MESH_SLOW,
        (_, _) => causes::QUICK,
    }
}

fn sentence(to: &str, cause: Cause, told: &CallSeen) -> String {
    let details = told.details.as_deref().unwrap_or_default();
    let details = details.strip_prefix(FAR_SIDE).unwrap_or(details).trim();
    let policy = told
        .policy
        .as_ref()
        .map(|policy| format!(" by {policy}"))
        .unwrap_or_default();
    let details = match details {
        "" => String::new(),
        details => format!(" ({details})"),
    };
    format!("{to} {}{policy}{details}.", cause.what)
}

/// A name, or what stands for it.
fn named(name: &str, otherwise: &str) -> String {
    match name {
        "" => otherwise.to_owned(),
        name => name.to_owned(),
    }
}

fn tried(attempt: &weft_config::operator::AttemptSeen) -> Tried {
    let parts = [
        ("pick", Some(attempt.pick_ms)),
        ("dial", attempt.dial_ms),
        ("stream", attempt.stream_ms),
        ("head", attempt.head_ms),
    ];
    let parts = parts
        .into_iter()
        .filter_map(|(name, took)| Some((name, took?)));
    let longest = parts.clone().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let status = attempt.status.map(|status| format!("status {status}"));
    Tried {
        endpoint: attempt.endpoint.clone().unwrap_or_default(),
        at_ms: attempt.at_ms,
        took_ms: parts.map(|(_, took)| took).sum(),
        longest: longest.map_or("pick", |(name, _)| name),
        outcome: attempt
            .error
            .clone()
            .or(status)
            .unwrap_or_else(|| "given up".to_owned()),
    }
}

#[cfg(test)]
mod tests;
