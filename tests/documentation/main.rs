//! The documents name source files that exist. Metrics are checked in `metrics.rs` beside this file.
//!
//! `tests/tidy/` checks links; `config/tests/documentation/` checks the pages about settings.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test where they unwrap"
)]

mod metrics;
#[path = "../mesh/conformance/name.rs"]
mod name;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use name::cases_of;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown page of the repository's own.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/adr", "docs/resources", "compare"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// Every source file, relative to the root.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = [
        "src",
        "fuzz",
        "transport",
        "store",
        "ca",
        "config",
        "proxy",
        "loadtest",
        "netem-tests",
        "tests",
    ]
    .map(|name| root().join(name))
    .to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(relative) = path.strip_prefix(root()) {
                sources.push(relative.display().to_string());
            }
        }
    }
    sources
}

#[test]
fn every_source_file_that_a_page_names_exists() {
    let sources = sources();
    let mut missing = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for word in text.split([' ', '`', '\n', '(', ')', ',', ';', ':', '|']) {
            let is_source =
                word.ends_with(".rs") && !word.contains(['*', '<']) && word != "NAME.rs";
            let named = |source: &String| source == word || source.ends_with(&format!("/{word}"));
            // ARCHITECTURE.md says of some that they are yet to be made.
            let is_new = text.contains(&format!("`{word}` (new"));
            let is_known = is_new || sources.iter().any(named);
            if is_source && word != "src/command/NAME.rs" && !is_known {
                missing.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_readme_names_the_rust_version_that_the_manifest_asks_for() {
    let read = |name| fs::read_to_string(root().join(name)).unwrap();
    let manifest = read("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'))
        .unwrap();
    assert!(read("README.md").contains(&format!("Rust {version} or newer")));
}

/// The tests write the rows of docs/conformance.md (`tests/mesh/conformance/report.rs`); one that is gone
/// cannot take its row away.
#[test]
fn each_row_of_the_conformance_page_is_of_a_test_and_each_test_has_one() {
    let page = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let (made, _) = page.split_once("<!-- End of what is made. -->").unwrap();
    let lines = made.lines();
    let mut rows: Vec<&str> = lines
        .filter(|line| line.contains("`conformance::"))
        .collect();
    let mut missing = Vec::new();
    for (module, name) in conformance_tests() {
        let (cases, what) = cases_of(&name);
        if cases.is_empty() {
            continue;
        }
        let cases = cases.join(", ");
        let row = format!("| {cases} | {what} | passes | `conformance::{module}` |");
        let before = rows.len();
        rows.retain(|one| *one != row);
        if rows.len() == before {
            missing.push(row);
        }
    }
    assert!(
        missing.is_empty(),
        "no row, or one that says otherwise: {missing:#?}"
    );
    assert!(rows.is_empty(), "rows of tests that are gone: {rows:#?}");
}

/// The page lists the groups of cases with their last numbers, and the cases that do not pass.
#[test]
fn each_case_of_the_conformance_page_is_in_the_name_of_a_test_or_among_what_does_not_pass() {
    let page = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let mut wanted = BTreeSet::new();
    for line in page.lines() {
        // As in `| M1 to M23 | cases of the mesh profiles |`.
        if let Some(group) = line
            .strip_prefix("| ")
            .and_then(|rest| rest.split(" |").next())
        {
            wanted.extend(range(group));
        }
    }
    assert!(wanted.len() > 100, "{wanted:?}");
    let (_, failing) = page.split_once("## What does not pass").unwrap();
    let mut named: BTreeSet<String> = BTreeSet::new();
    for line in failing.lines() {
        let cell = line
            .strip_prefix("| ")
            .and_then(|rest| rest.split(" |").next());
        let cell = cell.unwrap_or_default();
        let (case, _) = cell.split_once(',').unwrap_or((cell, ""));
        named.extend(range(cell));
        named.insert(case.to_owned());
    }
    for (_, name) in conformance_tests() {
        let (cases, _) = cases_of(&name);
        let unknown: Vec<&String> = cases
            .iter()
            .filter(|case| !wanted.contains(*case))
            .collect();
        assert!(unknown.is_empty(), "{name}: the page lists no {unknown:?}");
        named.extend(cases);
    }
    let missing: Vec<&String> = wanted.difference(&named).collect();
    assert!(missing.is_empty(), "no test names {missing:?}");
}

/// The cases of `M1 to M23`; none of any other text.
fn range(text: &str) -> Vec<String> {
    let ends = text.split_once(" to ").and_then(|(first, last)| {
        let (group, first) = first.split_at_checked(1)?;
        let last = last.strip_prefix(group)?;
        Some((group, first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
    });
    let Some((group, first, last)) = ends else {
        return Vec::new();
    };
    (first..=last)
        .map(|number| format!("{group}{number}"))
        .collect()
}

/// Module and name of each test of the Gateway API.
fn conformance_tests() -> Vec<(String, String)> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(root().join("tests/mesh/conformance")).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        for test in text.split("#[test]\n").skip(1) {
            let name = test.trim_start_matches("fn ").split('(').next().unwrap();
            tests.push((module.to_owned(), name.to_owned()));
        }
    }
    tests
}
