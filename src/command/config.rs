//! `weft config`: runs and looks after the config service. The work is `weft_config`'s.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use weft_config::server::{ConfigServeSettings, ConfigServer, ServeError};
use weft_config::settings::raw::{RawConfigService, RawJoin};
use weft_config::settings::{ConfigSettings, ListenAddress, load_config};
use weft_transport::vital;

use crate::control_admin::{ControlAdmin, raw_admin};
use crate::failure::{Code, Failure, chain};
use crate::identity::{self, Holder};
use crate::output::note;
use crate::{process, settings_file};

/// Runs and looks after the config service.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    weft ca token --dir ca --role config > config.token\n  \
    weft config serve --dir config --listen 10.9.0.9:6201 --join-token-file config.token")]
pub struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve tables to sidecars, and take changes from operators
    Serve(Serve),
    /// Write all resources and revisions to a file; also while it serves
    Backup(Backup),
    /// Make a store from a backup
    Restore(Restore),
    /// Seal new sessions with another key; also while it serves
    RotateSessionKey(RotateSessionKey),
}

#[derive(Debug, Args)]
struct Serve {
    /// Settings file [default: /etc/weft/config.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the store and of the service's identity
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[arg(
        long,
        value_name = "IP:PORT",
        help = "TCP address to serve on [default: [::]:6201]"
    )]
    listen: Option<ListenAddress>,
    /// File with a join token of `weft ca token --role config`; needed for the first start
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// TCP address of the admin endpoint, with /live, /ready and /metrics [default: none; its port is 6291]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<ListenAddress>,
}

#[derive(Debug, Args)]
struct Backup {
    /// Directory of the config service
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// File to write; it must not exist
    target: PathBuf,
}

#[derive(Debug, Args)]
struct Restore {
    /// Directory of the new config service
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The backup
    source: PathBuf,
}

/// Rotates the secret from which the keys of sessions are made (sessionPersistence of routes).
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft config rotate-session-key --dir config\n\n\
    No session ends: tokens that the key before sealed are honoured until the next rotation. If the store or\n\
    a backup of it came into other hands, add --forget."
)]
struct RotateSessionKey {
    /// Directory of the config service
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Give up all keys, also those that the store keeps for later: every session ends and begins anew
    #[arg(long)]
    forget: bool,
}

/// Runs `weft config`.
pub fn run(args: Config) -> Result<(), Failure> {
    match args.command {
        Command::Serve(args) => serve(args),
        Command::Backup(args) => backup(&args),
        Command::Restore(args) => {
            let content =
                std::fs::read(&args.source).map_err(|error| Failure::io(&args.source, &error))?;
            let revision = weft_config::server::restore(&args.dir, &content)
                .map_err(|error| failed(&error))?;
            note(format_args!(
                "restored revision {} to {}",
                revision.number,
                args.dir.display()
            ));
            Ok(())
        }
        Command::RotateSessionKey(args) => rotate_session_key(&args),
    }
}

fn serve(args: Serve) -> Result<(), Failure> {
    process::start_logging();
    let flags = RawConfigService {
        dir: args.dir,
        listen: args.listen,
        join: args.join_token_file.map(|file| RawJoin {
            token_file: Some(file),
        }),
        admin: raw_admin(args.admin),
    };
    let loaded = load_config(settings_file::sources("config", args.config, flags))?;
    process::warn_all(&loaded.warnings);
    process::raise_file_limit();
    let ConfigSettings {
        dir,
        listen,
        join_token_file,
        admin,
    } = loaded.settings;
    let shutdown = CancellationToken::new();
    process::service_runtime()?.block_on(process::until_signal(
        shutdown.clone(),
        Box::pin(async {
            let state_dir = dir.join("identity");
            let join = identity::start(
                Holder::Config,
                &state_dir,
                join_token_file.as_deref(),
                Sender::default(),
                None,
            );
            let Some(joined) = shutdown.run_until_cancelled(join).await else {
                return Ok(());
            };
            let (agent, credentials) = joined?;
            let settings = ConfigServeSettings { dir, listen };
            let server = ConfigServer::bind(&settings, credentials)
                .await
                .map_err(|error| failed(&error))?;
            let admin = ControlAdmin::bind(admin)?;
            let (own, metrics) = (agent.status(), server.metrics());
            let identity = agent.status();
            let concerns = move || identity.concerns();
            let samples = move || [own.samples(), metrics.samples()].concat();
            process::ready(&format!("serving on {listen}"));
            // Its own certificate is renewed for as long as it serves.
            let serve = async {
                let served = server.run(shutdown.clone()).await;
                shutdown.cancel();
                served.map_err(|error| failed(&error))
            };
            let (served, (), ()) = tokio::join!(
                serve,
                vital::until(
                    "renewing the identity",
                    shutdown.clone(),
                    agent.run(shutdown.clone())
                ),
                admin.serve(samples, concerns, shutdown.clone())
            );
            served
        }),
    ))
}

fn backup(args: &Backup) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let content = process::runtime()?
        .block_on(weft_config::server::backup(&args.dir))
        .map_err(|error| failed(&error))?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&args.target)
        .and_then(|mut file| file.write_all(&content).and_then(|()| file.sync_all()))
        .map_err(|error| not_written(&args.target, &error))?;
    note(format_args!("backed up to {}", args.target.display()));
    Ok(())
}

fn rotate_session_key(args: &RotateSessionKey) -> Result<(), Failure> {
    process::runtime()?
        .block_on(weft_config::server::rotate_session_key(
            &args.dir,
            args.forget,
        ))
        .map_err(|error| failed(&error))?;
    note(match args.forget {
        true => "the key of sessions is rotated, and every session begins anew",
        false => {
            "the key of sessions is rotated; tokens of the key before are honoured until the next rotation"
        }
    });
    Ok(())
}

fn not_written(target: &Path, error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        let target = target.display();
        return Failure::new(
            Code::Failed,
            format!("{target} exists already: write the backup to a new file"),
        );
    }
    Failure::io(target, error)
}

fn failed(error: &ServeError) -> Failure {
    let code = match error {
        ServeError::Identity(_) => Code::NotPermitted,
        ServeError::Io { source, .. } | ServeError::Listen { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Code::NotPermitted
        }
        ServeError::Store(error) if error.is_not_permitted() => Code::NotPermitted,
        ServeError::Store(error) if error.is_bad_data() => Code::BadData,
        ServeError::Running { .. }
        | ServeError::Listen { .. }
        | ServeError::Store(_)
        | ServeError::Io { .. }
        | ServeError::Library(_) => Code::Failed,
    };
    Failure::new(code, chain(error))
}
