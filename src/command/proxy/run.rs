//! `weft proxy run`: starts identity, then table, then data path, and stops them in reverse order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weft_ca::agent::{Agent, Claim};
use weft_config::client::{Subscription, SubscriptionSettings};
use weft_config::settings::limits::CONFIG_PORT;
use weft_config::settings::{
    HostPort, OutboundTarget, ProxySettings, ServiceReference, load_proxy,
};
use weft_proxy::{Predecessor, RunError, answer_while_waiting};
use weft_transport::credentials::Credentials;
use weft_transport::vital;

use super::advertise::Advertise;
use super::flags::ProxyFlags;
use super::upkeep::Upkeep;
use super::wrap::wrap;
use crate::failure::{Code, Failure, chain};
use crate::identity::{self, Holder};
use crate::process;
use crate::telemetry::LogFilter;

/// Runs a sidecar, and an application inside its life if there is one after --.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft proxy run --config proxy.yaml\n  \
    weft proxy run --join-token-file orders.token --state-dir state --listen 10.9.0.3:6143 \\\n      \
      --inbound orders:80=127.0.0.1:8080 --outbound 127.0.0.1:5001=payments:80\n  \
    weft proxy run --config proxy.yaml -- python3 app.py\n  \
    weft proxy run --config proxy.yaml --takeover /run/weft/orders.sock\n\n\
    SIGTERM drains: services are withdrawn, running requests finish, 25s at most.\n\
    With --takeover, the same line once more replaces the running sidecar, and no request fails.\n\
    With a command, it starts when the sidecar is ready, gets the signals, and its exit code is the sidecar's.")]
pub struct Run {
    #[command(flatten)]
    flags: ProxyFlags,
    /// The application to run inside the sidecar's life
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs `weft proxy run`.
pub fn run(args: Run) -> Result<(), Failure> {
    let log = process::start_logging();
    let loaded = load_proxy(args.flags.into_sources())?;
    process::warn_all(&loaded.warnings);
    process::raise_file_limit();
    if loaded.settings.takeover_socket.is_some() && !args.command.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "--takeover (takeover_socket) and a command after -- exclude each other: the command lives and ends with this process",
        ));
    }
    let shutdown = CancellationToken::new();
    let ready = Notify::new();
    let sidecar = Box::pin(sidecar(loaded.settings, log, &ready, shutdown.clone()));
    process::runtime()?.block_on(async {
        if args.command.is_empty() {
            process::until_signal(shutdown, sidecar).await
        } else {
            let sidecar = vital::unbroken("the main task", sidecar);
            wrap(&args.command, ready.notified(), sidecar, shutdown).await
        }
    })
}

/// The sidecar's life, from its identity to the end of its drain.
async fn sidecar(
    settings: ProxySettings,
    log: LogFilter,
    ready: &Notify,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let mut claim = claim(&settings)?;
    let token_file = settings.join_token_file.as_deref();
    let waiting = watch::Sender::default();
    let early = answer_while_waiting(&settings.admin, waiting.subscribe());
    let join = identity::start(
        Holder::Workload,
        &settings.state_dir,
        token_file,
        waiting,
        None,
    );
    let joined = tokio::select! {
        joined = join => joined,
        // A running sidecar that will be taken over answers at this address.
        never = early, if claim.is_some() => match never {},
        () = shutdown.cancelled() => return Ok(()),
    };
    let (agent, credentials) = joined?;
    let config = config_addresses(&settings, || agent.ca_addresses().to_vec());
    let advertise = Advertise::find(&settings, &config).await?;
    // As late as possible, because the running process offers its newest state.
    let predecessor = Predecessor::find(&settings, &agent.id()).await;
    let predecessor = predecessor.map_err(|error| failed(&error.into()))?;
    if claim.is_none() && predecessor.is_none() {
        return Err(claimed(&settings));
    }
    let takes_over = predecessor.as_ref().map(Predecessor::registration);
    let subscription = SubscriptionSettings {
        takes_over,
        ..subscription_settings(&settings, &config, &agent, &credentials, &advertise)?
    };
    let (subscription, handle) = Subscription::start(subscription);
    let upkeep = Upkeep {
        log,
        identity: agent.status(),
        subscription: handle.clone(),
    };
    let state_dir = settings.state_dir.clone();
    let running = weft_proxy::start(
        settings,
        credentials,
        Arc::new(handle),
        Some(Arc::new(upkeep)),
        predecessor,
    )
    .await
    .map_err(|error| failed(&error))?;
    let handed_over = running.handed_over();
    let served = running.served();
    let over = CancellationToken::new();
    let announce = async {
        if over.run_until_cancelled(served).await.is_some() {
            process::ready("serving");
            tracing::info!("ready");
            ready.notify_one();
        }
    };
    let serve = async {
        let outcome = running.until(shutdown).await;
        over.cancel();
        outcome.map_err(|error| failed(&error))
    };
    let renew = async {
        tokio::select! {
            () = vital::until("renewing the identity", over.clone(), agent.run(over.clone())) => {}
            // The state directory belongs to another process.
            () = handed_over.cancelled() => {}
        }
    };
    let hold = async {
        if claim.is_none() {
            claim = inherit(&state_dir).await;
        }
        handed_over.cancelled().await;
        claim = None;
    };
    // The control plane's connections outlive the data path, which uses them to withdraw its services.
    let (outcome, ..) = tokio::join!(
        serve,
        announce,
        vital::unbroken(
            "following the own address",
            over.run_until_cancelled(advertise.follow())
        ),
        vital::until(
            "following the config service",
            over.clone(),
            subscription.run(over.clone())
        ),
        renew,
        over.run_until_cancelled(hold)
    );
    drop(claim);
    outcome
}

/// The right to the state directory. Only a successor may start without it, until the running process gives
/// it up.
fn claim(settings: &ProxySettings) -> Result<Option<Claim>, Failure> {
    let claim = Claim::take(&settings.state_dir);
    let claim = claim.map_err(|error| crate::command::ca::failed((&error).into(), &error))?;
    if claim.is_none() && settings.takeover_socket.is_none() {
        return Err(claimed(settings));
    }
    Ok(claim)
}

fn claimed(settings: &ProxySettings) -> Failure {
    let path = settings.state_dir.display();
    let process = Claim::holder(&settings.state_dir)
        .map(|process| format!(" (process {process})"))
        .unwrap_or_default();
    let takeover = match &settings.takeover_socket {
        Some(socket) => format!(", which does not wait at {}", socket.display()),
        None => String::new(),
    };
    Failure::new(
        Code::Failed,
        format!(
            "{path} is the state directory of a running sidecar{process}{takeover}: end that one, or give this one another --state-dir (state_dir)"
        ),
    )
}

/// Waits until the predecessor gives up the state directory.
async fn inherit(state_dir: &Path) -> Option<Claim> {
    loop {
        match Claim::take(state_dir) {
            Ok(Some(claim)) => return Some(claim),
            Ok(None) => tokio::time::sleep(CLAIM_RETRY).await,
            Err(error) => {
                tracing::warn!(%error, "another sidecar could start on this state directory");
                return None;
            }
        }
    }
}

/// The interval of attempts to take a claim that becomes free soon.
const CLAIM_RETRY: Duration = Duration::from_millis(50);

fn subscription_settings(
    settings: &ProxySettings,
    config: &[HostPort],
    agent: &Agent,
    credentials: &Credentials,
    advertise: &Advertise,
) -> Result<SubscriptionSettings, Failure> {
    let id = agent.id();
    let namespace = id.workload().map_or("", |workload| workload.namespace);
    let name = |service: &ServiceReference| {
        service.in_namespace(namespace).map_err(|error| {
            Failure::new(
                Code::BadData,
                format!("the service {service} needs a namespace, as NAME.NAMESPACE: {error}"),
            )
        })
    };
    let mut listens_for = Vec::new();
    for listener in &settings.outbound {
        if let OutboundTarget::Service { service, .. } = &listener.target {
            listens_for.push(name(service)?);
        }
    }
    let mut inbound = BTreeMap::new();
    for one in settings
        .inbound
        .iter()
        .flat_map(|inbound| &inbound.services)
    {
        inbound.insert((name(&one.service)?, one.port), one.details.clone());
    }
    Ok(SubscriptionSettings {
        advertise: advertise.subscribe(),
        locality: settings.locality.clone(),
        addresses: config.iter().map(ToString::to_string).collect(),
        credentials: credentials.clone(),
        state_dir: settings.state_dir.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listens_for,
        inbound,
        takes_over: None,
    })
}

/// Without an address, the config service is looked for where the CA is.
pub fn config_addresses(
    settings: &ProxySettings,
    ca_addresses: impl FnOnce() -> Vec<String>,
) -> Vec<HostPort> {
    if !settings.config_addresses.is_empty() {
        return settings.config_addresses.clone();
    }
    beside(&ca_addresses())
}

fn beside(ca_addresses: &[String]) -> Vec<HostPort> {
    let addresses = ca_addresses
        .iter()
        .filter_map(|address| address.parse().ok());
    addresses
        .map(|address: HostPort| HostPort {
            port: CONFIG_PORT,
            ..address
        })
        .collect()
}

fn failed(error: &RunError) -> Failure {
    let line = chain(error);
    // The kernel's text for EACCES and EPERM, for any operation.
    let denied = line.contains("Permission denied") || line.contains("not permitted");
    Failure::new(
        if denied {
            Code::NotPermitted
        } else {
            Code::Failed
        },
        line,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_service_is_looked_for_beside_the_ca() {
        let found = beside(&["10.9.0.9:6200".to_owned(), "ca.internal:7000".to_owned()]);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.9.0.9:6201", "ca.internal:6201"]);
    }
}
