//! `weft load serve`: the other end of a load.

use std::net::SocketAddr;

use clap::Args;
use tokio_util::sync::CancellationToken;
use weft_loadtest::limits;
use weft_loadtest::serve::behaviour::{Behaviour, Freeze, Latency, parse_share};
use weft_loadtest::serve::{Listen, Server};

use crate::failure::{Code, Failure};
use crate::output::text_out;
use crate::process::{Signals, raise_file_limit};

/// Answers requests after a known delay, so that no other server is needed and results can be checked.
///
/// Prints where it listens, one line for each protocol, and serves until SIGINT or SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// HTTP/1.1, HTTP/2 with prior knowledge and gRPC [default: 127.0.0.1:8080 if nothing else is given]
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// TCP: every byte comes back
    #[arg(long, value_name = "IP:PORT")]
    tcp: Option<SocketAddr>,
    /// UDP: every datagram comes back
    #[arg(long, value_name = "IP:PORT")]
    udp: Option<SocketAddr>,
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

const EXAMPLES: &str = "\
A DELAY is 5ms, const:5ms, uniform:1ms-9ms or exp:5ms (the mean), and after a comma the shares that get another:

  weft load serve --latency const:5ms,1%:200ms        one in a hundred stalls
  weft load serve --freeze 1s@5s                      a pause of the whole server
  weft load serve --http 127.0.0.1:0 --tcp 127.0.0.1:0 --udp 127.0.0.1:0";

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
        http: args.http,
        tcp: args.tcp,
        udp: args.udp,
    };
    if args.http.or(args.tcp).or(args.udp).is_none() {
        listen.http = Some(SocketAddr::from(([127, 0, 0, 1], 8080)));
    }
    let behaviour = Behaviour {
        latency: args.latency,
        first_byte: args.first_byte,
        errors: args.errors,
        body: args.body,
        freeze: args.freeze,
    };
    let server = Server::bind(listen, args.threads, behaviour, args.seed)
        .map_err(|error| Failure::new(Code::Failed, error))?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let bound = &server.listen;
    for (protocol, address) in [("http", bound.http), ("tcp", bound.tcp), ("udp", bound.udp)] {
        if let Some(address) = address {
            text_out(&format!("{protocol}://{address}\n"))?;
        }
    }
    server
        .run(&stop)
        .map_err(|error| Failure::new(Code::Failed, error))
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
