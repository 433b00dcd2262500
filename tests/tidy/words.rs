//! Words and links that lead nowhere for a reader of this repository, and tests that are switched off.

use std::path::Path;

use super::{Findings, has_extension, has_word, rust_sources, sources};

#[test]
fn nothing_is_left_for_later_in_a_comment() {
    // In two parts, so that this file does not match itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
    ];
    let mut findings = Findings::default();
    for source in sources() {
        if has_extension(&source.path, "lock") {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            for word in words {
                if has_word(line, word) {
                    findings.add(
                        &source.path,
                        index + 1,
                        format!("{word}: do it, or file it where work is planned"),
                    );
                }
            }
        }
    }
    findings.expect_none();
}

#[test]
fn no_test_is_switched_off() {
    let attribute = concat!("#[ig", "nore");
    let mut findings = Findings::default();
    for source in rust_sources() {
        for (index, line) in source.text.lines().enumerate() {
            if line.trim_start().starts_with(attribute) {
                findings.add(
                    &source.path,
                    index + 1,
                    "assert what holds at present and say why it is wrong, or delete the test",
                );
            }
        }
    }
    findings.expect_none();
}

#[test]
fn no_file_names_a_path_of_the_place_where_it_was_written() {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/tmp/", "plan"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
    ];
    let mut findings = Findings::default();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            for place in places {
                if line.contains(place) {
                    findings.add(
                        &source.path,
                        index + 1,
                        format!(
                            "`{place}` exists on one machine only: write a path of the repository"
                        ),
                    );
                }
            }
        }
    }
    findings.expect_none();
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut findings = Findings::default();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in sources() {
        if !has_extension(&source.path, "md") {
            continue;
        }
        let folder = root.join(&source.path);
        let folder = folder.parent().unwrap();
        for (index, line) in source.text.lines().enumerate() {
            for target in link_targets(line) {
                let file = target.split('#').next().unwrap_or_default();
                if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                    findings.add(
                        &source.path,
                        index + 1,
                        format!("the link to `{target}` leads nowhere: mend or drop it"),
                    );
                }
            }
        }
    }
    findings.expect_none();
}

/// The text between `](` and `)`.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}
