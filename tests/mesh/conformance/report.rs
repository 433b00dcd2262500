//! The page that says what passes, `docs/conformance.md`, and the results of the tests: each test of a case
//! compares its own row with how it ended. With `UPDATE_PAGES=1` it writes the row. Which cases those are,
//! the name of the test says (`name.rs`).

use std::fs::{self, File};
use std::path::Path;
use std::thread;

use super::name::cases_of;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conformance.md");
const BEGIN: &str = "<!-- Made by the tests in tests/mesh/conformance: UPDATE_PAGES=1 scripts/test --test mesh conformance:: -->\n\
     | cases | what | result | tests |\n|---|---|---|---|\n";
const END: &str = "<!-- End of what is made. -->\n";

/// Held by a test from the place where it begins to judge. What it finds is known when this is dropped.
pub(super) struct Judging {
    /// Its path, as `conformance::matching::m1_requests_go_somewhere`.
    test: String,
}

/// The running test judges the cases that its name has. A test that is skipped judges none.
pub(super) fn judging() -> Judging {
    let thread = thread::current();
    let test = thread.name().expect("a test has a name").to_owned();
    Judging { test }
}

impl Judging {
    fn row(&self, result: &str) -> String {
        let (module, name) = self.test.rsplit_once("::").unwrap();
        let (cases, what) = cases_of(name);
        assert!(!cases.is_empty(), "{name} begins with no case");
        let cases = cases.join(", ");
        format!("| {cases} | {what} | {result} | `{module}` |\n")
    }
}

impl Drop for Judging {
    fn drop(&mut self) {
        let (passes, writes) = (
            !thread::panicking(),
            std::env::var_os("UPDATE_PAGES").is_some(),
        );
        if !passes && !writes {
            return;
        }
        let row = self.row(if passes { "passes" } else { "fails" });
        // Tests run beside each other.
        let lock = File::create(std::env::temp_dir().join("weft-conformance-page.lock")).unwrap();
        lock.lock().unwrap();
        let page = fs::read_to_string(PAGE).unwrap();
        if writes {
            let others = rows(&page).filter(|one| !is_of(one, &self.row("")));
            let mut rows: Vec<String> = others.map(str::to_owned).collect();
            rows.push(row);
            rows.sort_by_key(|row| cells(row).map(str::to_owned));
            let (before, rest) = page.split_once(BEGIN).expect("the page has its table");
            let (_, after) = rest.split_once(END).expect("the table has an end");
            let text = [before, BEGIN, &rows.concat(), END, after].concat();
            write(Path::new(PAGE), &text);
        } else if !rows(&page).any(|one| one == row) {
            drop(lock);
            panic!(
                "docs/conformance.md has no row like this; run this test with UPDATE_PAGES=1:\n{row}"
            );
        }
    }
}

/// Whole or not at all.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

fn rows(page: &str) -> impl Iterator<Item = &str> {
    let table = page
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END));
    table.map_or("", |(rows, _)| rows).split_inclusive('\n')
}

/// Its module and its test, which name a row.
fn cells(row: &str) -> [&str; 2] {
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    [cells[4], cells[2]]
}

fn is_of(row: &str, other: &str) -> bool {
    cells(row) == cells(other)
}
