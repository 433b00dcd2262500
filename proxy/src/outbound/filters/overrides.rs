//! Overrides: a request's own headers may change how it is treated, if a policy allows its caller
//! (`overrides.callers`).
//!
//! A field that the policy does not allow, or whose value is invalid, changes nothing and is counted. Like
//! all `weft-*` fields, none of them crosses the mesh.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use weft_config::limits::traffic::{RETRY_ATTEMPTS_RANGE, TIMEOUT_RANGE};
use weft_config::table::{Priority, RequestTraffic};
use weft_transport::identity::SpiffeId;
use weft_transport::units::parse_duration;

use super::super::exchange::Exchange;
use crate::resilience::destination::Event;

/// In place of `timeouts.request`; `0s` is none.
pub(crate) const REQUEST_TIMEOUT: HeaderName =
    HeaderName::from_static("weft-override-request-timeout");
/// In place of `timeouts.backendRequest`; `0s` is none.
pub(crate) const BACKEND_TIMEOUT: HeaderName =
    HeaderName::from_static("weft-override-backend-request-timeout");
/// In place of `retry.attempts`.
pub(crate) const ATTEMPTS: HeaderName = HeaderName::from_static("weft-override-retry-attempts");
/// In place of `priority`.
pub(crate) const PRIORITY: HeaderName = HeaderName::from_static("weft-override-priority");

/// Applies the request's own headers, if a policy allows this application to set them.
pub(super) fn apply(exchange: &mut Exchange) {
    let (worker, route) = (&exchange.worker, &mut exchange.route);
    if route.traffic.overrides.callers.is_empty() {
        return;
    }
    let counts = &route.cluster.destination.counts;
    let headers = &exchange.head.headers;
    match read(headers, &worker.shared.identity, &route.traffic) {
        None => {}
        Some(Overridden::Forbidden) => counts.add(Event::OverrideForbidden),
        Some(Overridden::Allowed { traffic, senseless }) => {
            (0..senseless).for_each(|_| counts.add(Event::OverrideInvalid));
            if let Some(traffic) = traffic {
                counts.add(Event::OverrideTaken);
                route.traffic = Arc::from(traffic);
                // From here on the caller has set these times.
                exchange.deadline.by_policy = false;
            }
        }
    }
}

/// The result of the overrides of one request.
#[derive(Debug, PartialEq, Eq)]
enum Overridden {
    /// The caller may.
    Allowed {
        /// The traffic policy in force, if any field differs from the policy of the route.
        traffic: Option<Box<RequestTraffic>>,
        /// Fields that made no sense.
        senseless: u64,
    },
    /// The policy does not name the caller.
    Forbidden,
}

/// Reads the overrides; none where the request has none.
fn read(headers: &HeaderMap, caller: &SpiffeId, traffic: &RequestTraffic) -> Option<Overridden> {
    let names = [REQUEST_TIMEOUT, BACKEND_TIMEOUT, ATTEMPTS, PRIORITY];
    if !names.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    if !traffic.overrides.allow(caller) {
        return Some(Overridden::Forbidden);
    }
    let mut changed = Box::new(traffic.clone());
    let mut senseless = 0;
    set(
        headers,
        &REQUEST_TIMEOUT,
        timeout,
        &mut changed.timeouts.request,
        &mut senseless,
    );
    set(
        headers,
        &BACKEND_TIMEOUT,
        timeout,
        &mut changed.timeouts.backend_request,
        &mut senseless,
    );
    set(
        headers,
        &ATTEMPTS,
        attempts,
        &mut changed.retry.attempts,
        &mut senseless,
    );
    set(
        headers,
        &PRIORITY,
        priority,
        &mut changed.priority,
        &mut senseless,
    );
    Some(Overridden::Allowed {
        traffic: (*changed != *traffic).then_some(changed),
        senseless,
    })
}

/// Two lines of one field contradict each other, so neither counts.
fn set<T>(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&str) -> Option<T>,
    value: &mut T,
    senseless: &mut u64,
) {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else { return };
    let said = first.to_str().ok().and_then(parse);
    match (said, lines.next()) {
        (Some(said), None) => *value = said,
        (_, _) => *senseless += 1,
    }
}

fn timeout(text: &str) -> Option<Option<Duration>> {
    let time = parse_duration(text).ok()?;
    (time.is_zero() || TIMEOUT_RANGE.contains(&time)).then_some((!time.is_zero()).then_some(time))
}

fn attempts(text: &str) -> Option<u32> {
    let number = text.parse().ok()?;
    RETRY_ATTEMPTS_RANGE.contains(&number).then_some(number)
}

fn priority(text: &str) -> Option<Priority> {
    match text {
        "low" => Some(Priority::Low),
        "normal" => Some(Priority::Normal),
        "high" => Some(Priority::High),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use weft_config::table::Overrides;

    use super::*;

    fn policy() -> RequestTraffic {
        RequestTraffic {
            overrides: Overrides {
                callers: vec!["spiffe://demo.test/ns/shop/*".parse().unwrap()],
            },
            ..RequestTraffic::default()
        }
    }

    fn id(text: &str) -> SpiffeId {
        text.parse().unwrap()
    }

    fn read(fields: &[(HeaderName, &'static str)], caller: &str) -> Option<Overridden> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        super::read(&headers, &id(caller), &policy())
    }

    const FRONTEND: &str = "spiffe://demo.test/ns/shop/sa/frontend";

    #[test]
    fn a_caller_that_the_policy_names_overrides_each_value() {
        let fields = [
            (REQUEST_TIMEOUT, "1500ms"),
            (BACKEND_TIMEOUT, "0s"),
            (ATTEMPTS, "0"),
            (PRIORITY, "high"),
        ];
        let mut expected = policy();
        expected.timeouts.request = Some(Duration::from_millis(1500));
        expected.timeouts.backend_request = None;
        expected.retry.attempts = 0;
        expected.priority = Priority::High;
        let allowed = Overridden::Allowed {
            traffic: Some(Box::new(expected)),
            senseless: 0,
        };
        assert_eq!(read(&fields, FRONTEND), Some(allowed));
    }

    #[test]
    fn others_override_nothing() {
        let found = read(
            &[(ATTEMPTS, "9")],
            "spiffe://demo.test/ns/other/sa/frontend",
        );
        assert_eq!(found, Some(Overridden::Forbidden));
        assert_eq!(read(&[], FRONTEND), None);
    }

    fn senseless() -> Option<Overridden> {
        Some(Overridden::Allowed {
            traffic: None,
            senseless: 1,
        })
    }

    #[test]
    fn values_without_sense_change_nothing_and_are_counted() {
        for (name, value) in [
            (REQUEST_TIMEOUT, "soon"),
            (REQUEST_TIMEOUT, "-1s"),
            (BACKEND_TIMEOUT, "25h"),
            (ATTEMPTS, "11"),
            (ATTEMPTS, "1e9"),
            (PRIORITY, "HIGHEST"),
        ] {
            assert_eq!(read(&[(name, value)], FRONTEND), senseless(), "{value}");
        }
        let twice = [(ATTEMPTS, "1"), (ATTEMPTS, "9")];
        assert_eq!(read(&twice, FRONTEND), senseless());
    }
}
