//! Which modules of a crate know each other: none in a circle, but for what is listed here with its reason.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, LIBRARIES, Source, code, library, products};

/// Modules of one crate of which the first knows the second although that, or one that it knows, knows the
/// first; with the reason. Without these there is no cycle.
const KNOWS_BACK: [(&str, &str, &str, &str); 17] = [
    (
        "ca",
        "error",
        "admin",
        "the error of the crate holds that of each of its parts",
    ),
    (
        "ca",
        "error",
        "server",
        "the error of the crate holds that of each of its parts",
    ),
    (
        "config",
        "limits",
        "table",
        "ranges of traffic policy are in the types of the table, which refuses what is outside of them",
    ),
    (
        "loadtest",
        "diff",
        "report",
        "a difference is told in the words of the report",
    ),
    (
        "loadtest",
        "plan",
        "result",
        "a plan is summed up in the form of the result",
    ),
    (
        "proxy",
        "admin",
        "run",
        "the admin endpoint shows what the run offers of the process; its traits stand there",
    ),
    (
        "proxy",
        "health",
        "run",
        "probes end with the run; its traits stand there",
    ),
    (
        "proxy",
        "inbound",
        "health",
        "a served service holds what is shown of its health",
    ),
    (
        "proxy",
        "metrics",
        "outbound",
        "a worker's counts hold how far its intake is limited",
    ),
    (
        "proxy",
        "metrics",
        "record",
        "metrics are an observer of records, which hold where they are counted",
    ),
    (
        "proxy",
        "record",
        "access_log",
        "a record holds the log, which is its observer",
    ),
    (
        "proxy",
        "takeover",
        "run",
        "a takeover hands over what the run has bound",
    ),
    (
        "proxy",
        "worker",
        "inbound",
        "a worker holds the services that it delivers to",
    ),
    (
        "proxy",
        "worker",
        "outbound",
        "a worker holds the bounds of what it takes in",
    ),
    (
        "proxy",
        "worker",
        "run",
        "a worker asks the control plane by the traits of the run",
    ),
    (
        "transport",
        "http3",
        "pool",
        "a connection says how it fares in the pool's words",
    ),
    (
        "transport",
        "verify",
        "credentials",
        "certificates are judged by the bundle that credentials hold",
    ),
];

/// The modules of its crate that a file names, by the first step of their paths.
fn known_to(source: &Source) -> BTreeSet<String> {
    let lines = source.product_lines().map(|(_, line)| code(line));
    let text: String = lines.collect::<Vec<_>>().join("\n");
    let mut known = BTreeSet::new();
    for after in text.split("crate::").skip(1) {
        let names: Vec<&str> = match after.strip_prefix('{') {
            // `use crate::{one::Thing, other}`: what begins at the outermost level.
            Some(group) => {
                let (mut depth, mut starts) = (0, vec![0]);
                for (at, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => starts.push(at + 1),
                        _ => {}
                    }
                }
                starts.iter().map(|at| group[*at..].trim_start()).collect()
            }
            None => vec![after],
        };
        for name in names {
            let end =
                name.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '_');
            known.insert(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    known
}

/// A way from `from` to `to`, if there is one.
fn way(edges: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::from([from.to_owned()]);
    while !ways.is_empty() {
        let mut next = Vec::new();
        for way in ways {
            let Some(known) = way.last().and_then(|last| edges.get(last)) else {
                continue;
            };
            for step in known {
                let longer = [way.as_slice(), std::slice::from_ref(step)].concat();
                if step == to {
                    return Some(longer);
                }
                if seen.insert(step.clone()) {
                    next.push(longer);
                }
            }
        }
        ways = next;
    }
    None
}

#[test]
fn modules_do_not_know_each_other_in_a_circle() {
    let mut findings = Findings::default();
    for library_name in LIBRARIES {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in products() {
            let Some((_, inside)) = library(&source.path).filter(|(name, _)| *name == library_name)
            else {
                continue;
            };
            let module = inside
                .split(['/', '.'])
                .next()
                .unwrap_or_default()
                .to_owned();
            if module == "lib" {
                continue;
            }
            let known = known_to(&source);
            edges.entry(module).or_default().extend(known);
        }
        let modules: BTreeSet<String> = edges.keys().cloned().collect();
        for (module, known) in &mut edges {
            known.retain(|other| {
                let allowed = |(library, from, to, _): &(&str, &str, &str, &str)| {
                    *library == library_name && from == module && to == other
                };
                other != module && modules.contains(other) && !KNOWS_BACK.iter().any(allowed)
            });
        }
        for module in &modules {
            if let Some(way) =
                way(&edges, module, module).filter(|way| way.iter().min() == way.first())
            {
                findings.add(
                    &format!("{library_name}/src"),
                    0,
                    format!("a circle: {}. Move what the last needs down, pass it as an argument, or list the step here with its reason", way.join(" -> ")),
                );
            }
        }
    }
    findings.expect_none();
}

#[test]
fn what_a_file_knows_is_read_from_its_paths_outside_of_tests() {
    let file = |text: &str| Source {
        path: "proxy/src/one.rs".to_owned(),
        text: text.to_owned(),
    };
    let known = known_to(&file(
        "use crate::{metrics::{self, lock}, record};\nlet a = crate::limits::MAX;\n",
    ));
    let wanted = ["limits", "metrics", "record"].map(str::to_owned);
    assert_eq!(known, BTreeSet::from(wanted));
    let tests = "#[cfg(test)]\nmod testing;\nuse crate::a;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\nuse crate::c;\n";
    let wanted = ["a", "c"].map(str::to_owned);
    assert_eq!(known_to(&file(tests)), BTreeSet::from(wanted));
}

#[test]
fn a_circle_is_found_and_told_step_by_step() {
    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    let edges = BTreeMap::from([edge("a", "b"), edge("b", "c"), edge("c", "a")]);
    assert_eq!(way(&edges, "a", "a").unwrap().join(" "), "a b c a");
}
