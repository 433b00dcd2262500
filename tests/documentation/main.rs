//! The documents name source files that exist. Metrics are checked in `metrics.rs` beside this file.
//!
//! `tests/tidy/` checks links; `config/tests/documentation/` checks the pages about settings.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test where they unwrap"
)]

mod metrics;

use std::fs;
use std::path::{Path, PathBuf};

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

/// The first table of docs/conformance.md names a test module for each case; the module says so, too.
#[test]
fn each_case_of_the_conformance_page_is_one_of_the_tests_that_it_names() {
    let page = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let (passing, _) = page.split_once("## What does not pass").unwrap();
    let rows = passing
        .lines()
        .filter(|line| line.contains("`conformance::"));
    let mut listed = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let module = cells[3]
            .trim_matches('`')
            .trim_start_matches("conformance::");
        let path = root().join(format!("tests/mesh/conformance/{module}.rs"));
        let text = fs::read_to_string(path).unwrap();
        let head: String = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        let head: Vec<&str> = head.split(|c: char| !c.is_alphanumeric()).collect();
        let is_case =
            |word: &&str| word.starts_with(['M', 'G', 'X']) && word[1..].parse::<u32>().is_ok();
        let cases = cells[1].split(|c: char| !c.is_alphanumeric());
        for case in cases.filter(|word| !word.is_empty()).filter(is_case) {
            assert!(head.contains(&case), "{module}.rs does not name {case}");
            listed += 1;
        }
    }
    assert!(listed > 80, "only {listed} cases are listed");
}
