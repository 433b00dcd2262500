//! A mesh as large as any that is expected, and how long it takes.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::{plan, route, rules, set, sidecar};
use crate::compile::Endpoints;
use crate::resources::Set;

/// What one step may take, beside other tests and without optimisation: some twenty times of what it takes
/// alone (docs/benchmarks.md). Work that grows with the square of the routes takes more.
const PATIENCE: Duration = Duration::from_secs(20);

/// 1000 Services and 5000 routes, each with two rules. With `--nocapture` it says how long that takes.
#[test]
fn a_large_mesh_is_compiled_checked_and_judged_whole_in_bounded_time() {
    let build = |services: usize| {
        let mut text = String::new();
        for i in 0..services {
            write!(
                text,
                "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: s{i}, namespace: n{}}}\n\
                 spec: {{ports: [{{port: 80, protocol: http}}]}}\n---\n",
                i % 10
            )
            .unwrap();
            for j in 0..5 {
                let (to, namespace) = ((i + j) % services, i % 10);
                let rules = format!(
                    "  - matches: [{{path: {{value: /a{j}}}, headers: [{{name: x, value: '{j}'}}]}}]\n    \
                     filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{remove: [x]}}}}]\n    \
                     backendRefs: [{{name: s{to}, namespace: n{}, port: 80}}, {{name: s{i}, port: 80}}]\n  \
                     - matches: [{{path: {{value: /b{j}}}}}]\n    backendRefs: [{{name: s{i}, port: 80}}]\n",
                    to % 10
                );
                let (name, parent) = (format!("r{i}-{j}"), format!("name: s{i}"));
                text += &route(
                    "HTTPRoute",
                    &format!("n{namespace}"),
                    &name,
                    &parent,
                    &rules,
                );
            }
        }
        set(&text)
    };
    let time = |set: &Set| {
        let begin = Instant::now();
        let plan = plan(set);
        let table = plan.table(&sidecar("n1", &[]), &Endpoints::new());
        assert_eq!(table.services.len(), set.services().count());
        (begin.elapsed(), table)
    };
    let large = build(1000);
    assert_eq!(large.routes().count(), 5000);
    let (took, table) = time(&large);
    let begin = Instant::now();
    let findings = crate::validate::validate(&large, None, &crate::resources::Parsed::default());
    assert!(!findings.has_errors());
    let (checked, begin) = (begin.elapsed(), Instant::now());
    let statuses = crate::status::route_statuses(&large);
    let judged = begin.elapsed();
    assert_eq!(statuses.len(), 5000);
    println!(
        "1000 Services, 5000 routes: compiled to one table in {took:?}, checked in {checked:?}, judged in {judged:?}"
    );
    for took in [took, checked, judged] {
        assert!(took < PATIENCE, "{took:?}");
    }
    assert_eq!(rules(&table, "s7.n7", 80).len(), 10);
}
