//! Every field of a traffic policy, and where it may stand. Pure.

use serde_json::Value;

use super::TrafficSpec;

/// One field; a field whose value is replaced as a whole (such as a list) counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its path, as in `retry.attempts`.
    pub path: &'static str,
    /// Whether it concerns a single request, so that a route may say it.
    pub on_routes: bool,
    /// Whether it has a meaning for a TCP port.
    pub on_tcp: bool,
}

const fn request(path: &'static str) -> Field {
    field(path, true, false)
}

const fn field(path: &'static str, on_routes: bool, on_tcp: bool) -> Field {
    Field {
        path,
        on_routes,
        on_tcp,
    }
}

/// All fields, in the order in which they are shown.
pub const FIELDS: [Field; 40] = [
    request("timeouts.request"),
    request("timeouts.backendRequest"),
    request("timeouts.streamIdle"),
    field("retry.attempts", true, true),
    request("retry.resetBeforeResponse"),
    request("retry.codes"),
    request("retry.grpcCodes"),
    request("retry.nonIdempotent"),
    request("retry.respectRetryAfter"),
    field("retry.backoff.base", true, true),
    field("retry.backoff.max", true, true),
    request("retry.bodyReplay"),
    request("hedge.after"),
    request("hedge.attempts"),
    request("hedge.nonIdempotent"),
    request("fault.delay"),
    request("fault.abort"),
    request("priority"),
    request("overrides.callers"),
    field("rateLimits", true, true),
    field("balance.algorithm", false, true),
    field("balance.key", false, true),
    field("balance.slowStart", false, true),
    field("retryBudget.percent", false, true),
    field("retryBudget.interval", false, true),
    field("retryBudget.minRetriesPerSecond", false, true),
    field("breaker.mode", false, true),
    field("breaker.consecutiveFailures", false, true),
    field("breaker.successRate.percent", false, true),
    field("breaker.successRate.minRequests", false, true),
    field("breaker.successRate.interval", false, true),
    field("breaker.ejection.base", false, true),
    field("breaker.ejection.max", false, true),
    field("breaker.maxEjectedPercent", false, true),
    field("breaker.panicThreshold", false, true),
    field("failover", false, true),
    field("concurrency.max", false, true),
    field("concurrency.mode", false, true),
    field("concurrency.adaptive", false, false),
    field("concurrency.priority", false, false),
];

impl TrafficSpec {
    /// The fields that it sets.
    pub fn fields(&self) -> Vec<Field> {
        // Text keys, finite numbers: this cannot fail.
        let written = serde_json::to_value(self).unwrap_or(Value::Null);
        let is_set = |field: &&Field| {
            let mut steps = field.path.split('.');
            steps.try_fold(&written, |at, step| at.get(step)).is_some()
        };
        FIELDS.iter().filter(is_set).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of all leaves; a list, or a value that is replaced as a whole, counts as one.
    fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) if !FIELDS.iter().any(|field| field.path == path) => {
                for (name, value) in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    leaves(&format!("{path}{dot}{name}"), value, found);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => found.push(path.to_owned()),
        }
    }

    #[test]
    fn the_list_has_every_field_that_a_policy_can_set() {
        let whole: TrafficSpec = serde_json::from_str(crate::resources::traffic::WHOLE).unwrap();
        let mut written = Vec::new();
        leaves("", &serde_json::to_value(&whole).unwrap(), &mut written);
        written.sort();
        let mut listed: Vec<String> = FIELDS.iter().map(|field| field.path.to_owned()).collect();
        listed.sort();
        assert_eq!(listed, written);
        assert_eq!(whole.fields(), FIELDS);
        assert!(TrafficSpec::default().fields().is_empty());
    }
}
