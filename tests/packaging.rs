//! The output of `packaging/build`: everything is where a system looks for it, and works there.

#![allow(
    clippy::unwrap_used,
    reason = "the whole crate is tests: what does not hold must stop them"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const WEFT: &str = env!("CARGO_BIN_EXE_weft");

/// The packages of the command under test, and the tarball unpacked.
struct Packages {
    folder: TempDir,
}

impl Packages {
    fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build");
        let mut command = Command::new(script);
        // The umask of a build machine must not matter.
        run(command.arg(folder.path()).env("WEFT_BINARY", WEFT));
        let packages = Self { folder };
        std::fs::create_dir(packages.root("")).unwrap();
        let tarball = packages.one("weft-", ".tar.gz");
        run(Command::new("tar")
            .arg("-xf")
            .arg(tarball)
            .arg("-C")
            .arg(packages.root("")));
        packages
    }

    /// The one file whose name is this, a version, and this end.
    fn one(&self, start: &str, end: &str) -> PathBuf {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut found = entries.map(|entry| entry.unwrap().path()).filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            let rest = name.strip_prefix(start);
            name.ends_with(end)
                && rest.is_some_and(|rest| rest.starts_with(|it: char| it.is_ascii_digit()))
        });
        let path = found.next().unwrap_or_else(|| panic!("no *{end}"));
        assert!(found.next().is_none(), "more than one *{end}");
        path
    }

    fn root(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    fn text(&self, path: &str) -> String {
        let path = self.root(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    }
}

/// Its standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// `weft`, `weft proxy`, `weft proxy run` and all others that are listed, as the names of their pages.
fn commands() -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let help = run(Command::new(WEFT).args(&path).arg("--help"));
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in listed.take_while(|line| !line.is_empty()) {
            // What is more than one line of words about a command is indented further.
            let name = line.strip_prefix("  ").unwrap().split(' ').next().unwrap();
            if !name.is_empty() && name != "help" {
                open.push([path.as_slice(), &[name.to_owned()]].concat());
            }
        }
        pages.insert([&["weft".to_owned()], path.as_slice()].concat().join("-"));
    }
    pages
}

#[test]
fn a_package_has_stripped_commands_completions_pages_units_and_their_user() {
    let packages = Packages::build();

    let sections = |path: &Path| run(Command::new("readelf").args(["-S", "-W"]).arg(path));
    for (program, version) in [("weft", "weft 0."), ("weft-proxy", "weft-proxy 0.")] {
        let command = packages.root("usr/bin").join(program);
        let said = run(Command::new(&command).arg("--version"));
        assert!(said.starts_with(version), "{said}");
        let stripped = sections(&command);
        // What is left out is beside the packages.
        let debug = packages.one(&format!("{program}-"), ".debug");
        for symbols in [" .symtab ", " .debug_info ", " .debug_line "] {
            assert!(!stripped.contains(symbols), "{stripped}");
            assert!(sections(&debug).contains(symbols), "{debug:?}");
        }
    }

    let bash = packages.root("usr/share/bash-completion/completions/weft");
    let asked = format!(
        "source '{}' && COMP_WORDS=(weft pro) COMP_CWORD=1 && _weft weft pro weft && echo ${{COMPREPLY[*]}}",
        bash.display()
    );
    assert_eq!(run(Command::new("bash").args(["-c", &asked])), "proxy\n");
    let zsh = packages.text("usr/share/zsh/site-functions/_weft");
    assert!(zsh.starts_with("#compdef weft\n"));
    let fish = packages.text("usr/share/fish/vendor_completions.d/weft.fish");
    assert!(fish.contains("complete -c weft "));

    for page in commands() {
        let path = packages.root(&format!("usr/share/man/man1/{page}.1.gz"));
        let text = run(Command::new("gzip").arg("-dc").arg(&path));
        assert!(text.contains(&format!(".TH {page} 1")), "{page}: {text}");
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }

    let users = packages.text("usr/lib/sysusers.d/weft.conf");
    assert!(users.contains("\nu weft "));
    // `weft ca init` by that user, before the unit's first start, needs a directory where it may make one.
    let directories = packages.text("usr/lib/tmpfiles.d/weft.conf");
    assert!(directories.contains("\nd /var/lib/weft 0755 weft weft\n"));
    for (unit, program) in [
        ("weft-ca", "weft ca serve "),
        ("weft-config", "weft config serve "),
        ("weft-proxy@", "weft-proxy run "),
    ] {
        let unit = packages.text(&format!("usr/lib/systemd/system/{unit}.service"));
        assert!(
            unit.contains(&format!("\nExecStart=/usr/bin/{program}"))
                && unit.contains("\nUser=weft\n")
        );
    }
    for example in ["ca", "config", "proxy"] {
        packages.text(&format!("usr/share/doc/weft/examples/{example}.yaml"));
    }

    // The same as a Debian package, which has another place for zsh.
    if Command::new("dpkg-deb").arg("--version").output().is_ok() {
        let contents = run(Command::new("dpkg-deb")
            .arg("--contents")
            .arg(packages.one("weft_", ".deb")));
        for path in [
            "./usr/bin/weft",
            "./usr/bin/weft-proxy",
            "./usr/share/zsh/vendor-completions/_weft",
            "./usr/share/man/man1/weft.1.gz",
            "./usr/lib/systemd/system/weft-proxy@.service",
        ] {
            let line = contents.lines().find(|line| line.ends_with(path));
            assert!(
                line.is_some_and(|line| line.contains("root/root")),
                "{path}: {contents}"
            );
        }
    }
}
