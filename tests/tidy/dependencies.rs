//! Which way the crates depend on each other, and that each uses what it depends on.

use super::{Findings, LIBRARIES, ORDER, Source, code, has_word, sources};

/// Dependencies that no source file names, with the reason.
const UNNAMED: [(&str, &str); 2] = [
    ("prost", "the code that is made of .proto files names it"),
    (
        "tonic-prost",
        "the code that is made of .proto files names it",
    ),
];

#[test]
fn dependencies_between_the_crates_point_one_way() {
    let mut findings = Findings::default();
    for source in sources() {
        let Some(own) = ORDER.iter().position(|(_, path)| *path == source.path) else {
            continue;
        };
        let mut section = "";
        for (index, line) in source.text.lines().enumerate() {
            if line.starts_with('[') {
                section = line;
            }
            // Tests may look back; a program may not.
            if section != "[dependencies]" && section != "[build-dependencies]" {
                continue;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let found = ORDER.iter().position(|(crate_name, _)| *crate_name == name);
            if found.is_some_and(|found| found >= own) {
                findings.add(
                    &source.path,
                    index + 1,
                    format!("{name} is built on this crate: move what is needed down, or take it as an argument"),
                );
            }
        }
    }
    findings.expect_none();
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
