//! The reference pages in `docs/resources`: one of each kind, with every field of its types, and examples
//! that `weft apply` takes.
//!
//! `UPDATE_PAGES=1 cargo test -p weft-config --test documentation` writes the tables anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use weft_config::compile::effective;
use weft_config::resources::{
    AuthorizationPolicySpec, ExternalServiceSpec, GrpcRouteSpec, HttpRouteSpec, Kind,
    MeshConfigSpec, Object, ReferenceGrantSpec, ServiceSpec, Set, SourceFile, TcpRouteSpec,
    TlsRouteSpec, TrafficPolicySpec, WorkloadSpec, parse,
};

use super::fields::{Row, rows, table};
use super::{shown, valid, valid_in};

const BEGIN: &str =
    "<!-- Made from the types by config/tests/documentation: edit the comments there. -->\n";
const END: &str = "<!-- End of what is made. -->\n";

fn path_of(kind: Kind) -> PathBuf {
    let name = format!("../docs/resources/{}.md", kind.as_str());
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn rows_of(kind: Kind) -> Vec<Row> {
    fn of<S: JsonSchema>(defaults: &BTreeMap<String, String>) -> Vec<Row> {
        rows::<Object<S>>(defaults)
    }
    let none = BTreeMap::new();
    let mut rows = match kind {
        Kind::Service => of::<ServiceSpec>(&none),
        Kind::ExternalService => of::<ExternalServiceSpec>(&none),
        Kind::HttpRoute => of::<HttpRouteSpec>(&none),
        Kind::GrpcRoute => of::<GrpcRouteSpec>(&none),
        Kind::TlsRoute => of::<TlsRouteSpec>(&none),
        Kind::TcpRoute => of::<TcpRouteSpec>(&none),
        Kind::ReferenceGrant => of::<ReferenceGrantSpec>(&none),
        Kind::AuthorizationPolicy => of::<AuthorizationPolicySpec>(&none),
        Kind::MeshConfig => of::<MeshConfigSpec>(&none),
        Kind::Workload => of::<WorkloadSpec>(&none),
        Kind::TrafficPolicy => of::<TrafficPolicySpec>(&defaults_of_traffic()),
    };
    // It holds for the whole mesh, and a namespace is refused.
    rows.retain(|row| kind != Kind::MeshConfig || row.path != "metadata.namespace");
    // Every example shows them.
    rows.retain(|row| !["apiVersion", "metadata", "spec"].contains(&row.path.as_str()));
    rows
}

/// The values without any policy, as `weft get --effective` shows them.
fn defaults_of_traffic() -> BTreeMap<String, String> {
    let mesh = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: a, namespace: b}\n\
                spec: {ports: [{port: 80, protocol: http}]}\n";
    let places = effective(&valid(mesh), &"Service/b/a".parse().unwrap()).unwrap();
    let fields = places[0].fields.iter();
    fields
        .map(|field| (format!("spec.{}", field.field), shown(&field.value)))
        .collect()
}

#[test]
fn every_page_lists_the_fields_of_its_kind() {
    for kind in Kind::ALL {
        let path = path_of(kind);
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (found, after) = rest.split_once(END).unwrap();
        let wanted = table(&rows_of(kind));
        if std::env::var_os("UPDATE_PAGES").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        } else {
            assert!(
                found == wanted,
                "{} lags behind the types. Write it anew with: \
                 UPDATE_PAGES=1 cargo test -p weft-config --test documentation",
                path.display()
            );
        }
    }
}

#[test]
fn every_field_says_what_it_is() {
    for kind in Kind::ALL {
        for row in rows_of(kind) {
            assert!(row.is_whole(), "{} {row:?}", kind.as_str());
        }
    }
}

/// Whole examples begin with the version. Those of a page are changes, one after the other.
#[test]
fn the_examples_of_every_page_are_accepted_one_after_the_other() {
    for kind in Kind::ALL {
        let page = std::fs::read_to_string(path_of(kind)).unwrap();
        let blocks = page.split("```yaml\n").skip(1);
        let examples: Vec<&str> = blocks
            .map(|rest| rest.split("```").next().unwrap())
            .filter(|text| text.starts_with("apiVersion"))
            .collect();
        assert!(!examples.is_empty(), "{} has no example", kind.as_str());
        let mut set = Set::default();
        for example in examples {
            valid_in(&mut set, example);
        }
        assert!(
            set.resources.keys().any(|key| key.kind == kind),
            "{}",
            kind.as_str()
        );
    }
}

/// An example may refer to resources on another page, so each document is judged only by itself.
#[test]
fn the_resources_in_every_page_can_be_read() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let listed = std::fs::read_dir(root.join("docs")).unwrap();
    let mut pages: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    pages.push(root.join("README.md"));
    let mut examples = 0;
    for page in pages {
        if page.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            if block.starts_with("apiVersion") {
                examples += 1;
                assert!(is_accepted(block), "{}:\n{block}", page.display());
            }
        }
    }
    assert!(examples >= 9, "{examples}");
}

/// A document that sets one field of a TrafficPolicy.
fn policy_with(path: &str, value: &str) -> String {
    let mut text =
        "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: a, namespace: b}\n\
                    spec:\n  targetRefs: [{kind: Namespace, name: b}]\n"
            .to_owned();
    for (depth, step) in path.split('.').enumerate() {
        text += &format!("{}{step}:", "  ".repeat(depth + 1));
        text += if depth + 1 == path.split('.').count() {
            " "
        } else {
            "\n"
        };
    }
    text + value + "\n"
}

fn is_accepted(text: &str) -> bool {
    let parsed = parse(&[SourceFile {
        name: "example.yaml".into(),
        text: text.into(),
    }]);
    !parsed.findings.has_errors()
}

/// The nearest value that is outside of a range which ends with this one.
fn beyond(value: &str) -> String {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().unwrap();
    match unit {
        "h" => format!("{number}h1ms"),
        "m" => format!("{number}m1ms"),
        "s" => format!("{number}s1ms"),
        "MiB" => format!("{}B", (number << 20) + 1),
        _ => format!("{}{unit}", number + 1),
    }
}

#[test]
fn the_ranges_of_traffic_policies_are_those_that_are_accepted() {
    let mut judged = 0;
    for row in rows_of(Kind::TrafficPolicy) {
        let path = row.path.strip_prefix("spec.").unwrap_or_default();
        let range = row.range.trim_end_matches(", or 0s");
        let Some((least, most)) = range.split_once(" to ").filter(|_| !path.contains("[]")) else {
            continue;
        };
        let is_bound =
            |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(' ');
        if row.kind.starts_with("list")
            || path.is_empty()
            || !is_bound(least)
            || !is_bound(most)
            || path.starts_with("fault.")
            || path.starts_with("failover.")
        {
            continue;
        }
        judged += 1;
        for value in [least, most] {
            assert!(is_accepted(&policy_with(path, value)), "{path}: {value}");
        }
        assert!(
            !is_accepted(&policy_with(path, &beyond(most))),
            "{path}: beyond {most}"
        );
        assert_eq!(
            is_accepted(&policy_with(path, "0s")),
            range != row.range || least == "0s",
            "{path}: 0s"
        );
    }
    assert!(judged >= 20, "{judged}");
}
