//! How long files are, and how wide their comments.

use super::{Findings, rust_sources};

/// Lines of a file before its tests, and of a file of tests. A longer file has two subjects.
const LINES_MAX: usize = 500;

/// Median number of lines per file, tests included. Longer files are searched instead of read.
const MEDIAN_LINES_MAX: usize = 200;

/// Columns of a comment: what two files side by side have room for.
const COMMENT_COLUMNS_MAX: usize = 110;

#[test]
fn no_file_tells_more_than_one_story() {
    let mut findings = Findings::default();
    for source in rust_sources() {
        let lines = match source.is_test() {
            true => source.text.lines().count(),
            false => source.product_lines().count(),
        };
        if lines > LINES_MAX {
            let what_to_do = format!("{lines} lines: split it, one story to a file");
            findings.add(&source.path, LINES_MAX, what_to_do);
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

/// rustfmt keeps code within its own limit. Tables and addresses cannot be broken.
#[test]
fn comments_keep_within_their_columns() {
    let mut findings = Findings::default();
    for source in rust_sources() {
        for (index, line) in source.text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            let is_whole = line.contains("://") || line.contains(" | ");
            if is_comment && !is_whole && line.chars().count() > COMMENT_COLUMNS_MAX {
                let what_to_do = format!("break the comment within {COMMENT_COLUMNS_MAX} columns");
                findings.add(&source.path, index + 1, what_to_do);
            }
        }
    }
    findings.expect_none();
}
