//! The source's own rules, which reviews would otherwise have to check. Each test reads the files that git
//! knows and names every place that breaks its rule, with the remedy.
//!
//! Rules that clippy can check (no `unwrap`, no bare `tokio::spawn`, ...) are in `clippy.toml` and in
//! `[workspace.lints]`; a rule is here if it is about files, folders or words. This file has the rules of
//! tasks, locks and layers, and each of the others one subject.

#![allow(
    clippy::unwrap_used,
    reason = "the whole crate is tests: a file that cannot be read must stop them"
)]

mod architecture;
mod bounds;
mod circles;
mod dependencies;
mod fuzzing;
mod lengths;
mod words;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// The crates, each of which may depend on those before it.
const ORDER: [(&str, &str); 9] = [
    // Only for tests.
    ("weft-fuzz", "fuzz/Cargo.toml"),
    ("weft-transport", "transport/Cargo.toml"),
    ("weft-store", "store/Cargo.toml"),
    ("weft-ca", "ca/Cargo.toml"),
    ("weft-config", "config/Cargo.toml"),
    ("weft-proxy", "proxy/Cargo.toml"),
    // Beside the proxy, not above it: tools that measure a mesh use none of its insides.
    ("weft-loadtest", "loadtest/Cargo.toml"),
    ("weft-netem-tests", "netem-tests/Cargo.toml"),
    ("weft", "Cargo.toml"),
];

/// Libraries whose types stay inside one crate: its folder, what to use instead, and their names.
const INSIDE: [(&str, &str, &[&str]); 2] = [
    (
        "transport/",
        "weft_transport",
        &["quinn", "quinn_proto", "rustls", "tokio_rustls"],
    ),
    ("store/", "weft_store", &["redb"]),
];

/// Parts of `transport/`, each of which may use those before it.
const TRANSPORT_ORDER: [&str; 4] = ["http3", "endpoint", "wire", "pool"];

/// The one file that owns tasks of tokio itself.
const OWNERS: &str = "transport/src/tasks.rs";

/// Text that a file that calls itself pure must not contain, and what to use instead.
const IMPURE: [(&str, &str); 14] = [
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime::now", "take `now` as an argument"),
    ("rand::rng", "take the generator as an argument"),
    ("rand::random", "take the generator as an argument"),
    (
        "tokio::spawn",
        "return what is to be done; the shell does it",
    ),
    ("time::sleep", "return a deadline; the shell waits for it"),
    ("time::timeout", "return a deadline; the shell waits for it"),
    (
        "tokio::net",
        "take and return bytes; the shell owns sockets",
    ),
    ("TcpStream", "take and return bytes; the shell owns sockets"),
    (
        "TcpListener",
        "take and return bytes; the shell owns sockets",
    ),
    ("UdpSocket", "take and return bytes; the shell owns sockets"),
    ("std::fs", "take the contents as an argument"),
    ("tokio::fs", "take the contents as an argument"),
    ("std::env", "take the value as an argument"),
];

/// A file that git knows.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    /// Whether the whole file is test code.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
            || self.path.ends_with("_simulations.rs")
            || self.path.contains("_simulations/")
            || self.path.ends_with("/testing.rs")
    }

    /// The lines outside of tests, with their numbers from 1: all but the items behind `#[cfg(test)]`.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        enum Of {
            Product,
            /// The item of the attribute begins with the next line that is not an attribute.
            Attribute,
            /// It ends with the brace at the margin.
            Test,
        }
        let mut of = Of::Product;
        let numbered = self.text.lines().enumerate();
        numbered.filter_map(move |(index, line)| {
            let is_product = matches!(of, Of::Product) && line != "#[cfg(test)]";
            of = match of {
                Of::Product if line == "#[cfg(test)]" => Of::Attribute,
                Of::Attribute if line.starts_with("#[") => Of::Attribute,
                Of::Attribute if line.ends_with([';', '}']) => Of::Product,
                Of::Attribute => Of::Test,
                Of::Test if line == "}" || line == "};" => Of::Product,
                Of::Test => Of::Test,
                Of::Product => Of::Product,
            };
            is_product.then_some((index + 1, line))
        })
    }

    /// The comment that opens the file.
    fn header(&self) -> String {
        let lines = self.text.lines();
        let header: Vec<&str> = lines
            .take_while(|line| line.starts_with("//!"))
            .map(|line| line.trim_start_matches("//!").trim())
            .collect();
        header.join(" ")
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

/// The text files that git knows, as they stand in the work tree.
fn sources() -> Vec<Source> {
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git")
        .args(["-C", root, "ls-files", "-z"])
        .output()
        .expect("git lists the files");
    assert!(output.status.success(), "{output:?}");
    let names = String::from_utf8(output.stdout).unwrap();
    let paths = names.split('\0').filter(|path| !path.is_empty());
    let read = paths.filter_map(|path| {
        // A file that was deleted but not yet committed, or that is not text, has no lines to check.
        let text = std::fs::read_to_string(Path::new(root).join(path)).ok()?;
        Some(Source {
            path: path.to_owned(),
            text,
        })
    });
    read.collect()
}

fn rust_sources() -> Vec<Source> {
    sources().into_iter().filter(Source::is_rust).collect()
}

/// The crates that name their bounds in one place, and whose modules are told apart here.
const LIBRARIES: [&str; 6] = [
    "transport",
    "ca",
    "config",
    "proxy",
    "loadtest",
    "netem-tests",
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

/// Places that break a rule.
#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, path: &str, line: usize, what_to_do: impl std::fmt::Display) {
        writeln!(self.0, "{path}:{line}: {what_to_do}").unwrap();
    }

    #[track_caller]
    fn expect_none(self) {
        assert!(self.0.is_empty(), "\n{}", self.0);
    }
}

/// Whether `text` has `word` with no letter, digit or underscore beside it.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part)
    })
}

/// The part of a line before a comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn every_rust_file_opens_with_what_it_is() {
    let mut findings = Findings::default();
    for source in rust_sources() {
        if !source.text.starts_with("//!") {
            findings.add(
                &source.path,
                1,
                "open the file with `//!`: what it is, what it is not, where to go next",
            );
        }
    }
    findings.expect_none();
}

#[test]
fn every_task_has_an_owner_that_asks_whether_it_may_die_alone() {
    let crates = ["transport/src/", "ca/src/", "config/src/", "proxy/src/"];
    let mut findings = Findings::default();
    for source in rust_sources().iter().filter(|source| !source.is_test()) {
        let is_product = crates.iter().any(|one| source.path.starts_with(one));
        if !is_product || source.path.ends_with("_tests.rs") || source.path == OWNERS {
            continue;
        }
        for (number, line) in source.product_lines() {
            let owners = ["JoinSet", "TaskTracker", "spawn_local", "Handle::current"];
            if owners.iter().any(|owner| code(line).contains(owner)) {
                findings.add(
                    &source.path,
                    number,
                    "own tasks by `Tasks` or `TaskSet` of weft_transport::tasks",
                );
            }
        }
    }
    findings.expect_none();
}

#[test]
fn files_that_call_themselves_pure_are_pure() {
    let mut findings = Findings::default();
    let mut pure = 0;
    for source in rust_sources() {
        let header = source.header();
        if !has_word(&header, "Pure")
            || header.contains("Pure except")
            || header.contains("Pure but")
        {
            continue;
        }
        pure += 1;
        for (number, line) in source.product_lines() {
            for (word, instead) in IMPURE {
                if has_word(code(line), word) {
                    findings.add(
                        &source.path,
                        number,
                        format!("`{word}` in a file whose header says Pure: {instead}"),
                    );
                }
            }
        }
    }
    assert!(
        pure > 10,
        "only {pure} pure files were found: does the rule still find them?"
    );
    findings.expect_none();
}

#[test]
fn only_transport_names_quinn_and_rustls_and_only_store_names_redb() {
    let mut findings = Findings::default();
    let sources = rust_sources();
    let product = sources.iter().filter(|source| !source.is_test());
    for (source, (folder, wrapper, libraries)) in product.flat_map(|source| {
        let elsewhere = INSIDE
            .iter()
            .filter(|(folder, ..)| !source.path.starts_with(folder));
        elsewhere.map(move |inside| (source, inside))
    }) {
        for (number, line) in source.product_lines() {
            let code = code(line);
            let named = libraries.iter().filter(|library| {
                has_word(code, library)
                    && (code.contains(&format!("{library}::"))
                        || code.contains(&format!("use {library}")))
            });
            for library in named {
                findings.add(
                    &source.path,
                    number,
                    format!("`{library}` outside {folder}: wrap it in a type of {wrapper}"),
                );
            }
        }
    }
    findings.expect_none();
}

/// Files that take locks themselves: their locks are not of their own state.
const OWN_LOCKS: [&str; 2] = [
    "transport/src/endpoint/listener.rs",
    "loadtest/src/client/http3.rs",
];

#[test]
fn what_a_panic_means_for_a_lock_is_said_in_one_place() {
    let mut findings = Findings::default();
    for source in rust_sources() {
        let path = source.path.as_str();
        if path == "transport/src/locks.rs"
            || path.starts_with("tests/")
            || OWN_LOCKS.contains(&path)
        {
            continue;
        }
        for (number, line) in source.product_lines() {
            if has_word(code(line), "PoisonError") {
                findings.add(path, number, "take the lock with `weft_transport::locks`");
            }
        }
    }
    findings.expect_none();
}

#[test]
fn the_proxy_knows_the_wire_and_not_which_one() {
    let mut findings = Findings::default();
    for source in rust_sources() {
        if !source.path.starts_with("proxy/src/") {
            continue;
        }
        for (number, line) in source.product_lines() {
            if code(line).contains("weft_transport::http3") {
                let what_to_do = "use weft_transport::wire, or say there what is missing";
                findings.add(&source.path, number, what_to_do);
            }
        }
    }
    findings.expect_none();
}

#[test]
fn the_parts_of_transport_point_one_way() {
    let mut findings = Findings::default();
    for source in rust_sources() {
        let part =
            |(_, part): &(usize, &&str)| source.path.starts_with(&format!("transport/src/{part}/"));
        let Some((own, _)) = TRANSPORT_ORDER.iter().enumerate().find(part) else {
            continue;
        };
        if source.is_test() {
            continue;
        }
        for (number, line) in source.product_lines() {
            for later in &TRANSPORT_ORDER[own + 1..] {
                if has_word(code(line), later) && code(line).contains(&format!("crate::{later}")) {
                    let what_to_do = format!("{later} is built on this: move what is needed down");
                    findings.add(&source.path, number, what_to_do);
                }
            }
        }
    }
    findings.expect_none();
}
