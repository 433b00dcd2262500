//! Pairs of other proxies on the hosts of a lab, each side a process of a plug-in. `docs/lab.md`
//! describes what a plug-in must do; `pairs/envoy.py` is the one that ships.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::RunError;
use super::fleet::Plan;
use super::limits::PAIR_PREPARATION_MAX;
use super::mesh::{Builder, node, write_file};
use super::stop::Stop;
use crate::scenario::{Pair, Plugin, Scenario};

/// The plug-in that ships, and the files that it shares with those of `weft load compare`.
const ENVOY: [(&str, &str); 2] = [
    ("envoy.py", include_str!("../../pairs/envoy.py")),
    (
        "envoy_config.py",
        include_str!("../../../compare/envoy_config.py"),
    ),
];

/// First ports of pairs, beside those of sidecars: on the caller's loopback, and on the other host.
const LISTENER_PORT: u16 = 5501;
const BETWEEN_PORT: u16 = 6501;

/// Lets each pair prepare its files: it may download programs, and so runs outside of the lab, whose hosts
/// have no access to other networks.
pub(super) fn prepare(
    scenario: &Scenario,
    directory: &Path,
    stop: &Stop,
    progress: &mut dyn FnMut(&str),
) -> Result<(), RunError> {
    for pair in &scenario.pairs {
        progress(&format!("preparing {}", pair.name));
        let own = own_directory(directory, pair);
        std::fs::create_dir(&own).map_err(|source| RunError::System {
            what: format!("make {}", own.display()),
            source,
        })?;
        if pair.plugin == Plugin::Envoy {
            for (name, text) in ENVOY {
                write_file(&own.join(name), text.as_bytes())?;
            }
        }
        let command = command(pair, "prepare", directory);
        run(&pair.name, &command, &own.join("prepare.stderr"), stop)?;
    }
    Ok(())
}

/// The port on its caller's loopback where a pair takes the requests for its `index`-th service.
pub(super) fn listener(scenario: &Scenario, pair: &str, service: &str) -> Option<u16> {
    let mut port = LISTENER_PORT;
    for one in &scenario.pairs {
        for carried in &one.services {
            if one.name == pair && carried == service {
                return Some(port);
            }
            port += 1;
        }
    }
    None
}

impl Builder<'_, '_> {
    /// Starts both sides of each pair, and waits until each service answers through it.
    pub(super) fn bring_up_pairs(
        &mut self,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), RunError> {
        let scenario = self.scenario;
        for (index, pair) in (0..).zip(&scenario.pairs) {
            progress(&format!("starting {}", pair.name));
            let (caller, server) = (node(&pair.caller_host)?, node(&pair.service_host)?);
            let between = format!("{}:{}", self.address(&server)?, BETWEEN_PORT + index);
            let routes = pair.services.iter().map(|service| {
                let listen = listener(scenario, &pair.name, service);
                json!({
                    "service": service,
                    "listen": format!("127.0.0.1:{}", listen.unwrap_or_default()),
                    "application": self.applications.get(service),
                })
            });
            let document = json!({ "between": between, "routes": routes.collect::<Vec<_>>() });
            let directory = self.fleet.directory().to_owned();
            let file = own_directory(&directory, pair).join("pair.json");
            write_file(&file, document.to_string().as_bytes())?;
            for (side, host) in [("server", &server), ("client", &caller)] {
                let plan = Plan {
                    host: host.clone(),
                    command: command(pair, side, &directory),
                    environment: Vec::new(),
                    admin: None,
                };
                self.fleet.launch(&format!("{}.{side}", pair.name), plan)?;
            }
            for service in &pair.services {
                let mut services = scenario.services.iter();
                let service = services.find(|one| one.name == *service);
                let port = service.and_then(|one| listener(scenario, &pair.name, &one.name));
                if let (Some(service), Some(port)) = (service, port) {
                    self.first_requests(&caller, service, port)?;
                }
            }
        }
        Ok(())
    }
}

/// `PLUGIN STEP DIRECTORY FLAGS`.
fn command(pair: &Pair, step: &str, directory: &Path) -> Vec<OsString> {
    let own = own_directory(directory, pair);
    let mut command: Vec<OsString> = match &pair.plugin {
        Plugin::Envoy => vec!["python3".into(), own.join("envoy.py").into()],
        Plugin::Program(path) => {
            // The processes of a run start in its directory.
            let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
            vec![path.into()]
        }
    };
    command.extend([step.into(), own.into()]);
    command.extend(pair.flags.iter().map(OsString::from));
    command
}

fn own_directory(directory: &Path, pair: &Pair) -> PathBuf {
    directory.join(format!("{}.pair", pair.name))
}

/// Runs a command of this machine to its end.
fn run(pair: &str, command: &[OsString], log: &Path, stop: &Stop) -> Result<(), RunError> {
    let system = |source| RunError::System {
        what: format!("run the plug-in of {pair}"),
        source,
    };
    let Some((program, arguments)) = command.split_first() else {
        return Ok(());
    };
    let stderr = std::fs::File::create(log).map_err(system)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(system)?;
    let deadline = std::time::Instant::now() + PAIR_PREPARATION_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if std::time::Instant::now() < deadline => {}
            Ok(None) | Err(_) => break None,
        }
        if let Err(stopped) = stop.sleep(super::limits::GLANCE) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(stopped.into());
        }
    };
    match status {
        Some(status) if status.success() => Ok(()),
        ended => {
            let _ = child.kill();
            let _ = child.wait();
            let why = ended.map_or("it takes too long".to_owned(), |status| status.to_string());
            Err(RunError::Step {
                what: format!("prepare {pair}"),
                said: format!("{why}: {}", super::fleet::tail(log)),
            })
        }
    }
}
