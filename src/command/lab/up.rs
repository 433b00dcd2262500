//! `weft lab up`: starts the lab's own process, waits until it is ready and leaves it.
//! `weft lab hold` is that process.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::Args;
use weft_netem_tests::lab::sandbox::{self, Entered};
use weft_netem_tests::lab::{Directory, Lab, Options, control};
use weft_netem_tests::limits;
use weft_netem_tests::link::Seed;
use weft_netem_tests::scenario::{Network, parse_network};

use super::backend::BackendFlag;
use super::scenarios::{files_of, read_file};
use crate::failure::{Code, Failure, chain};
use crate::output;

/// Flags of `weft lab up`.
#[derive(Debug, Args)]
pub struct Up {
    /// A YAML file with a `topology`, as every scenario has one
    file: PathBuf,
    /// The lab's name [default: the file's]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    making: Making,
}

/// Flags of the lab's own process.
#[derive(Debug, Args)]
pub struct Hold {
    directory: PathBuf,
    file: PathBuf,
    #[command(flatten)]
    making: Making,
}

/// How a lab is made.
#[derive(Debug, Args)]
struct Making {
    /// Fixes the fate of packet n on each link and direction [default: the file's, or 1]
    #[arg(long)]
    seed: Option<u64>,
    /// What impairs packets
    #[arg(long, value_enum, default_value_t)]
    backend: BackendFlag,
}

/// The seed of a lab if none is given. It is always the same.
const SEED_DEFAULT: u64 = 1;

/// The first line of the lab's process after a successful start.
const READY: &str = "ready";

pub fn run(args: &Up) -> Result<(), Failure> {
    let network = read(&args.file)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(&args.file),
    };
    let (directory, lock) = super::base().create(&name)?;
    let started = start(args, &network, &directory, lock);
    if started.is_err() {
        // The lab's message was printed; a later command would also remove the lab.
        let _ = directory.remove();
    }
    started?;
    let hosts = network.topology.nodes();
    let host = hosts.first().map_or("HOST", |node| node.name.as_str());
    output::text_out(&format!(
        "lab {name} is up: {} hosts and routers, {} links\n\
         Try: weft lab status; weft lab exec {host} -- ip address; weft lab down {name}\n",
        hosts.len(),
        network.topology.links().len(),
    ))
}

/// Turns the file's name into one of a lab: `Loss_1%.yaml` becomes `loss-1`.
fn name_of(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let words = stem.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-").to_ascii_lowercase();
    name.truncate(limits::NAME_BYTES_MAX);
    name.trim_end_matches('-').to_owned()
}

fn start(args: &Up, network: &Network, directory: &Directory, lock: File) -> Result<(), Failure> {
    let log = directory.path().join("lab.log");
    let log = File::create(&log).map_err(|error| Failure::io(&log, &error))?;
    let file = std::path::absolute(&args.file).map_err(|error| Failure::io(&args.file, &error))?;
    let seed = args
        .making
        .seed
        .or(network.seed)
        .unwrap_or(SEED_DEFAULT)
        .to_string();
    let arguments = [
        "lab".as_ref(),
        "hold".as_ref(),
        directory.path().as_os_str(),
        file.as_os_str(),
        "--seed".as_ref(),
        seed.as_ref(),
        "--backend".as_ref(),
        args.making.backend.name().as_ref(),
    ];
    let mut child = sandbox::detach(arguments, |command| {
        command
            // The lab is up as long as it has this file open.
            .stdin(Stdio::from(lock))
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            // Ctrl-C at this terminal must not reach it.
            .process_group(0);
    })?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        // An unreadable answer counts as not `ready`.
        let _ = BufReader::new(stdout).read_line(&mut said);
    }
    if said.trim() == READY {
        return Ok(());
    }
    let _ = child.wait();
    let line = match said.trim() {
        "" => "the lab's process ended without an answer".to_owned(),
        line => line.to_owned(),
    };
    Err(Failure::new(Code::Failed, line))
}

/// The lab's own process. An error before it is ready is its answer on stdout.
pub fn hold(args: &Hold) -> Result<(), Failure> {
    let held = hold_up(args);
    if let Err(failure) = &held {
        output::text_out(&format!("{}\n", failure.line))?;
    }
    held
}

fn hold_up(args: &Hold) -> Result<(), Failure> {
    if let Entered::Ended(code) = sandbox::enter()? {
        return Err(Failure::of_command(code));
    }
    crate::process::start_logging();
    crate::process::raise_file_limit();
    let network = read(&args.file)?;
    let directory = Directory::of(args.directory.clone());
    let lab = Lab::up(
        network.topology,
        Options {
            seed: Seed(args.making.seed.or(network.seed).unwrap_or(SEED_DEFAULT)),
            directory: directory.path().to_owned(),
            backend: args.making.backend.choice(),
            later: Vec::new(),
            capture: false,
            tcp_congestion: None,
        },
    )
    .map_err(|error| Failure::new(Code::Failed, chain(&error)))?;
    control::serve(lab, &directory, || {
        // `weft lab up` waits for this line. If that process has ended, the lab stays up.
        let _ = output::text_out(&format!("{READY}\n"));
    })?;
    Ok(())
}

fn read(file: &Path) -> Result<Network, Failure> {
    let text = read_file(file)?;
    parse_network(&file.display().to_string(), &text, &files_of(file))
        .map_err(|error| Failure::new(Code::BadData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_is_named_after_its_file() {
        for (file, name) in [
            ("dir/pair.yaml", "pair"),
            ("Loss_1%.yaml", "loss-1"),
            ("address-change-caller.yaml", "address-change"),
        ] {
            assert_eq!(name_of(Path::new(file)), name);
        }
    }
}
