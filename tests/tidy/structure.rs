//! How the parts of the source depend on each other: which files are pure, where bounds are, which modules
//! know each other, how long files are, and which dependencies are used.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Source, code, has_word, rust_sources, sources};

/// The crates that name their bounds in one place, and whose modules are told apart here.
const LIBRARIES: [&str; 6] = [
    "transport",
    "ca",
    "config",
    "proxy",
    "loadtest",
    "netem-tests",
];

/// Median number of lines per file, tests included. Longer files are searched instead of read.
const MEDIAN_LINES_MAX: usize = 200;

/// Consts that bound something and are outside of `limits.rs`, with the reason.
const BOUNDS_ELSEWHERE: [(&str, &str, &str); 36] = [
    (
        "ca/src/rates.rs",
        "MINUTE",
        "a name for 60 s, bounds nothing",
    ),
    ("config/src/server/pace.rs", "AHEAD", "made of two limits"),
    (
        "loadtest/src/early_wake.rs",
        "LONGER",
        "a step of an estimate; the comment derives it",
    ),
    (
        "loadtest/src/early_wake.rs",
        "SHORTER",
        "a step of an estimate; the comment derives it",
    ),
    ("netem-tests/src/link/ip.rs", "HEADER_MIN", "RFC 791"),
    (
        "proxy/src/resilience/deadline.rs",
        "LONGEST",
        "stands for none, in the file that gives it this meaning",
    ),
    (
        "proxy/src/resilience/overload/classes.rs",
        "PERIOD",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/classes.rs",
        "USUAL_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/mod.rs",
        "PAUSE",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/mod.rs",
        "PAUSE_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "JUDGED_TIME",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "JUDGED_FEW_TIME",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "JUDGED_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "SETTLED_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "RETRY_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "UNNEEDED",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/regulator.rs",
        "USELESS",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "TICK",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "TICK_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "LOSS_AGE",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/watch.rs",
        "LOSS_MIN",
        "a constant of the control law that the file describes",
    ),
    (
        "proxy/src/resilience/overload/waiting.rs",
        "QUEUED_MAX",
        "a constant of the control law that the file describes",
    ),
    (
        "transport/src/wire/memory/mod.rs",
        "PROOF",
        "the life of an identity in tests",
    ),
    (
        "transport/src/congestion.rs",
        "FASTEST_KEPT",
        "a constant of the algorithm that the file describes",
    ),
    (
        "transport/src/endpoint/amplification.rs",
        "HELLO_MIN",
        "RFC 9000",
    ),
    ("transport/src/endpoint/socket.rs", "RECEIVE_MAX", "RFC 768"),
    ("transport/src/http3/frame.rs", "HEADER_MAX", "RFC 9114"),
    (
        "transport/src/http3/qpack/huffman.rs",
        "LENGTH_MIN",
        "RFC 7541",
    ),
    (
        "transport/src/http3/qpack/huffman.rs",
        "LENGTH_MAX",
        "RFC 7541",
    ),
    (
        "transport/src/http3/qpack/integer.rs",
        "BITS_MAX",
        "RFC 9204",
    ),
    ("transport/src/http3/varint.rs", "LENGTH_MAX", "RFC 9000"),
    ("transport/src/http3/varint.rs", "MAX", "RFC 9000"),
    ("transport/src/liveness.rs", "ACK_DELAY_MAX", "RFC 9000"),
    (
        "transport/src/private_socket.rs",
        "PATH_BYTES_MAX",
        "unix(7)",
    ),
    (
        "transport/src/units.rs",
        "GROUPS_MAX",
        "a rule of the grammar that the file describes",
    ),
    (
        "transport/src/units.rs",
        "DIGITS_MAX",
        "a rule of the grammar that the file describes",
    ),
];

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

/// Dependencies that no source file names, with the reason.
const UNNAMED: [(&str, &str); 2] = [
    ("prost", "the code that is made of .proto files names it"),
    (
        "tonic-prost",
        "the code that is made of .proto files names it",
    ),
];

fn library(path: &str) -> Option<(&'static str, &str)> {
    LIBRARIES.into_iter().find_map(|library| {
        let inside = path.strip_prefix(library)?.strip_prefix("/src/")?;
        Some((library, inside))
    })
}

fn products() -> Vec<Source> {
    let mut sources = rust_sources();
    sources.retain(|source| !source.is_test() && !source.path.starts_with("tests/"));
    sources
}

/// The files that the tree of ARCHITECTURE.md calls pure, as crate and name.
fn called_pure(architecture: &str) -> Vec<(String, String)> {
    let tree = architecture.split("```").nth(1).unwrap_or_default();
    let (mut library, mut entries) = (String::new(), Vec::<(String, String)>::new());
    for line in tree.lines().filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        match indent {
            0 => library = line.split('/').next().unwrap_or_default().to_owned(),
            2 => entries.push((library.clone(), line.trim().to_owned())),
            // A further line of the entry above.
            _ => {
                if let Some((_, text)) = entries.last_mut() {
                    text.push(' ');
                    text.push_str(line.trim());
                }
            }
        }
    }
    let mut pure = Vec::new();
    for (library, text) in &entries {
        for part in text.split(';').filter(|part| part.contains("(pure)")) {
            let before = part.split("(pure)").next().unwrap_or_default();
            let words = before.split([' ', ',', ':']);
            let mut names = words.filter(|word| word.ends_with(".rs") || word.ends_with('/'));
            if let Some(name) = names.next_back() {
                pure.push((library.clone(), name.to_owned()));
            }
        }
    }
    pure
}

#[test]
fn files_that_the_architecture_calls_pure_say_so_themselves() {
    let sources = sources();
    let architecture = sources
        .iter()
        .find(|source| source.path == "ARCHITECTURE.md");
    let called = called_pure(&architecture.unwrap().text);
    assert!(
        called.len() > 20,
        "does the rule still find them? {called:?}"
    );
    let mut findings = Findings::default();
    for (library, name) in called {
        // A folder is what its first file says.
        let is_it = |source: &&Source| {
            let inside = source.path.strip_prefix(&format!("{library}/src/"));
            inside.is_some_and(|inside| match name.strip_suffix('/') {
                Some(folder) => {
                    inside == format!("{folder}.rs") || inside == format!("{folder}/mod.rs")
                }
                None => format!("/{inside}").ends_with(&format!("/{name}")),
            })
        };
        let found: Vec<_> = sources.iter().filter(is_it).collect();
        if found.is_empty() {
            findings.add(
                "ARCHITECTURE.md",
                0,
                format!("{library}: {name} is called pure, and is not there"),
            );
        }
        for source in found {
            if !has_word(&source.header(), "Pure") {
                findings.add(
                    &source.path,
                    1,
                    "ARCHITECTURE.md calls it pure: say `Pure.` here, where it is checked",
                );
            }
        }
    }
    findings.expect_none();
}

/// The files and folders that the stories and walks of ARCHITECTURE.md name, with their lines: not the tree,
/// and not what a walk calls new.
fn named_in_prose(architecture: &str) -> Vec<(usize, &str)> {
    const ENDS: [&str; 6] = [".rs", ".md", ".yaml", ".proto", ".toml", "/"];
    let tree = architecture.rfind("```").unwrap_or_default();
    let mut line = architecture[..tree].matches('\n').count() + 1;
    let mut parts = architecture[tree..].split('`').skip(3).peekable();
    let mut named = Vec::new();
    while let (Some(prose), Some(word)) = (parts.next(), parts.next()) {
        line += prose.matches('\n').count();
        let is_name = ENDS.iter().any(|end| word.ends_with(end)) && !word.contains([' ', '\n']);
        let after = parts.peek().copied().unwrap_or_default().trim_start();
        if is_name && !word.contains("NAME") && !word.starts_with('/') && !after.starts_with("(new")
        {
            named.push((line, word));
        }
        line += word.matches('\n').count();
    }
    named
}

#[test]
fn files_that_the_stories_and_walks_name_are_there() {
    let sources = sources();
    let architecture = sources
        .iter()
        .find(|source| source.path == "ARCHITECTURE.md");
    let named = named_in_prose(&architecture.unwrap().text);
    assert!(named.len() > 100, "does the rule still find them?");
    let mut findings = Findings::default();
    for (line, name) in named {
        let is_there = sources.iter().any(|source| {
            let path = format!("/{}", source.path);
            match name.ends_with('/') {
                true => path.contains(&format!("/{name}")),
                false => path.ends_with(&format!("/{name}")),
            }
        });
        if !is_there {
            let told = format!("{name} is not there: name the file that has its story now");
            findings.add("ARCHITECTURE.md", line, told);
        }
    }
    findings.expect_none();
}

/// The name of a const that bounds something: a length of time, or a number that is called a bound.
fn bound(line: &str) -> Option<&str> {
    let code = code(line).trim_start();
    let code = code
        .strip_prefix("pub(crate) ")
        .or_else(|| code.strip_prefix("pub(super) "))
        .unwrap_or(code);
    let code = code
        .strip_prefix("pub ")
        .unwrap_or(code)
        .strip_prefix("const ")?;
    let (name, rest) = code.split_once(": ")?;
    let kind = rest.split(" =").next()?;
    let is_number = ["usize", "u8", "u16", "u32", "u64", "f64"].contains(&kind);
    let parts: Vec<&str> = name.split('_').collect();
    let ends = ["MAX", "MIN", "LIMIT", "TIMEOUT", "INTERVAL", "CAP"];
    let is_bound = parts.last().is_some_and(|last| ends.contains(last));
    (kind == "Duration" || is_number && is_bound).then_some(name)
}

#[test]
fn bounds_stand_in_the_limits_of_their_crate() {
    let mut findings = Findings::default();
    for source in products() {
        let Some((_, inside)) = library(&source.path) else {
            continue;
        };
        let is_place =
            inside.ends_with("limits.rs") || inside.contains("limits/") || inside == "tuning.rs";
        if is_place {
            continue;
        }
        for (number, line) in source.product_lines() {
            let Some(name) = bound(line) else { continue };
            let listed =
                |(path, allowed, _): &(&str, &str, &str)| *path == source.path && *allowed == name;
            if !BOUNDS_ELSEWHERE.iter().any(listed) {
                findings.add(
                    &source.path,
                    number,
                    format!("`{name}` bounds something: move it to limits.rs with its unit and reason, or list it here with the reason why not"),
                );
            }
        }
    }
    findings.expect_none();
}

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
fn the_file_in_the_middle_is_read_in_one_go() {
    let mut lines: Vec<usize> = rust_sources()
        .iter()
        .map(|source| source.text.lines().count())
        .collect();
    lines.sort_unstable();
    let median = lines[lines.len() / 2];
    assert!(
        median <= MEDIAN_LINES_MAX,
        "half of the files have {median} lines or more: split the longest stories"
    );
}

#[test]
fn every_dependency_is_used_by_its_crate() {
    let sources = sources();
    let mut findings = Findings::default();
    for manifest in sources
        .iter()
        .filter(|source| source.path.ends_with("Cargo.toml"))
    {
        let folder = manifest.path.trim_end_matches("Cargo.toml");
        let is_own = |path: &str| {
            let Some(inside) = path.strip_prefix(folder) else {
                return false;
            };
            !folder.is_empty()
                || !LIBRARIES
                    .iter()
                    .any(|library| inside.starts_with(&format!("{library}/")))
        };
        let own: Vec<&Source> = sources
            .iter()
            .filter(|source| source.is_rust() && is_own(&source.path))
            .collect();
        let mut section = "";
        for (index, line) in manifest.text.lines().enumerate() {
            if line.starts_with('[') {
                section = line;
            }
            let is_list = [
                "[dependencies]",
                "[dev-dependencies]",
                "[build-dependencies]",
            ]
            .contains(&section);
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !is_list || name.is_empty() || name.starts_with(['#', '[']) {
                continue;
            }
            let word = match name {
                // Its library has another name.
                "rustls-webpki" => "webpki".to_owned(),
                name => name.replace('-', "_"),
            };
            let is_named =
                |source: &&Source| source.text.lines().any(|line| has_word(code(line), &word));
            let is_listed = UNNAMED.iter().any(|(unnamed, _)| *unnamed == name);
            if !is_listed && !own.iter().any(is_named) {
                findings.add(
                    &manifest.path,
                    index + 1,
                    format!("{name}: no source file of this crate names it; take it out, or list it here with the reason"),
                );
            }
        }
    }
    // Dependencies of the workspace that no crate uses.
    let root = sources
        .iter()
        .find(|source| source.path == "Cargo.toml")
        .unwrap();
    let mut is_workspace = false;
    for (index, line) in root.text.lines().enumerate() {
        if line.starts_with('[') {
            is_workspace = line == "[workspace.dependencies]";
        }
        let Some((name, _)) = line
            .split_once(" = ")
            .filter(|(name, _)| is_workspace && !name.contains('#'))
        else {
            continue;
        };
        let taken = [
            format!("{name}.workspace = true"),
            format!("{name} = {{ workspace = true"),
        ];
        let mut manifests = sources
            .iter()
            .filter(|source| source.path.ends_with("Cargo.toml"));
        let is_taken = manifests.any(|source| {
            let mut lines = source.text.lines();
            lines.any(|line| taken.iter().any(|taken| line.starts_with(taken.as_str())))
        });
        if !is_taken {
            findings.add(
                "Cargo.toml",
                index + 1,
                format!("{name}: no crate depends on it; take it out"),
            );
        }
    }
    findings.expect_none();
}

#[test]
fn the_rules_of_this_file_find_what_breaks_them() {
    let file = |text: &str| Source {
        path: "proxy/src/one.rs".to_owned(),
        text: text.to_owned(),
    };
    for (line, name) in [
        (
            "const WAIT: Duration = Duration::from_secs(1);",
            Some("WAIT"),
        ),
        ("pub(crate) const PEERS_MAX: usize = 8;", Some("PEERS_MAX")),
        ("    const TIMEOUT: u64 = 8;", Some("TIMEOUT")),
        ("const NAMES: usize = 8;", None),
        ("// const PEERS_MAX: usize = 8;", None),
    ] {
        assert_eq!(bound(line), name, "{line}");
    }
    let known = known_to(&file(
        "use crate::{metrics::{self, lock}, record};\nlet a = crate::limits::MAX;\n",
    ));
    let wanted = ["limits", "metrics", "record"].map(str::to_owned);
    assert_eq!(known, BTreeSet::from(wanted));
    let tests = "#[cfg(test)]\nmod testing;\nuse crate::a;\n#[cfg(test)]\nmod tests {\n    use crate::b;\n}\nuse crate::c;\n";
    let wanted = ["a", "c"].map(str::to_owned);
    assert_eq!(known_to(&file(tests)), BTreeSet::from(wanted));
    let edge = |from: &str, to: &str| (from.to_owned(), BTreeSet::from([to.to_owned()]));
    let edges = BTreeMap::from([edge("a", "b"), edge("b", "c"), edge("c", "a")]);
    assert_eq!(way(&edges, "a", "a").unwrap().join(" "), "a b c a");
    let tree = "```\nproxy/ x\n  one.rs two.rs  what (pure); three.rs: that\n                is more (pure)\n```";
    let wanted =
        [("proxy", "two.rs"), ("proxy", "three.rs")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(called_pure(tree), wanted);
    let prose = format!(
        "{tree}\n`one.rs`, `two()`,\n`three/` (a folder), `four.rs`\n(new), `NAME.rs`, `five.md`"
    );
    let wanted = [(6, "one.rs"), (7, "three/"), (8, "five.md")];
    assert_eq!(named_in_prose(&prose), wanted);
}
