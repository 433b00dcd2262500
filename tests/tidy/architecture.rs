//! What ARCHITECTURE.md says of files: those that it calls pure say so themselves, and those that its stories
//! and walks name are there.

use super::{Findings, Source, has_word, sources};

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

#[test]
fn names_are_found_in_the_tree_and_in_the_prose_after_it() {
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
