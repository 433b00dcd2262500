//! Files as they are in clusters, and what comes of them. Every result passes the validation of `weft
//! validate`.

mod istio_policies;
mod istio_routes;
mod linkerd;
mod other_kinds;

use serde_json::Value;
use weft_config::resources::{Set, SourceFile, parse};
use weft_config::validate::validate;
use weft_config::yaml;

use super::{From, Imported, import};

const SERVICES: &str = r"
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec:
  selector: { app: reviews }
  ports: [ { name: http, port: 9080, targetPort: 9080 } ]
---
apiVersion: v1
kind: Service
metadata: { name: ratings, namespace: shop }
spec:
  selector: { app: ratings }
  ports: [ { port: 8080, appProtocol: http } ]
---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: shop }
spec:
  selector: { app: db }
  ports: [ { name: tcp-sql, port: 5432 } ]
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: frontend, namespace: shop }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: batch, namespace: jobs }
spec: { template: { spec: { serviceAccountName: batch } } }
---
";

fn imported(from: From, text: &str) -> Imported {
    let files = [SourceFile {
        name: "mesh.yaml".into(),
        text: format!("{SERVICES}{text}"),
    }];
    let imported = import(from, &files, &"demo.test".parse().unwrap());
    check(&imported);
    imported
}

/// As `weft validate` does.
#[track_caller]
fn check(imported: &Imported) {
    let texts = imported
        .documents
        .iter()
        .map(|one| yaml::to_string(one).unwrap());
    let text: Vec<String> = texts.collect();
    let text = text.join("---\n");
    let parsed = parse(&[SourceFile {
        name: "weft.yaml".into(),
        text: text.clone(),
    }]);
    assert!(
        !parsed.findings.has_errors(),
        "{:#?}\n{text}",
        parsed.findings.listed
    );
    let mut set = Set::default();
    for resource in parsed.resources.clone() {
        set.insert(resource);
    }
    let findings = validate(&set, None, &parsed);
    assert!(!findings.has_errors(), "{:#?}\n{text}", findings.listed);
}

fn of_kind<'i>(imported: &'i Imported, kind: &str) -> Vec<&'i Value> {
    let documents = imported.documents.iter();
    documents.filter(|one| one["kind"] == kind).collect()
}

fn errors(imported: &Imported) -> Vec<String> {
    let listed = imported.findings.listed.iter();
    let errors = listed.filter(|one| one.severity == weft_config::findings::Severity::Error);
    errors
        .map(|one| format!("{}: {}", one.field, one.message))
        .collect()
}

#[track_caller]
fn has(lines: &[String], field: &str, word: &str) {
    let found = lines
        .iter()
        .any(|one| one.starts_with(&format!("{field}: ")) && one.contains(word));
    assert!(found, "{field} {word}: {lines:#?}");
}

/// The policies of a result: action, targets, principals, and what of requests.
fn policies(imported: &Imported) -> Vec<String> {
    let all = of_kind(imported, "AuthorizationPolicy")
        .into_iter()
        .map(|one| {
            let spec = &one["spec"];
            let targets: Vec<&str> = spec["targetRefs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            let principals = spec["from"][0]["principals"].as_array();
            let principals = principals.map_or("any".to_owned(), |list| {
                let names = list.iter().map(|one| {
                    one.as_str()
                        .unwrap()
                        .rsplit_once("/ns/")
                        .unwrap()
                        .1
                        .replace("/sa/", ".")
                });
                names.collect::<Vec<_>>().join("+")
            });
            let to = &spec["to"][0];
            let to = if to.is_null() {
                String::new()
            } else {
                format!(" {to}")
            };
            format!(
                "{} {} {principals}{to}",
                spec["action"].as_str().unwrap(),
                targets.join("+")
            )
        });
    all.collect()
}

#[test]
fn nothing_that_a_file_says_makes_it_panic() {
    let odd = [
        "7",
        "[]",
        "{}",
        "null",
        "'a'",
        "[ 7, [], {} ]",
        "{ a: { b: [ 7 ] } }",
    ];
    let kinds = [
        (
            "networking.istio.io/v1",
            "VirtualService",
            &["hosts", "http", "tcp", "gateways"][..],
        ),
        (
            "networking.istio.io/v1",
            "DestinationRule",
            &["host", "trafficPolicy", "subsets"],
        ),
        (
            "security.istio.io/v1",
            "AuthorizationPolicy",
            &["selector", "rules", "action", "targetRefs"],
        ),
        (
            "networking.istio.io/v1",
            "ServiceEntry",
            &["hosts", "ports", "endpoints", "resolution", "location"],
        ),
        (
            "security.istio.io/v1",
            "PeerAuthentication",
            &["selector", "mtls", "portLevelMtls"],
        ),
        (
            "linkerd.io/v1alpha2",
            "ServiceProfile",
            &["routes", "retryBudget"],
        ),
        (
            "policy.linkerd.io/v1",
            "Server",
            &["podSelector", "accessPolicy"],
        ),
        (
            "policy.linkerd.io/v1",
            "AuthorizationPolicy",
            &["targetRef", "requiredAuthenticationRefs"],
        ),
        (
            "policy.linkerd.io/v1",
            "ServerAuthorization",
            &["server", "client"],
        ),
        (
            "split.smi-spec.io/v1",
            "TrafficSplit",
            &["service", "backends"],
        ),
        ("v1", "Service", &["ports", "selector"]),
    ];
    for (version, kind, fields) in kinds {
        for field in fields {
            for value in odd {
                let text = format!(
                    "apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: reviews, namespace: shop }}\nspec: {{ hosts: [ reviews ], host: reviews, {field}2: 1, {field}: {value} }}\n"
                )
                .replacen(&format!("{field}2: 1, "), "", 1);
                let text = match *field {
                    "hosts" | "host" => text.replacen("hosts: [ reviews ], host: reviews, ", "", 1),
                    _ => text,
                };
                for from in [From::Istio, From::Linkerd] {
                    imported(from, &text);
                }
            }
        }
    }
}
