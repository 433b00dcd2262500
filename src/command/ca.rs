//! `weft ca`: makes, runs and looks after a certificate authority. The work is `weft_ca`'s.

use std::fs::{File, Permissions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{ArgGroup, Args, Subcommand};
use tokio_util::sync::CancellationToken;
use weft_ca::{Admin, Inspection, ServeSettings, Server, Subject, TokenOrder};
use weft_config::settings::raw::RawCa;
use weft_config::settings::{CaSettings, DurationText, HostPort, ListenAddress, load_ca};
use weft_transport::identity::TrustDomain;

use crate::control_admin::{ControlAdmin, raw_admin};
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, moment, note, print, text_out};
use crate::{process, settings_file};

/// Makes, runs and looks after the certificate authority.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft ca init --dir ca --trust-domain demo.test --address 10.9.0.9:6200\n  \
    weft ca serve --dir ca --listen 10.9.0.9:6200\n  \
    weft ca token --dir ca --role config > config.token\n  \
    weft ca token --dir ca --role operator alice > alice.token\n  \
    weft ca token --dir ca --identity ns/shop/sa/orders > orders.token")]
pub struct Ca {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new authority: root, issuing key and store
    Init(Init),
    /// Issue identities to workloads
    Serve(Serve),
    /// Make join tokens, one per line
    Token(Token),
    /// Make the next issuing certificate; also while it serves, and when the present one has expired
    Renew(Renew),
    /// Show certificates, tokens and the newest entries of the issuance log
    Inspect(Inspect),
    /// Print the trust anchors as PEM
    Bundle(Directory),
    /// Copy keys, certificates and store; also while it serves
    Backup(Backup),
    /// Put a backup in place
    Restore(Restore),
}

#[derive(Debug, Args)]
struct Directory {
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    at: Directory,
    /// Trust domain of the mesh: a DNS-like name that all its identities begin with
    #[arg(long, value_name = "NAME")]
    trust_domain: String,
    /// Address at which workloads reach the authority, written into tokens [default: --listen of serve]
    #[arg(long, value_name = "HOST:PORT")]
    address: Vec<HostPort>,
}

#[derive(Debug, Args)]
struct Serve {
    /// Settings file [default: /etc/weft/ca.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the authority
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[arg(
        long,
        value_name = "IP:PORT",
        help = "TCP address to serve on [default: [::]:6200]"
    )]
    listen: Option<ListenAddress>,
    /// Life of the identities issued [default: 24h]
    #[arg(long, value_name = "DURATION")]
    svid_ttl: Option<DurationText>,
    /// How long after its expiry an identity can still be renewed [default: 72h]
    #[arg(long, value_name = "DURATION")]
    renewal_grace: Option<DurationText>,
    /// TCP address of the admin endpoint, with /live, /ready and /metrics [default: none; its port is 6291]
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<ListenAddress>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whom").args(["identity", "role"]).required(true))]
struct Token {
    #[command(flatten)]
    at: Directory,
    /// For a workload: ns/NAMESPACE/sa/SERVICE-ACCOUNT
    #[arg(long, value_name = "IDENTITY")]
    identity: Option<String>,
    /// For the mesh's own: `config`, or `operator NAME`
    #[arg(long, num_args = 1..=2, value_names = ["ROLE", "NAME"])]
    role: Option<Vec<String>>,
    /// For how long the token can be used the first time
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: DurationText,
    /// How many tokens
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: u32,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The new certificate has a new key and lives for a year. A CA that serves takes it up within a minute.\n\
    Certificates that were issued before stay good until they end. The root stays as it is."
)]
struct Renew {
    #[command(flatten)]
    at: Directory,
    /// Where the root's key is [default: root.key in --dir]
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Inspect {
    #[command(flatten)]
    at: Directory,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
struct Backup {
    #[command(flatten)]
    at: Directory,
    /// Directory to write to, empty or new; it will hold private keys
    target: PathBuf,
}

#[derive(Debug, Args)]
struct Restore {
    #[command(flatten)]
    at: Directory,
    /// The backup
    source: PathBuf,
    /// Replace the files that are there, and accept an altered issuance log
    #[arg(long)]
    force: bool,
}

/// Runs `weft ca`.
pub fn run(args: Ca) -> Result<(), Failure> {
    let runtime = process::runtime()?;
    match args.command {
        Command::Init(args) => init(&args),
        Command::Serve(args) => serve(args),
        Command::Token(args) => runtime.block_on(token(args)),
        Command::Renew(args) => renew(&args),
        Command::Inspect(args) => runtime.block_on(inspect(&args)),
        Command::Bundle(args) => {
            text_out(&weft_ca::bundle(&args.dir).map_err(|error| failed(error.kind(), &error))?)
        }
        Command::Backup(args) => runtime.block_on(async {
            let mut admin = open(&args.at).await?;
            admin
                .backup(&args.target)
                .await
                .map_err(|error| failed(error.kind(), &error))?;
            note(format_args!(
                "backed up to {}: it holds private keys",
                args.target.display()
            ));
            Ok(())
        }),
        Command::Restore(args) => {
            weft_ca::restore(&args.at.dir, &args.source, args.force, SystemTime::now())
                .map_err(|error| failed(error.kind(), &error))?;
            note(format_args!(
                "restored to {}: join tokens made before are void, make new ones with `weft ca token`",
                args.at.dir.display()
            ));
            Ok(())
        }
    }
}

fn init(args: &Init) -> Result<(), Failure> {
    let trust_domain: TrustDomain = args.trust_domain.parse().map_err(|error| {
        Failure::new(
            Code::BadData,
            format!("--trust-domain {}: {error}", args.trust_domain),
        )
    })?;
    let addresses: Vec<String> = args.address.iter().map(ToString::to_string).collect();
    let created = weft_ca::init(
        &args.at.dir,
        &trust_domain,
        &addresses,
        SystemTime::now(),
        &mut rand::rng(),
    )
    .map_err(|error| failed(error.kind(), &error))?;
    let dir = args.at.dir.display();
    note(format_args!(
        "made the authority of {} in {dir} (root {}); next: weft ca serve --dir {dir} --listen ADDRESS",
        created.trust_domain, created.fingerprint
    ));
    Ok(())
}

fn renew(args: &Renew) -> Result<(), Failure> {
    let now = SystemTime::now();
    let renewed = weft_ca::renew(
        &args.at.dir,
        args.root_key.as_deref(),
        now,
        &mut rand::rng(),
    )
    .map_err(|error| failed(error.kind(), &error))?;
    let not_after = renewed.not_after.duration_since(SystemTime::UNIX_EPOCH);
    note(format_args!(
        "renewed the issuing certificate of {} ({}): it ends at {}; a CA that serves takes it up within a minute",
        args.at.dir.display(),
        renewed.fingerprint,
        moment(not_after.unwrap_or_default().as_secs())
    ));
    Ok(())
}

fn serve(args: Serve) -> Result<(), Failure> {
    process::start_logging();
    let flags = RawCa {
        dir: args.dir,
        listen: args.listen,
        svid_ttl: args.svid_ttl,
        renewal_grace: args.renewal_grace,
        admin: raw_admin(args.admin),
    };
    let loaded = load_ca(settings_file::sources("ca", args.config, flags))?;
    process::warn_all(&loaded.warnings);
    process::raise_file_limit();
    let CaSettings {
        dir,
        listen,
        svid_ttl,
        renewal_grace,
        admin,
    } = loaded.settings;
    let settings = ServeSettings {
        directory: dir,
        listen,
        svid_ttl,
        renewal_grace,
    };
    let shutdown = CancellationToken::new();
    process::service_runtime()?.block_on(process::until_signal(
        shutdown.clone(),
        Box::pin(async {
            let server = Server::bind(&settings)
                .await
                .map_err(|error| failed(error.kind(), &error))?;
            let admin = ControlAdmin::bind(admin)?;
            process::ready(&format!("serving on {}", server.local_addr()));
            let metrics = server.metrics();
            let ending = server.metrics();
            let serve = async {
                let served = server.run(shutdown.clone()).await;
                shutdown.cancel();
                served.map_err(|error| failed(error.kind(), &error))
            };
            let (served, ()) = tokio::join!(
                serve,
                admin.serve(
                    move || metrics.samples(),
                    move || ending.concerns(),
                    shutdown.clone()
                )
            );
            served
        }),
    ))
}

async fn token(args: Token) -> Result<(), Failure> {
    let mut admin = open(&args.at).await?;
    let bad = |error: weft_ca::subject::SubjectError| Failure::new(Code::BadData, error);
    let subject = match (args.identity, args.role) {
        (Some(identity), _) => {
            let trust_domain = admin
                .trust_domain()
                .await
                .map_err(|error| failed(error.kind(), &error))?;
            Subject::from_identity(&trust_domain, &identity).map_err(bad)?
        }
        (None, role) => Subject::from_role(&role.unwrap_or_default().join(" ")).map_err(bad)?,
    };
    let order = TokenOrder {
        subject,
        ttl: args.ttl.0,
        count: args.count,
    };
    let tokens = admin
        .create_tokens(&order)
        .await
        .map_err(|error| failed(error.kind(), &error))?;
    keep_private()?;
    text_out(&(tokens.join("\n") + "\n"))
}

/// `weft ca token > FILE` is the usual way to write tokens, and a shell makes files that others may read. So
/// the file's mode is changed to its owner alone before a token is written.
fn keep_private() -> Result<(), Failure> {
    let private = || {
        let file = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(())
    };
    private().map_err(|error: std::io::Error| {
        let line = format!("the file for the token cannot be made private: {error}");
        Failure::new(Code::NotPermitted, line)
    })
}

async fn inspect(args: &Inspect) -> Result<(), Failure> {
    let mut admin = open(&args.at).await?;
    let inspection = admin
        .inspect()
        .await
        .map_err(|error| failed(error.kind(), &error))?;
    print(args.output, &inspection, inspection_table)?;
    match inspection.log_broken_at {
        Some(entry) => Err(Failure::new(
            Code::Failed,
            format!("the issuance log was altered at entry {entry}: compare it with a backup"),
        )),
        None => Ok(()),
    }
}

fn inspection_table(inspection: &Inspection) -> Table {
    let mut table = Table::new(&["WHAT", "VALUE"]);
    let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
    row("trust domain", inspection.trust_domain.to_string());
    let addresses = match inspection.addresses.is_empty() {
        true => "none yet: give `weft ca serve` a --listen that workloads can reach".to_owned(),
        false => inspection.addresses.join(", "),
    };
    row("addresses in tokens", addresses);
    if let Some(listen) = &inspection.listen {
        row("listened last on", listen.clone());
    }
    for (what, certificate) in [
        ("root", &inspection.root),
        ("issuing certificate", &inspection.issuing),
    ] {
        let warning = if certificate.expires_soon {
            ", EXPIRES SOON"
        } else {
            ""
        };
        row(
            what,
            format!(
                "{} until {}{warning}",
                certificate.fingerprint,
                moment(certificate.not_after)
            ),
        );
    }
    row("keys with an identity", inspection.keys.to_string());
    for (identity, tokens) in &inspection.tokens {
        let mut counts = format!(
            "{} unused, {} used, {} expired",
            tokens.unused, tokens.used, tokens.expired
        );
        if tokens.restored > 0 {
            counts += &format!(", {} void since a restore", tokens.restored);
        }
        row(&format!("tokens of {identity}"), counts);
    }
    row("entries of the log", inspection.log_entries.to_string());
    for entry in &inspection.log {
        let event = serde_json::to_string(&entry.event).unwrap_or_default();
        let identity = entry.identity.as_deref().unwrap_or("-");
        row(
            &format!("log {}", entry.number),
            format!("{} {identity} by {} {event}", moment(entry.time), entry.by),
        );
    }
    table
}

async fn open(at: &Directory) -> Result<Admin, Failure> {
    Admin::open(&at.dir)
        .await
        .map_err(|error| failed(error.kind(), &error))
}

/// Failures of the CA, of all its operations.
pub fn failed(kind: weft_ca::ErrorKind, error: &dyn std::error::Error) -> Failure {
    let code = match kind {
        weft_ca::ErrorKind::BadData => Code::BadData,
        weft_ca::ErrorKind::Unreachable => Code::Unreachable,
        weft_ca::ErrorKind::NotPermitted => Code::NotPermitted,
        weft_ca::ErrorKind::Failed => Code::Failed,
    };
    Failure::new(code, crate::failure::chain(error))
}
