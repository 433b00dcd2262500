//! `weft load serve`: the server for a load.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio_util::sync::CancellationToken;
use weft_config::settings::ListenAddress;
use weft_loadtest::limits;
use weft_loadtest::serve::behaviour::{Behaviour, Freeze, Latency, parse_share};
use weft_loadtest::serve::{Listen, ServeError, Server};
use weft_transport::external::{Identity, ServerTls, Trust};
use weft_transport::identity::SpiffeId;

use super::tls;
use crate::failure::{Code, Failure};
use crate::output::text_out;
use crate::process::{Signals, raise_file_limit};

/// Answers requests after a known delay, so that no other server is needed and results can be checked.
///
/// Prints where it listens, one line for each protocol as `weft load` takes it, and serves until SIGINT or
/// SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// HTTP/1.1, HTTP/2 with prior knowledge and gRPC [default: 127.0.0.1:8080 if nothing else is given]
    #[arg(long, value_name = "IP:PORT", help_heading = WHERE)]
    http: Option<ListenAddress>,
    /// The same over TLS, the protocol chosen by ALPN
    #[arg(long, value_name = "IP:PORT", help_heading = WHERE)]
    https: Option<ListenAddress>,
    /// HTTP/3, a UDP port; all of it by the first of --threads
    #[arg(long, value_name = "IP:PORT", help_heading = WHERE)]
    http3: Option<ListenAddress>,
    /// TCP: every byte comes back
    #[arg(long, value_name = "IP:PORT", help_heading = WHERE)]
    tcp: Option<ListenAddress>,
    /// TCP: bytes are thrown away until the client has sent its last (weft load --tcp upload)
    #[arg(long, value_name = "IP:PORT", help_heading = WHERE)]
    tcp_sink: Option<ListenAddress>,
    /// TCP: a body of --body bytes is sent, then the connection closed (weft load --tcp download)
    #[arg(long, value_name = "IP:PORT", help_heading = WHERE)]
    tcp_source: Option<ListenAddress>,
    /// UDP: every datagram comes back
    #[arg(long, value_name = "IP:PORT", help_heading = WHERE)]
    udp: Option<ListenAddress>,

    /// Show this certificate (PEM, leaf first), for example a sidecar's SVID [default: a new one for
    /// localhost and the addresses that are listened on]
    #[arg(long, value_name = "FILE", requires = "key", help_heading = TLS)]
    cert: Option<PathBuf>,
    /// The key of --cert (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = TLS)]
    key: Option<PathBuf>,
    /// Write the new certificate here, for --ca of weft load
    #[arg(long, value_name = "FILE", conflicts_with = "cert", help_heading = TLS)]
    cert_out: Option<PathBuf>,
    /// Let in only clients whose certificate leads to a root in this PEM file
    #[arg(long, value_name = "FILE", help_heading = TLS)]
    client_ca: Option<PathBuf>,
    /// Let in only the client that proves this identity with an SVID
    #[arg(long, value_name = "SPIFFE_ID", requires = "client_ca", help_heading = TLS)]
    client_id: Option<SpiffeId>,

    /// How long until an answer is complete
    #[arg(long, value_name = "DELAY", default_value = "0s", value_parser = Latency::parse)]
    latency: Latency,
    /// How long until the first byte of an answer [default: all of it at once]
    #[arg(long, value_name = "DELAY", value_parser = Latency::parse)]
    first_byte: Option<Latency>,
    /// Share that fails: 503, gRPC status 14, a closed TCP connection, a lost datagram
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = parse_share)]
    errors: f64,
    /// Size of a body
    #[arg(long, value_name = "SIZE", default_value = "12B", value_parser = body_size)]
    body: usize,
    /// A time without any answer, as 1s@5s: for a second, five seconds after the first request
    #[arg(long, value_name = "LENGTH@TIME", value_parser = Freeze::parse)]
    freeze: Option<Freeze>,
    /// Makes delays and errors repeatable
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Threads
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    threads: usize,
}

const WHERE: &str = "Where to listen";
const TLS: &str = "TLS and QUIC";

const EXAMPLES: &str = "\
A DELAY is 5ms, const:5ms, uniform:1ms-9ms or exp:5ms (the mean), and after a comma the shares that get another:

  weft load serve --latency const:5ms,1%:200ms        one in a hundred stalls
  weft load serve --freeze 1s@5s                      a pause of the whole server
  weft load serve --http 127.0.0.1:0 --tcp 127.0.0.1:0 --udp 127.0.0.1:0
  weft load serve --https 127.0.0.1:8443 --http3 127.0.0.1:8443 --cert-out cert.pem
  weft load serve --tcp-source 127.0.0.1:9000 --body 100MiB";

/// Runs `weft load serve`.
pub fn run(args: Serve) -> Result<(), Failure> {
    if !(1..=limits::THREADS_MAX).contains(&args.threads) {
        let line = format!(
            "--threads {}: write 1 to {}",
            args.threads,
            limits::THREADS_MAX
        );
        return Err(Failure::new(Code::Usage, line));
    }
    raise_file_limit();
    let mut listen = Listen {
        http: args.http.map(|listen| listen.0),
        https: args.https.map(|listen| listen.0),
        http3: args.http3.map(|listen| listen.0),
        tcp: args.tcp.map(|listen| listen.0),
        tcp_sink: args.tcp_sink.map(|listen| listen.0),
        tcp_source: args.tcp_source.map(|listen| listen.0),
        udp: args.udp.map(|listen| listen.0),
    };
    if listen.is_empty() {
        listen.http = Some(SocketAddr::from(([127, 0, 0, 1], 8080)));
    }
    let tls = args.tls()?;
    let behaviour = Behaviour {
        latency: args.latency,
        first_byte: args.first_byte,
        errors: args.errors,
        body: args.body,
        freeze: args.freeze,
    };
    let server = Server::bind(listen, tls, args.threads, behaviour, args.seed).map_err(
        |error| match error {
            ServeError::Tls(_) => Failure::new(Code::BadData, format!("--cert and --key: {error}")),
            ServeError::Bind { .. } | ServeError::System(_) | ServeError::Defect => {
                Failure::new(Code::Failed, error)
            }
        },
    )?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let bound = &server.listen;
    for (scheme, address, flags) in [
        ("http", bound.http, ""),
        ("https", bound.https, ""),
        ("https", bound.http3, " --http3"),
        ("tcp", bound.tcp, ""),
        ("tcp", bound.tcp_sink, " --tcp upload"),
        ("tcp", bound.tcp_source, " --tcp download"),
        ("udp", bound.udp, ""),
    ] {
        if let Some(address) = address {
            text_out(&format!("{scheme}://{address}{flags}\n"))?;
        }
    }
    server
        .run(&stop)
        .map_err(|error| Failure::new(Code::Failed, error))
}

impl Serve {
    /// The certificates of HTTPS and HTTP/3, if they are served.
    fn tls(&self) -> Result<Option<ServerTls>, Failure> {
        let addresses: Vec<SocketAddr> = [self.https, self.http3]
            .into_iter()
            .flatten()
            .map(|listen| listen.0)
            .collect();
        if addresses.is_empty() {
            if self.cert.is_some() || self.cert_out.is_some() || self.client_ca.is_some() {
                let line = "--cert, --cert-out and --client-ca go with --https and --http3";
                return Err(Failure::new(Code::Usage, line));
            }
            return Ok(None);
        }
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => tls::identity(cert, key)?,
            (Some(_), None) | (None, _) => self_made(&addresses)?,
        };
        if let Some(path) = &self.cert_out {
            std::fs::write(path, identity.chain_pem())
                .map_err(|error| Failure::io(path, &error))?;
        }
        let clients = match (&self.client_ca, &self.client_id) {
            (Some(ca), id) => tls::trust(ca, id.as_ref())?,
            (None, _) => Trust::AnyPeer,
        };
        Ok(Some(ServerTls::new(identity, clients)))
    }
}

/// A certificate for the loopback interface and the addresses that are listened on.
fn self_made(addresses: &[SocketAddr]) -> Result<Identity, Failure> {
    let mut names = ["localhost", "127.0.0.1", "::1"]
        .map(str::to_owned)
        .to_vec();
    for address in addresses {
        let name = address.ip().to_string();
        if !address.ip().is_unspecified() && !names.contains(&name) {
            names.push(name);
        }
    }
    Identity::self_made(names).map_err(|error| Failure::new(Code::Failed, error))
}

/// Cancels `stop` at the first signal, on a thread of its own. The signals are taken when this returns.
fn stop_on_signal(stop: CancellationToken) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(Code::Failed, format!("cannot wait for signals: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let mut signals = runtime.block_on(async { Signals::take() })?;
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let wait = move || {
        runtime.block_on(signals.next());
        stop.cancel();
    };
    thread.spawn(wait).map(drop).map_err(failed)
}

fn body_size(text: &str) -> Result<usize, String> {
    let size = weft_transport::units::parse_bytes(text)?;
    usize::try_from(size)
        .ok()
        .filter(|_| size <= limits::SERVE_BODY_MAX)
        .ok_or_else(|| format!("{text} is out of range: at most 1GiB"))
}
