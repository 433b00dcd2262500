//! The causes that `weft why` names, each with what to do about it. Data, and what of a sidecar's words
//! belongs to which. Pure.

use weft_config::operator::CallSeen;

/// Why a request failed, or was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The documented word.
    pub word: &'static str,
    /// What happened, to follow a service's name.
    pub what: &'static str,
    /// What to do about it.
    pub todo: &'static str,
}

/// Which sidecar tells of the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// That of the caller.
    Caller,
    /// That of the service.
    Service,
}

const fn cause(word: &'static str, what: &'static str, todo: &'static str) -> Cause {
    Cause { word, what, todo }
}

pub const APPLICATION_ERROR: Cause = cause(
    "application_error",
    "answered with an error itself; the mesh passed it on",
    "look into the log of the application at the time of the request",
);
pub const APPLICATION_SLOW: Cause = cause(
    "application_slow",
    "had its application take most of the time",
    "look at the application: weft stat services has its times; raise timeouts.request in a TrafficPolicy only if the work needs so long",
);
pub const MESH_SLOW: Cause = cause(
    "mesh_slow",
    "was reached late: most of the time was the mesh's",
    "weft endpoints shows the state of each endpoint, weft proxy status how the sidecar is doing; attempts below show which part took how long",
);
pub const QUICK: Cause = cause(
    "none",
    "was answered without a failure",
    "nothing: it is one of the slowest of its minute, and not slow by itself",
);
const UNKNOWN: Cause = cause(
    "unknown",
    "failed in a way that this command does not know",
    "read the details below; a newer weft may know more",
);

/// By the sidecar that tells, the word of its log, and what the details have if that is needed.
const CAUSES: &[(Option<By>, &str, &str, Cause)] = &[
    (
        Some(By::Service),
        "connection_refused",
        "",
        cause(
            "application_down",
            "has no application that accepts connections",
            "start the application beside that sidecar, or correct inbound.services[].application of its settings",
        ),
    ),
    (
        Some(By::Service),
        "connection_timeout",
        "",
        cause(
            "application_down",
            "has an application that does not accept connections in time",
            "see whether the application still runs and whether its backlog is full",
        ),
    ),
    (
        Some(By::Service),
        "connection_lost",
        "",
        cause(
            "application_broke_off",
            "had its application close the connection before the answer was complete",
            "look into the log of the application: it ended, or crashed, in the middle of a request",
        ),
    ),
    (Some(By::Service), "deadline", "", APPLICATION_SLOW),
    (Some(By::Service), "response_timeout", "", APPLICATION_SLOW),
    (
        Some(By::Service),
        "response_malformed",
        "",
        cause(
            "bad_response",
            "has an application whose answer breaks the rules of HTTP",
            "the details say which rule: correct the application, or what stands between it and the sidecar",
        ),
    ),
    (
        None,
        "response_malformed",
        "",
        cause(
            "bad_response",
            "sent an answer that breaks the rules of HTTP",
            "the details say which rule: correct the application that answers",
        ),
    ),
    (
        None,
        "response_head_too_large",
        "",
        cause(
            "bad_response",
            "sent an answer whose head is too large",
            "let the application send fewer or shorter fields (cookies, most often)",
        ),
    ),
    (
        None,
        "stream_reset",
        "",
        cause(
            "application_reset",
            "had its application reset the request",
            "look into the log of the application: it gave up the request by itself",
        ),
    ),
    (
        None,
        "denied",
        "",
        cause(
            "denied",
            "does not allow this call",
            "weft get authorizationpolicies shows who may call; allow this caller, method and path there if it should",
        ),
    ),
    (
        None,
        "rate_limited",
        "",
        cause(
            "rate_limit",
            "has a rate limit that this caller is over",
            "let the caller send less, or raise rateLimit in the TrafficPolicy of the Service",
        ),
    ),
    (
        None,
        "overloaded",
        "application of",
        cause(
            "adaptive_limit",
            "is overloaded, so its sidecar let no further request wait",
            "give the service more endpoints or faster ones; weft endpoints has its limit under SERVED",
        ),
    ),
    (
        None,
        "overloaded",
        "calls of",
        cause(
            "concurrency_limit",
            "has as many calls under way as its TrafficPolicy allows",
            "raise concurrency in the TrafficPolicy of the Service, or give it more endpoints",
        ),
    ),
    (
        None,
        "overloaded",
        "the application",
        cause(
            "application_full",
            "has an application that takes no further connection or stream",
            "raise the limit of connections or streams in the application, or give the service more endpoints",
        ),
    ),
    (
        Some(By::Service),
        "overloaded",
        "",
        cause(
            "callee_overloaded",
            "has a sidecar that is overloaded",
            "give that sidecar more CPU or workers (weft_worker_behind_seconds_total in its metrics)",
        ),
    ),
    (
        None,
        "overloaded",
        "",
        cause(
            "caller_overloaded",
            "was not asked, as the caller's sidecar is overloaded or has too many requests open there",
            "give the caller's sidecar more CPU or workers, or the service more endpoints",
        ),
    ),
    (
        None,
        "no_endpoint",
        "out of rotation",
        cause(
            "breaker",
            "has only endpoints that are out of rotation for failures before",
            "weft endpoints says for each why, and when it is tried again; mend what fails there",
        ),
    ),
    (
        None,
        "no_endpoint",
        "no connection lasted",
        cause(
            "attempts_spent",
            "lost the connection of each attempt",
            "see the attempts below; the endpoints restart or crash, or the network between breaks",
        ),
    ),
    (
        None,
        "no_endpoint",
        "",
        cause(
            "no_endpoint",
            "has no endpoint that may be asked",
            "weft get sidecars shows which sidecars serve it and why a registration does not hold",
        ),
    ),
    (
        None,
        "identity",
        "",
        cause(
            "wrong_identity",
            "was answered by a process that could not prove the identity of its endpoint",
            "another program listens at that address, or it joined as another workload: weft get sidecars has the identities",
        ),
    ),
    (
        Some(By::Caller),
        "connection_refused",
        "",
        cause(
            "peer_unreachable",
            "has an endpoint whose host refuses its port",
            "see whether the sidecar there runs: weft get sidecars; if it does, its inbound.advertise may be wrong",
        ),
    ),
    (
        Some(By::Caller),
        "connection_timeout",
        "",
        cause(
            "peer_unreachable",
            "has an endpoint from which no packet came back",
            "weft check on both hosts tells whether UDP reaches the other; a firewall may drop it",
        ),
    ),
    (
        Some(By::Caller),
        "connection_lost",
        "",
        cause(
            "peer_lost",
            "lost its sidecar while the request was under way",
            "that sidecar was restarted without a drain, killed, or cut off: weft get sidecars shows since when it runs",
        ),
    ),
    (
        None,
        "fault_injected",
        "",
        cause(
            "fault_injected",
            "is told by a TrafficPolicy to fail some requests",
            "remove fault from the TrafficPolicy if the test is over",
        ),
    ),
    (
        None,
        "no_route",
        "",
        cause(
            "no_route",
            "has routes, and no rule of them takes this request",
            "weft explain with this method and path says why each rule does not; add a rule without matches to take the rest",
        ),
    ),
    (
        None,
        "no_backend",
        "",
        cause(
            "no_backend",
            "has a rule that leads to a backend that does not exist or has no weight",
            "weft get httproutes -o yaml shows status.parents with the reason",
        ),
    ),
    (
        None,
        "unknown_service",
        "",
        cause(
            "unknown_service",
            "is no service that the caller's sidecar knows",
            "correct the name, apply the Service, or an ExternalService if it is outside of the mesh",
        ),
    ),
    (
        None,
        "misdirected",
        "",
        cause(
            "misdirected",
            "was asked at a sidecar that does not serve it",
            "the sidecar was restarted with other settings: the next table corrects it within seconds",
        ),
    ),
    (
        None,
        "not_ready",
        "",
        cause(
            "not_ready",
            "was asked while a sidecar had no table yet, or was draining",
            "let callers wait for /ready of their sidecar, and raise drain.settle if it was draining",
        ),
    ),
    (
        None,
        "deadline",
        "",
        cause(
            "deadline",
            "was not answered before the deadline of the request",
            "the attempts below show which part took the time; raise timeouts.request in a TrafficPolicy only if the work needs so long",
        ),
    ),
    (
        None,
        "response_timeout",
        "",
        cause(
            "response_timeout",
            "sent no bytes for the idle timeout",
            "look at the application; timeouts.idle in a TrafficPolicy says how long silence may last",
        ),
    ),
    (
        None,
        "loop",
        "",
        cause(
            "loop",
            "was reached by a request that had passed the same sidecar before",
            "a route or an application sends requests in a circle: weft explain shows where each leads",
        ),
    ),
    (
        None,
        "caller_gone",
        "",
        cause(
            "caller_gone",
            "was still at work when the caller went away",
            "the caller has a time-out of its own that is shorter: raise it, or make the service faster",
        ),
    ),
    (
        None,
        "request_too_slow",
        "",
        cause(
            "caller_slow",
            "got the request's head or body too slowly",
            "look at the caller's application and its network",
        ),
    ),
    (
        None,
        "internal",
        "",
        cause(
            "internal",
            "met a defect of weft",
            "please report it with the line below and the version",
        ),
    ),
];

/// The words of requests that the mesh refuses as what they are.
const BAD_REQUESTS: [&str; 8] = [
    "bad_request",
    "head_too_large",
    "target_too_long",
    "version_unsupported",
    "method_refused",
    "expectation_failed",
    "upgrade_unsupported",
    "coding_unsupported",
];

const BAD_REQUEST: Cause = cause(
    "bad_request",
    "was sent a request that the mesh does not carry",
    "the details say what is wrong with it: correct the caller's application",
);

/// The cause of a failure that a sidecar tells of itself.
pub fn of(by: By, call: &CallSeen) -> Cause {
    let reason = call.reason.as_deref().unwrap_or_default();
    let details = call.details.as_deref().unwrap_or_default();
    if BAD_REQUESTS.contains(&reason) {
        return BAD_REQUEST;
    }
    let found = CAUSES.iter().find(|(teller, word, part, _)| {
        teller.is_none_or(|teller| teller == by) && *word == reason && details.contains(part)
    });
    found.map_or(UNKNOWN, |(.., cause)| *cause)
}

/// Every word, for the documentation.
#[cfg(test)]
pub fn words() -> std::collections::BTreeSet<&'static str> {
    let named = [
        APPLICATION_ERROR,
        APPLICATION_SLOW,
        MESH_SLOW,
        QUICK,
        UNKNOWN,
        BAD_REQUEST,
    ];
    let listed = CAUSES.iter().map(|(.., cause)| cause.word);
    listed.chain(named.iter().map(|cause| cause.word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_documented_by_its_word() {
        let page = std::fs::read_to_string("docs/observe.md").unwrap();
        for word in words() {
            assert!(page.contains(&format!("| `{word}` |")), "{word}");
        }
    }
}
