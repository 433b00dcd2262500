//! The list of a route's rules. A rule that is not valid stops the change, or is left out with its fault, as
//! the change asks for.

use std::mem;

use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::parents::{ParentRef, parents};
use crate::limits;
use crate::resources::InvalidRules;
use crate::resources::decode::{At, Decoder, Fields};
use crate::yaml::{Node, Value};

/// A rule of an HTTPRoute or GRPCRoute, or what stands in its place: the rules after it keep their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RuleEntry<R> {
    /// One that acts.
    Rule(R),
    /// One that is left out.
    Dropped(DroppedRule),
}

/// A rule that is left out, as it is not valid (Gateway API v1, RouteConditionPartiallyInvalid).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedRule {
    /// One of its faults, with the field. Written by the config service; what a file says is not read.
    pub dropped: String,
    /// The rule as it was written.
    #[serde(flatten)]
    pub written: Map<String, Json>,
}

/// The field by which a rule that is left out says why.
pub(super) const DROPPED: &str = "dropped";

impl<R> RuleEntry<R> {
    /// The rule, if it acts.
    pub fn rule(&self) -> Option<&R> {
        match self {
            Self::Rule(rule) => Some(rule),
            Self::Dropped(_) => None,
        }
    }

    /// The rule, if it is left out.
    pub fn dropped(&self) -> Option<&DroppedRule> {
        match self {
            Self::Rule(_) => None,
            Self::Dropped(dropped) => Some(dropped),
        }
    }
}

impl<'de, R: DeserializeOwned> Deserialize<'de> for RuleEntry<R> {
    /// By hand: of an untagged enum serde does not say which field it does not know.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let is_dropped = fields.contains_key(DROPPED);
        let value = Json::Object(fields);
        let read = match is_dropped {
            true => serde_json::from_value(value).map(Self::Dropped),
            false => serde_json::from_value(value).map(Self::Rule),
        };
        read.map_err(D::Error::custom)
    }
}

/// How the rules of one kind of route are read.
pub(super) struct Reader<R> {
    /// Whether an empty list is refused.
    pub(super) some: bool,
    /// Reads one. It skips [`DROPPED`].
    pub(super) rule: fn(&mut Decoder<'_>, &At<'_>) -> Option<R>,
    /// The name of a rule, and how many matches it has.
    pub(super) outline: fn(&R) -> (Option<&str>, usize),
}

/// Why a mesh route has no hostnames (GEP-1294: nothing is inferred from them).
const HOSTNAMES: &str = "they have no effect on a route of a Service: match on the header host instead, \
                         as headers: [{ name: host, value: shop.example.org }]";

/// Reads a route of requests: its parents and its rules.
pub(super) fn requests<R>(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    reader: &Reader<R>,
) -> Option<(Vec<ParentRef>, Vec<RuleEntry<R>>)> {
    let mut fields = Fields::open(decoder, at)?;
    let parent_refs = parents(decoder, &mut fields);
    let rules = fields.take("rules").map(|at| {
        if reader.some {
            decoder.some(&at);
        }
        let items = decoder.list(&at, limits::RULES_PER_ROUTE_MAX);
        let entries = items.iter().filter_map(|item| entry(decoder, item, reader));
        let entries: Vec<RuleEntry<R>> = entries.collect();
        check_together(decoder, &at, &entries, reader);
        entries
    });
    fields.refuse(decoder, "hostnames", HOSTNAMES);
    fields.close(decoder);
    Some((parent_refs?, rules.unwrap_or_default()))
}

/// Reads one rule. What is wrong with it are errors, or warnings where it is left out.
fn entry<R>(decoder: &mut Decoder<'_>, at: &At<'_>, reader: &Reader<R>) -> Option<RuleEntry<R>> {
    let before = mem::take(&mut decoder.findings);
    let rule = (reader.rule)(decoder, at);
    let mut found = mem::replace(&mut decoder.findings, before);
    let dropped = match decoder.invalid_rules {
        InvalidRules::Drop if found.has_errors() => left_out(at.node),
        InvalidRules::Drop | InvalidRules::Refuse => None,
    };
    let Some(written) = dropped else {
        decoder.findings.extend(found);
        return rule.map(RuleEntry::Rule);
    };
    let first = found.first_error();
    let fault = first.map_or_else(String::new, |one| format!("{}: {}", one.field, one.message));
    found.become_warnings();
    decoder.findings.extend(found);
    let hint = "its requests go where the other rules lead, or get an error; without any rule that is valid they go as if there were no route".to_owned();
    decoder.warning(at, "the rule is not valid and left out", Some(hint));
    Some(RuleEntry::Dropped(DroppedRule {
        dropped: fault
            .chars()
            .take(limits::DROPPED_FAULT_LENGTH_MAX)
            .collect(),
        written,
    }))
}

/// The text of a rule that is left out. `None` of what is no rule at all, and of one that is too large to
/// keep.
fn left_out(node: &Node) -> Option<Map<String, Json>> {
    let Json::Object(mut written) = json(node) else {
        return None;
    };
    written.remove(DROPPED);
    let bytes = serde_json::to_vec(&written).ok()?.len();
    (bytes <= limits::DROPPED_RULE_BYTES_MAX).then_some(written)
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(number) => match serde_json::Number::from_i128(*number) {
            Some(number) => number.into(),
            None => number.to_string().into(),
        },
        Value::Float(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => number.into(),
            None => number.to_string().into(),
        },
        Value::Text(text) => text.clone().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let entries = entries.iter();
            entries
                .map(|(key, _, node)| (key.clone(), json(node)))
                .collect()
        }
    }
}

/// Reports more matches than a route may have, and a name that two rules have.
fn check_together<R>(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    entries: &[RuleEntry<R>],
    reader: &Reader<R>,
) {
    let rules = entries.iter().filter_map(RuleEntry::rule);
    let outlines: Vec<(Option<&str>, usize)> = rules.map(reader.outline).collect();
    let count: usize = outlines.iter().map(|(_, matches)| matches).sum();
    if count > limits::MATCHES_PER_ROUTE_MAX {
        let most = limits::MATCHES_PER_ROUTE_MAX;
        let hint = "split the route".to_owned();
        let message = format!("has {count} matches in all, at most {most} are allowed");
        decoder.error(at, message, Some(hint));
    }
    let names = outlines.iter().filter_map(|(name, _)| *name);
    for (i, name) in names.clone().enumerate() {
        if names.clone().take(i).any(|other| other == name) {
            let hint = Some("choose another name".to_owned());
            decoder.error(at, format!("two rules have the name {name}"), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Parsed, Resource, SourceFile, parse_with};

    const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: r, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: a } ]
  rules:
  - matches: [ { path: { value: /good } } ]
    backendRefs: [ { name: a, port: 80 } ]
  - matches: [ { path: { value: /bad } } ]
    filters: [ { type: ExternalAuth, externalAuth: { protocol: GRPC, forwardBody: { maxSize: 18446744073709551615 } } } ]
    backendRefs: [ { name: a, port: 80, weight: 1.5 } ]
";

    fn read(text: &str, invalid_rules: InvalidRules) -> Parsed {
        let file = SourceFile {
            name: "r.yaml".into(),
            text: text.into(),
        };
        parse_with(&[file], invalid_rules)
    }

    fn told(parsed: &Parsed) -> Vec<String> {
        let mut findings = parsed.findings.clone();
        findings.sort();
        findings.listed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_rule_that_is_not_valid_stops_a_change_unless_it_is_to_be_left_out() {
        let refused = told(&read(ROUTE, InvalidRules::Refuse));
        let parsed = read(ROUTE, InvalidRules::Drop);
        assert!(!parsed.findings.has_errors() && parsed.resources.len() == 1);
        // The same lines as warnings, and one for the rule.
        let warned = told(&parsed);
        assert_eq!(warned.len(), refused.len() + 1, "{warned:#?}");
        assert!(
            warned[0].starts_with(
                "r.yaml:9: warning: spec.rules[1]: the rule is not valid and left out;"
            ),
            "{warned:#?}"
        );
        for (error, warning) in refused.iter().zip(&warned[1..]) {
            let (place, rest) = error.split_at(error.find("spec").unwrap());
            assert_eq!(*warning, format!("{place}warning: {rest}"));
        }
    }

    #[test]
    fn a_rule_that_is_left_out_is_kept_as_written_and_can_be_applied_again() {
        let parsed = read(ROUTE, InvalidRules::Drop);
        let resource = &parsed.resources[0];
        let kept = serde_json::to_value(resource).unwrap();
        let rule = &kept["spec"]["rules"][1];
        assert_eq!(rule["filters"][0]["externalAuth"]["protocol"], "GRPC");
        assert_eq!(
            rule["filters"][0]["externalAuth"]["forwardBody"]["maxSize"],
            u64::MAX
        );
        assert_eq!(rule["backendRefs"][0]["weight"], 1.5);
        let fault = rule["dropped"].as_str().unwrap();
        assert!(
            fault.starts_with("spec.rules[1].backendRefs[0].weight: "),
            "{fault}"
        );
        assert_eq!(&serde_json::from_value::<Resource>(kept).unwrap(), resource);
        let again = read(&resource.to_yaml(), InvalidRules::Drop);
        assert_eq!(&again.resources[0], resource);
        // Mended, with the note still there.
        let noted = ROUTE.replace(
            "  - matches: [ { path: { value: /g",
            "  - dropped: why\n    matches: [ { path: { value: /g",
        );
        assert!(told(&read(&noted, InvalidRules::Refuse))[0].contains("spec.rules[1]"));
    }

    #[test]
    fn what_is_no_rule_or_too_large_to_keep_stops_a_change_in_any_case() {
        let large = "x".repeat(limits::DROPPED_RULE_BYTES_MAX);
        for bad in [
            ROUTE
                .replace("- matches: [ { path: { value: /bad } } ]", "- nothing")
                .replace("    filters", "  # ")
                .replace("    backendRefs: [ { name: a, port: 80, w", "  #"),
            ROUTE.replace("GRPC", &large),
            ROUTE.replace("parentRefs", "parents"),
        ] {
            assert!(
                read(&bad, InvalidRules::Drop).findings.has_errors(),
                "{bad:.400}"
            );
        }
    }
}
