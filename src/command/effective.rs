//! `weft get --effective`: the traffic policy in force for a Service or route, field by field, with the
//! source of each value. The code that compiles tables resolves the values.

use serde_json::Value;
use weft_config::compile::{Place, effective};
use weft_config::resources::{Key, Kind, Set};

use crate::failure::{Code, Failure};
use crate::output::{Format, Table, print_or};

/// The kinds that have one, in the order in which a bare name is looked up.
const WITH_TRAFFIC: [Kind; 4] = [
    Kind::Service,
    Kind::ExternalService,
    Kind::HttpRoute,
    Kind::GrpcRoute,
];

/// The same, for messages.
const KINDS: &str = "Service, ExternalService, HTTPRoute, GRPCRoute";

/// Prints the policy in force for `wanted`: `orders`, `orders.shop`, `httproute/orders` or a whole key.
pub(super) fn show(
    set: &Set,
    wanted: &str,
    namespace: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let key = find(set, wanted, namespace)?;
    let places = effective(set, &key).ok_or_else(|| {
        let kind = key.kind.as_str();
        let message = format!("a {kind} has no traffic policy in force; name one of {KINDS}");
        Failure::new(Code::Usage, message)
    })?;
    print_or(format, &places, |places| {
        let texts: Vec<String> = places.iter().map(text).collect();
        texts.join("\n")
    })
}

fn text(place: &Place) -> String {
    let mut table = Table::new(&["FIELD", "VALUE", "FROM"]);
    for one in &place.fields {
        table.row([
            one.field.to_owned(),
            shown(&one.value),
            one.from.to_string(),
        ]);
    }
    format!("{}\n{table}", place.place)
}

/// A value as it is written in a table.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string().replace('"', "")
        }
    }
}

/// The one resource that is meant. A bare name is a Service, an ExternalService, or else a
/// route.
fn find(set: &Set, wanted: &str, namespace: Option<&str>) -> Result<Key, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::new(Code::Usage, error);
    let (kinds, rest, what) = match wanted.split_once('/') {
        Some((kind, rest)) => {
            let kind: Kind = kind.parse().map_err(|error| usage(&error))?;
            (vec![kind], rest, kind.as_str().to_owned())
        }
        None => (WITH_TRAFFIC.to_vec(), wanted, KINDS.replace(", G", " or G")),
    };
    let (name, namespace) = match (rest.split_once('/'), rest.split_once('.')) {
        (Some((namespace, name)), _) | (None, Some((name, namespace))) => (name, Some(namespace)),
        (None, None) => (rest, namespace),
    };
    for kind in kinds {
        let fits = |key: &&Key| {
            key.kind == kind
                && key.name == name
                && namespace.is_none_or(|namespace| namespace == key.namespace)
        };
        let found: Vec<&Key> = set.resources.keys().filter(fits).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
            [first, second, ..] => {
                let message = format!("{wanted} may be {first} or {second}; add -n NAMESPACE");
                return Err(Failure::new(Code::Usage, message));
            }
        }
    }
    let message = format!("there is no {what} {rest}; see weft get all");
    Err(Failure::new(Code::Failed, message))
}

#[cfg(test)]
mod tests {
    use weft_config::resources::{SourceFile, parse};

    use super::*;

    fn set() -> Set {
        let service = |namespace: &str| {
            format!(
                "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: a, namespace: \
                 {namespace}}}\nspec: {{ports: [{{port: 80, protocol: http}}]}}\n---\n"
            )
        };
        let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                     metadata: {name: r, namespace: shop}\nspec:\n  parentRefs: [{kind: Service, name: a}]\n  \
                     rules: [{backendRefs: [{name: a, port: 80}]}]\n";
        let parsed = parse(&[SourceFile {
            name: "t.yaml".into(),
            text: service("shop") + &service("spare") + route,
        }]);
        let mut set = Set::default();
        parsed
            .resources
            .into_iter()
            .for_each(|resource| set.insert(resource));
        set
    }

    #[test]
    fn messages_name_the_kinds_that_are_looked_up() {
        let names = WITH_TRAFFIC.map(Kind::as_str).join(", ");
        assert_eq!(names, KINDS);
    }

    #[test]
    fn a_name_finds_its_service_or_route() {
        let set = set();
        let found = |wanted, namespace| find(&set, wanted, namespace).unwrap().to_string();
        assert_eq!(found("a", Some("shop")), "Service/shop/a");
        assert_eq!(found("a.spare", None), "Service/spare/a");
        assert_eq!(found("r", None), "HTTPRoute/shop/r");
        assert_eq!(found("route/r", None), "HTTPRoute/shop/r");
        assert_eq!(found("Service/shop/a", None), "Service/shop/a");
        for (wanted, message) in [
            (
                "a",
                "a may be Service/shop/a or Service/spare/a; add -n NAMESPACE",
            ),
            (
                "b",
                "there is no Service, ExternalService, HTTPRoute or GRPCRoute b; see weft get all",
            ),
            ("grpcroute/r", "there is no GRPCRoute r; see weft get all"),
        ] {
            let error = find(&set, wanted, None).unwrap_err();
            assert_eq!(error.line, message);
        }
    }
}
