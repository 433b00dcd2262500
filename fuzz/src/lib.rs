//! Fuzz targets: a property of a decoder of foreign bytes, and files with bytes for which it must hold. For
//! tests only.
//!
//! A target replays each file of `CRATE/fuzz/corpus/TARGET`, then a fixed number of inputs that are made of
//! these files ([`mutate`]). The numbers are drawn from a seed that is the same in each run, so a test fails
//! always or never. An input with a result that was not seen before joins those that others are made of: so
//! the target itself leads to the rarer parts of its decoder. An input that breaks the property is cut down
//! and written beside the other files.
//!
//! How to run a target for long is in CONTRIBUTING.md; why it is not a fuzzing engine in
//! `docs/adr/0024-fuzzing.md`.

mod mutate;

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use mutate::Mutator;

/// How many inputs are made, if another number than the target's own is wanted.
const ROUNDS: &str = "WEFT_FUZZ_ROUNDS";
/// Where the random numbers begin, if not at 0.
const SEED: &str = "WEFT_FUZZ_SEED";
/// A file that is to be the only input.
const INPUT: &str = "WEFT_FUZZ_INPUT";

/// Inputs that others are made of, the files included: more would only be looked at less.
const POOL_MAX: usize = 4096;

/// Attempts to cut down an input that breaks the property.
const CUTS_MAX: u32 = 2000;

/// Bytes up to which [`in_pieces`] cuts at each place.
const CUT_EVERYWHERE_MAX: usize = 64;

/// A property, and the inputs for which it must hold.
#[derive(Debug)]
pub struct Target {
    name: &'static str,
    folder: PathBuf,
    rounds: u64,
    longest: usize,
    words: &'static [&'static str],
}

/// What a target returned, each once.
#[derive(Debug)]
pub struct Seen(BTreeSet<String>);

impl Target {
    /// The target of that name in the crate with that folder (`env!("CARGO_MANIFEST_DIR")`).
    pub fn new(crate_folder: &str, name: &'static str) -> Self {
        Self {
            name,
            folder: Path::new(crate_folder).join("fuzz/corpus").join(name),
            rounds: 2000,
            longest: 4096,
            words: &[],
        }
    }

    /// So many inputs are made after the files were replayed: as many as a second has time for.
    #[must_use]
    pub fn rounds(self, rounds: u64) -> Self {
        Self { rounds, ..self }
    }

    /// No input is made that is longer, in bytes.
    #[must_use]
    pub fn longest(self, longest: usize) -> Self {
        Self { longest, ..self }
    }

    /// Texts that mean something to the decoder.
    #[must_use]
    pub fn words(self, words: &'static [&'static str]) -> Self {
        Self { words, ..self }
    }

    /// Checks the property, which panics where it does not hold, and else says in a word what it saw.
    ///
    /// # Panics
    /// If it does not hold, or if there is no file.
    pub fn run<T: Display>(self, property: impl Fn(&[u8]) -> T) -> Seen {
        if let Some(path) = variable(INPUT) {
            let input = read(Path::new(&path));
            return Seen(BTreeSet::from([property(&input).to_string()]));
        }
        let mut seen = Seen(BTreeSet::new());
        let mut pool = Vec::new();
        let mut all_broken = Vec::new();
        for (path, input) in self.files() {
            match check(&property, &input) {
                Ok(said) => drop(seen.0.insert(said)),
                Err(broken) => all_broken.push(format!("{}: {broken}", path.display())),
            }
            pool.push(input);
        }
        assert!(
            all_broken.is_empty(),
            "{} with {}",
            self.name,
            all_broken.join("\nand with ")
        );
        let seed = number(SEED).unwrap_or_default() ^ hash(self.name.as_bytes());
        let mut mutator = Mutator {
            random: StdRng::seed_from_u64(seed),
            longest: self.longest,
            words: self.words,
        };
        let asked = number(ROUNDS);
        let rounds = asked.unwrap_or(self.rounds);
        for _ in 0..rounds {
            let input = mutator.next(&pool);
            match check(&property, &input) {
                Ok(said) => {
                    if seen.0.insert(said) && pool.len() < POOL_MAX {
                        pool.push(input);
                    }
                }
                Err(_) => self.report(&property, input),
            }
        }
        if asked.is_some() {
            tell(&format!(
                "{}: {rounds} inputs, what they said: {:?}",
                self.name, seen.0
            ));
        }
        seen
    }

    /// Each file, in the order of their names.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = self.folder.display();
        let Ok(entries) = std::fs::read_dir(&self.folder) else {
            panic!("no folder {folder}: put an input there");
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        assert!(!paths.is_empty(), "no file in {folder}: put an input there");
        paths
            .into_iter()
            .map(|path| (path.clone(), read(&path)))
            .collect()
    }

    fn report<T: Display>(&self, property: &impl Fn(&[u8]) -> T, input: Vec<u8>) -> ! {
        let (input, broken) = cut_down(property, input);
        let path = self.folder.join(format!("found-{:016x}", hash(&input)));
        let kept = match std::fs::write(&path, &input) {
            Ok(()) => format!("written to {}: name it and keep it", path.display()),
            Err(error) => format!("not written to {}: {error}", path.display()),
        };
        panic!(
            "{} with \"{}\", {kept}: {broken}",
            self.name,
            input.escape_ascii()
        );
    }
}

impl Seen {
    /// Checks that the inputs lead where the property has something to say.
    ///
    /// # Panics
    /// If none of them led there.
    #[track_caller]
    pub fn expect(&self, said: &str) -> &Self {
        let is_there = self.0.contains(said) || variable(INPUT).is_some();
        assert!(is_there, "no input is {said:?}, but {:?}", self.0);
        self
    }
}

/// The ways in which these bytes may arrive: byte by byte, and in two pieces, cut at each place or, if they
/// are many, at some.
pub fn in_pieces(input: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let step = input.len().div_ceil(CUT_EVERYWHERE_MAX).max(1);
    let cuts = (0..=input.len()).step_by(step);
    let in_two = cuts.map(|at| {
        let (first, rest) = input.split_at(at);
        vec![first, rest]
    });
    std::iter::once(input.chunks(1).collect()).chain(in_two)
}

/// What the property says of the input, or how it is broken.
fn check<T: Display>(property: &impl Fn(&[u8]) -> T, input: &[u8]) -> Result<String, Broken> {
    // A broken property is reported once, and not for each input that it was cut down from.
    quietly(|| panic::catch_unwind(AssertUnwindSafe(|| property(input).to_string())))
        .map_err(|payload| Broken::of(&*payload))
}

/// The shortest input for which the property is broken, as far as simple cuts lead, and how.
fn cut_down<T: Display>(property: &impl Fn(&[u8]) -> T, input: Vec<u8>) -> (Vec<u8>, Broken) {
    let mut best = input;
    let mut attempts = 0;
    let mut size = best.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < best.len() && attempts < CUTS_MAX {
            attempts += 1;
            let mut shorter = best.clone();
            shorter.drain(at..(at + size).min(best.len()));
            if check(property, &shorter).is_err() {
                best = shorter;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    match check(property, &best) {
        Err(broken) => (best, broken),
        Ok(_) => (best, Broken("it is not broken each time".into())),
    }
}

/// What a panic said.
#[derive(Debug)]
struct Broken(String);

impl Broken {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "a panic that says nothing".into()))
    }
}

impl Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Does it without a word of the panic hook, on this thread.
fn quietly<T>(run: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    let was = QUIET.replace(true);
    let done = run();
    QUIET.set(was);
    done
}

#[expect(clippy::print_stderr, reason = "libtest has no other place for it")]
fn tell(text: &str) {
    eprintln!("{text}");
}

fn read(path: &Path) -> Vec<u8> {
    match std::fs::read(path) {
        Ok(input) => input,
        Err(error) => panic!("{}: {error}", path.display()),
    }
}

fn number(name: &str) -> Option<u64> {
    let text = variable(name)?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} is {text:?}, which is no number"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "cargo leaves a test's arguments to libtest, so this is how a person tells a target something"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// FNV-1a: the same in each build.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(files: &[&str]) -> (tempfile::TempDir, Target) {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::new(folder.path().to_str().unwrap(), "letters");
        std::fs::create_dir_all(&target.folder).unwrap();
        for file in files {
            std::fs::write(target.folder.join(file), file).unwrap();
        }
        (folder, target)
    }

    fn failure(run: impl FnOnce() -> Seen) -> String {
        let payload = quietly(|| panic::catch_unwind(AssertUnwindSafe(run))).unwrap_err();
        Broken::of(&*payload).0
    }

    #[test]
    fn each_file_is_replayed_and_one_that_breaks_the_property_is_named() {
        let (_folder, target) = target(&["good", "worse", "bad"]);
        let said = failure(|| {
            target.run(|input| {
                assert!(input != b"worse", "no good");
                "fine"
            })
        });
        assert!(said.starts_with("letters with "), "{said}");
        assert!(said.ends_with("letters/worse: no good"), "{said}");
    }

    #[test]
    fn an_input_that_breaks_the_property_is_found_cut_down_and_kept() {
        let property = |input: &[u8]| {
            let zs = input.iter().filter(|byte| **byte == b'z').count();
            assert!(zs < 4, "four of them");
            zs
        };
        let (folder, target) = target(&["abczdef"]);
        let said = failure(|| target.rounds(100_000).run(property));
        assert!(said.contains("\"zzzz\", written to"), "{said}");
        let kept = folder.path().join("fuzz/corpus/letters");
        let kept = std::fs::read_dir(kept).unwrap();
        assert_eq!(kept.count(), 2);
    }

    #[test]
    fn the_same_inputs_are_made_in_each_run() {
        let inputs = || {
            let (_folder, target) = target(&["abc", "{\"a\": 17}"]);
            let inputs = std::cell::RefCell::new(Vec::new());
            target.rounds(500).words(&["word"]).run(|input| {
                inputs.borrow_mut().push(input.to_vec());
                input.len()
            });
            inputs.into_inner()
        };
        let first = inputs();
        assert_eq!(first.len(), 502);
        assert_eq!(first, inputs());
        assert!(first.iter().all(|input| input.len() <= 4096));
    }

    #[test]
    fn a_target_that_never_sees_what_it_is_about_says_so() {
        let (_folder, target) = target(&["abc"]);
        let seen = target.rounds(0).run(|_| "refused");
        seen.expect("refused");
        let said = failure(|| {
            seen.expect("accepted");
            Seen(BTreeSet::new())
        });
        assert_eq!(said, "no input is \"accepted\", but {\"refused\"}");
    }

    #[test]
    fn bytes_arrive_one_by_one_and_cut_at_each_place() {
        let ways: Vec<_> = in_pieces(b"ab").collect();
        let expected: [Vec<&[u8]>; 4] = [
            vec![b"a", b"b"],
            vec![b"", b"ab"],
            vec![b"a", b"b"],
            vec![b"ab", b""],
        ];
        assert_eq!(ways, expected);
        assert!(in_pieces(&[0; 10_000]).count() < 70);
    }
}
