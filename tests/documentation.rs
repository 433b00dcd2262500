//! The documents name files that exist: links between pages, and source files in ARCHITECTURE.md.
//!
//! What the pages say of settings is checked in `config/tests/documentation.rs`.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown page of the repository's own.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/adr", "bench"] {
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
        "transport",
        "ca",
        "config",
        "proxy",
        "tests",
        "bench",
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
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap();
            let elsewhere = target.is_empty() || target.contains("://");
            if !elsewhere && !page.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
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
            if is_source && word != "src/command/NAME.rs" && !sources.iter().any(named) {
                missing.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
