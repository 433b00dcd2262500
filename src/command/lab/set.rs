//! `weft lab set`, `rebind` and `move`: changes to a lab that is up.

use std::path::Path;

use clap::Args;
use weft_netem_tests::lab::control::{Answer, Request, call};
use weft_netem_tests::link::{Impairment, Trace};

use super::LabFlag;
use super::scenarios::files_of;
use crate::failure::{Code, Failure};
use crate::output;

/// Flags of `weft lab set`.
#[derive(Debug, Args)]
#[command(after_long_help = settings_help(), after_help = "`--help` lists the settings.")]
pub struct Set {
    #[command(flatten)]
    which: LabFlag,
    /// The link
    link: String,
    /// What to change, as `delay=20ms`; `clear` makes the link perfect first
    #[arg(required = true, value_name = "SETTING=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Only for packets from this end of the link [default: both directions]
    #[arg(long, value_name = "HOST")]
    from: Option<String>,
}

/// Flags of `weft lab rebind`.
#[derive(Debug, Args)]
pub struct Rebind {
    #[command(flatten)]
    which: LabFlag,
    /// The link that has the NAT
    link: String,
    /// Change the address outside as well as the ports
    #[arg(long)]
    address: bool,
}

/// Flags of `weft lab move`.
#[derive(Debug, Args)]
pub struct Move {
    #[command(flatten)]
    which: LabFlag,
    /// The host
    host: String,
}

pub fn run(args: &Set) -> Result<(), Failure> {
    let request = Request::Set {
        link: args.link.clone(),
        from: args.from.clone(),
        settings: args.settings.clone(),
    };
    call(&args.which.find()?, &request)?;
    Ok(())
}

pub fn rebind(args: &Rebind) -> Result<(), Failure> {
    let request = Request::Rebind {
        link: args.link.clone(),
        address: args.address,
    };
    call(&args.which.find()?, &request)?;
    Ok(())
}

pub fn change_address(args: &Move) -> Result<(), Failure> {
    let request = Request::Move {
        host: args.host.clone(),
    };
    match call(&args.which.find()?, &request)? {
        Answer::Address(address) => output::text_out(&format!("{address}\n")),
        Answer::Done | Answer::Status(_) | Answer::Refused(_) => Err(Failure::new(
            Code::Failed,
            "the lab gave another answer than asked for: is it of another version?",
        )),
    }
}

/// One argument, checked here so that a wrong one is a usage error.
fn setting(text: &str) -> Result<(String, String), String> {
    if text == "clear" {
        return Ok((text.to_owned(), String::new()));
    }
    let (key, value) = text
        .split_once('=')
        .ok_or("write SETTING=VALUE, as `delay=20ms`, or `clear`")?;
    let mut value = value.to_owned();
    if let Some(file) = Impairment::file(key, &value) {
        // The lab's process has another working directory, so it gets the contents of the file.
        let trace = Trace::read(&files_of(Path::new(""))(file)?);
        value = trace
            .map_err(|error| format!("{file}:{error}"))?
            .to_string();
    }
    match key {
        "mtu" => value
            .parse::<u16>()
            .map(drop)
            .map_err(|_| "write a number of bytes, as `mtu=1400`".to_owned())?,
        key => Impairment::default()
            .set(key, &value)
            .map_err(|error| error.to_string())?,
    }
    Ok((key.to_owned(), value))
}

fn settings_help() -> String {
    let mut text = "Settings; words of a value may be separated by commas:\n".to_owned();
    for (key, form) in Impairment::settings() {
        text.push_str(&format!("  {key:<11} {form}\n"));
    }
    text.push_str("  mtu         bytes of the longest packet that the interfaces take: `1400`\n\n");
    text.push_str("weft lab set wan loss=5% delay=20ms jitter=5ms,normal\n");
    text.push_str("weft lab set wan --from client blackout=on");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_checked_before_any_lab_is_asked() {
        assert!(setting("loss=5%").is_ok());
        assert!(setting("clear").is_ok());
        assert!(setting("mtu=1400").is_ok());
        assert!(setting("loss=5").unwrap_err().contains("`5%`"));
        assert!(setting("loss").is_err());
        assert!(setting("mtu=big").is_err());
    }

    #[test]
    fn a_lab_gets_what_is_in_a_file_of_rates() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("drive.csv");
        std::fs::write(&file, "0,8mbit\n3,0\n4.5,end\n").unwrap();
        let set = setting(&format!("rate=trace,file,{}", file.display()));
        let value = "trace,8mbit,3s,0bit,1500ms".to_owned();
        assert_eq!(set, Ok(("rate".to_owned(), value)));
        std::fs::write(&file, "0,8mbit\n3\n").unwrap();
        let refused = setting(&format!("rate=trace,file,{}", file.display())).unwrap_err();
        assert!(refused.contains("drive.csv:2: `3`: write"), "{refused}");
        assert!(setting("rate=trace,file,/nonexistent.csv").is_err());
    }
}
