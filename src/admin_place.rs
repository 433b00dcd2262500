//! Finds the sidecar that is meant: the flags that name it, and the addresses at which it answers.

use std::path::PathBuf;

use clap::Args;
use weft_config::settings::limits::ADMIN_PORT;
use weft_config::settings::raw::RawProxy;
use weft_config::settings::{AdminChanges, ListenAddress, ProxyPlace, SettingsError, locate_proxy};
use weft_transport::hosts;

use crate::admin_client::Target;
use crate::failure::{Code, Failure};
use crate::settings_file;

/// Names a sidecar on this host.
#[derive(Debug, Args)]
pub struct SidecarFlags {
    /// State directory of the sidecar: asks over the Unix socket in it
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Settings file of the sidecar [default: /etc/weft/proxy.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// TCP address of the sidecar's admin endpoint [default: that of the settings, else 127.0.0.1:6191]
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["state_dir", "config"])]
    admin: Option<ListenAddress>,
}

impl SidecarFlags {
    /// The addresses at which it can be read, best first: over TCP if the socket is not for this user.
    pub fn to_read(&self) -> Result<Vec<Target>, Failure> {
        if let Some(address) = self.admin {
            return Ok(vec![Target::Tcp(address.0)]);
        }
        let place = self.place()?;
        let socket = place.socket.map(Target::Socket);
        let listen = place.listen.map(Target::Tcp);
        Ok(or_default(socket.into_iter().chain(listen).collect()))
    }

    /// The addresses at which it can be changed, best first.
    pub fn to_change(&self) -> Result<Vec<Target>, Failure> {
        if let Some(address) = self.admin {
            return Ok(vec![Target::Tcp(address.0)]);
        }
        let place = self.place()?;
        let tcp = match place.changes {
            AdminChanges::Loopback => place.listen.map(Target::Tcp),
            AdminChanges::Socket => None,
        };
        let targets: Vec<Target> = place
            .socket
            .map(Target::Socket)
            .into_iter()
            .chain(tcp)
            .collect();
        if targets.is_empty() && place.listen.is_some() {
            return Err(Failure::new(
                Code::NotPermitted,
                "this sidecar takes no changes: its settings say admin.socket: off, and not admin.changes: loopback",
            ));
        }
        // A sidecar whose settings are unknown reports where it takes changes.
        Ok(or_default(targets))
    }

    fn place(&self) -> Result<ProxyPlace, Failure> {
        let flags = RawProxy {
            state_dir: self.state_dir.clone(),
            ..RawProxy::default()
        };
        let mut sources = settings_file::sources("proxy", self.config.clone(), flags);
        if self.state_dir.is_some() && self.config.is_none() {
            // The default file may be another sidecar's.
            sources.file = None;
        }
        match locate_proxy(sources) {
            // A file that the command line does not name, and that this user may not read.
            Err(SettingsError::Read { .. }) if self.config.is_none() => Ok(ProxyPlace::default()),
            place => Ok(place?),
        }
    }
}

fn or_default(targets: Vec<Target>) -> Vec<Target> {
    if targets.is_empty() {
        vec![Target::Tcp(hosts::loopback(ADMIN_PORT))]
    } else {
        targets
    }
}
