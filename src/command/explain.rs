//! `weft explain`: where a request would go, and why. The resources are those in force, or those of files;
//! the answer comes from the code that sidecars run (`weft_proxy::explain`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use serde::Serialize;
use weft_config::compile::{Effective, Endpoints, Plan, Sidecar, sources};
use weft_config::operator::SidecarInfo;
use weft_config::resources::Set;
use weft_config::table::{Features, Revision, ServiceName, Table};
use weft_proxy::explain::{Explanation, Question, explain};
use weft_transport::identity::{SpiffeId, TrustDomain};

use crate::command::effective::shown;
use crate::command::{change, get};
use crate::context::{ContextFlags, refused};
use crate::failure::{Code, Failure};
use crate::output::{Format, print_or};
use crate::process;

/// Tells where a request would go, and why.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft explain --from frontend --to orders -n shop --path /v2/items\n  \
    weft explain --from frontend.shop --to orders.shop:8080 --method POST --header version=two\n  \
    weft explain --from frontend --to egress:443 -n shop --server-name bank.example.com\n  \
    weft explain --from frontend --to orders -n shop -f routes/ -o json")]
pub struct Explain {
    /// The workload that calls: its service account, as `frontend` or `frontend.shop`, or its whole SPIFFE ID
    #[arg(long, value_name = "WORKLOAD")]
    from: String,
    /// The Service or ExternalService that it addresses, as `orders`, `orders.shop` or `orders.shop:8080`
    #[arg(long, value_name = "SERVICE[:PORT]")]
    to: String,
    /// The method of the request
    #[arg(long, value_name = "METHOD", default_value_t = Method::GET)]
    method: Method,
    /// Its path, with or without a query
    #[arg(long, value_name = "PATH", default_value = "/", value_parser = path)]
    path: Uri,
    /// A header of it; may be given several times. `host` is the authority
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The host that a client of TLS asks for (SNI), where TLSRoutes are in force
    #[arg(long, value_name = "HOST")]
    server_name: Option<String>,
    /// The namespace of names without one
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// The resources of this file or directory instead of those in force
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The trust domain, where the resources are those of files [default: that of their identities]
    #[arg(long, value_name = "DOMAIN", requires = "file")]
    trust_domain: Option<TrustDomain>,
    #[command(flatten)]
    context: ContextFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn path(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match uri.scheme().is_none() && uri.path().starts_with('/') {
        true => Ok(uri),
        false => Err("write a path that begins with /, such as /v2/items?id=1".to_owned()),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("write NAME=VALUE, such as version=two")?;
    let name = name.parse().map_err(|error| format!("{name}: {error}"))?;
    let value = value.parse().map_err(|error| format!("{value}: {error}"))?;
    Ok((name, value))
}

/// The resources, and who is there.
struct Mesh {
    set: Set,
    trust_domain: TrustDomain,
    /// None where the resources are those of files.
    sidecars: Option<Vec<SidecarInfo>>,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Explained {
    #[serde(flatten)]
    explanation: Explanation,
    /// Each value that is no default, with the resource and the field that say so.
    sources: Vec<Effective>,
}

impl Explained {
    fn new(explanation: Explanation, set: &Set, service: &ServiceName) -> Self {
        // As logs name it.
        let rule = explanation
            .route
            .as_ref()
            .map(|route| match &explanation.rule {
                Some(rule) => format!("{route}/{rule}"),
                None => route.clone(),
            });
        Self {
            sources: sources(set, service, rule.as_deref()),
            explanation,
        }
    }
}

/// Runs `weft explain`.
pub fn run(args: &Explain) -> Result<(), Failure> {
    let mesh = match args.file.is_empty() {
        true => process::runtime()?.block_on(in_force(&args.context))?,
        false => {
            let set = change::offline(&args.file)?;
            let trust_domain = match &args.trust_domain {
                Some(domain) => domain.clone(),
                None => domain_of(&set)?,
            };
            Mesh {
                set,
                trust_domain,
                sidecars: None,
            }
        }
    };
    let (service, port) = addressed(args, &mesh.set)?;
    let caller = caller(args, &mesh.trust_domain)?;
    let revision = Revision {
        store: String::new(),
        number: 0,
    };
    let plan = Plan::new(revision, mesh.trust_domain.clone(), &mesh.set);
    let nothing = Endpoints::new();
    let table = |identity: &SpiffeId, serves: BTreeSet<ServiceName>| -> Table {
        let sidecar = Sidecar {
            identity: identity.clone(),
            listens_for: [service.clone()].into(),
            serves,
            features: Features::all(),
        };
        plan.table(&sidecar, &nothing)
    };
    let head = head(args);
    let question = Question {
        caller: &caller,
        table: &table(&caller, BTreeSet::new()),
        service: &service,
        port,
        head: &head,
        server_name: args.server_name.as_deref(),
    };
    let mut explanation = explain(&question, |served| {
        let of = plan.servers(served).first().unwrap_or(&caller);
        table(of, [served.clone()].into())
    });
    if let Some(sidecars) = &mesh.sidecars {
        count_endpoints(&mut explanation, sidecars);
    }
    let explained = Explained::new(explanation, &mesh.set, &service);
    print_or(args.output, &explained, |explained| {
        text(&explained.explanation) + &told_by(&explained.sources)
    })
}

/// Who says what, a line each.
fn told_by(sources: &[Effective]) -> String {
    let lines = sources.iter().map(|one| {
        let value = shown(&one.value);
        format!("{:<12} {} {value} ({})\n", "source", one.field, one.from)
    });
    lines.collect()
}

async fn in_force(context: &ContextFlags) -> Result<Mesh, Failure> {
    let mut operator = context.connect().await?;
    let set = get::in_force(&mut operator).await?;
    let sidecars = operator.sidecars().await.map_err(|error| refused(&error))?;
    Ok(Mesh {
        set,
        trust_domain: context.trust_domain()?,
        sidecars: Some(sidecars),
    })
}

/// The trust domain that the identities of files are of; any will do where they have none.
fn domain_of(set: &Set) -> Result<TrustDomain, Failure> {
    let of_services = set
        .services()
        .flat_map(|(_, spec)| spec.identities.iter().flatten());
    let of_policies = set.policies().flat_map(|(_, policy)| {
        let sources = policy.from.iter().flatten();
        sources.flat_map(|source| &source.principals)
    });
    let first = of_services.chain(of_policies).next();
    match first {
        Some(identity) => Ok(identity.trust_domain().clone()),
        None => "mesh.test"
            .parse()
            .map_err(|error| Failure::new(Code::Failed, error)),
    }
}

fn addressed(args: &Explain, set: &Set) -> Result<(ServiceName, u16), Failure> {
    let usage = |line: String| Failure::new(Code::Usage, line);
    let (name, port) = match args.to.split_once(':') {
        Some((name, port)) => {
            let port = port
                .parse()
                .map_err(|_| usage(format!("{port:?} is no port")))?;
            (name, Some(port))
        }
        None => (args.to.as_str(), None),
    };
    let service = ServiceName::parse_in(&args.namespace, name)
        .map_err(|error| usage(format!("--to {}: {error}", args.to)))?;
    let of_service = set.service(&service.namespace, &service.name);
    let of_service = of_service.map(|spec| {
        let ports = spec.ports.iter();
        ports.map(|port| (port.port, port.protocol)).collect()
    });
    let of_external = || {
        let spec = set.external(&service.namespace, &service.name)?;
        let ports = spec.ports.iter();
        Some(ports.map(|port| (port.port, port.protocol)).collect())
    };
    let ports: Option<Vec<_>> = of_service.or_else(of_external);
    let ports = ports.ok_or_else(|| {
        let line = format!(
            "there is no Service and no ExternalService {} in namespace {}: write --to NAME.NAMESPACE, or -n NAMESPACE",
            service.name, service.namespace
        );
        Failure::new(Code::Failed, line)
    })?;
    let with_requests = ports.iter().filter(|(_, protocol)| protocol.has_requests());
    let with_requests: Vec<u16> = with_requests.map(|(port, _)| *port).collect();
    let port = match (port, with_requests.as_slice()) {
        (Some(port), _) => port,
        (None, ports) if ports.contains(&80) => 80,
        (None, [only]) => *only,
        (None, ports) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            let known = match ports.is_empty() {
                true => "it has none with requests".to_owned(),
                false => format!("one of {}", ports.join(", ")),
            };
            return Err(usage(format!(
                "say the port, as --to {service}:PORT; {known}"
            )));
        }
    };
    Ok((service, port))
}

fn caller(args: &Explain, trust_domain: &TrustDomain) -> Result<SpiffeId, Failure> {
    let usage = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Usage, format!("--from {}: {error}", args.from))
    };
    if args.from.starts_with("spiffe://") {
        return args.from.parse().map_err(|error| usage(&error));
    }
    let (account, namespace) = match args.from.split_once('.') {
        Some((account, namespace)) => (account, namespace),
        None => (args.from.as_str(), args.namespace.as_str()),
    };
    SpiffeId::for_workload(trust_domain, namespace, account).map_err(|error| usage(&error))
}

fn head(args: &Explain) -> Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = args.method.clone();
    head.uri = args.path.clone();
    for (name, value) in &args.header {
        head.headers.append(name.clone(), value.clone());
    }
    head
}

fn count_endpoints(explanation: &mut Explanation, sidecars: &[SidecarInfo]) {
    for share in &mut explanation.backends {
        let served = match &share.outside {
            None => &share.backend,
            Some(outside) => match &outside.via {
                Some(via) => via,
                // Its endpoints are the addresses that the caller's sidecar finds (`weft endpoints`).
                None => continue,
            },
        };
        let serving = sidecars.iter().filter(|sidecar| {
            sidecar.connected && sidecar.serves.get(served).copied() == Some(true)
        });
        let count = serving.count();
        share.endpoints = Some(count);
        if count == 0 && share.status.is_none() {
            share.status = Some(weft_proxy::Reason::NoEndpoint.status().as_u16());
            share.answer = Some("no healthy endpoint".to_owned());
        }
    }
    if let [only] = explanation.backends.as_slice() {
        (explanation.status, explanation.answer) = (only.status, only.answer.clone());
    }
}

fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    };
    line("service", &explanation.service);
    match (&explanation.route, &explanation.rule) {
        (Some(route), Some(rule)) => line("route", &format!("{route}, rule {rule}")),
        (Some(route), None) => line("route", route),
        (None, _) if explanation.backends.is_empty() => line("route", "none takes it"),
        (None, _) => line(
            "route",
            match explanation.backends.iter().any(|one| one.outside.is_some()) {
                true => "none: it leaves the mesh",
                false => "none: it goes to the Service's own endpoints",
            },
        ),
    }
    for rule in &explanation.passed_over {
        line("  not", &format!("{}: {}", rule.rule, rule.because));
    }
    for filter in &explanation.filters {
        line("filter", filter);
    }
    if let Some(session) = &explanation.session {
        line(
            "session",
            &format!("{session}: its endpoint comes before the shares below"),
        );
    }
    for share in &explanation.backends {
        let endpoints = match share.endpoints {
            Some(1) => ", 1 endpoint".to_owned(),
            Some(count) => format!(", {count} endpoints"),
            None => String::new(),
        };
        let trouble = match (share.status, &share.answer) {
            (Some(status), Some(why)) => format!("; answered with {status}: {why}"),
            (_, _) => String::new(),
        };
        line(
            "backend",
            &format!("{} {} %{endpoints}{trouble}", share.backend, share.percent),
        );
        if let Some(outside) = &share.outside {
            let addresses = match outside.addresses.is_empty() {
                true => "at the addresses of its name".to_owned(),
                false => format!("at {}", outside.addresses.join(", ")),
            };
            let tls = outside.tls.as_ref();
            let tls = tls.map_or(String::new(), |name| format!(", over TLS as {name}"));
            let hosts = outside.hosts.join(", ");
            line("  outside", &format!("{hosts} {addresses}{tls}"));
            let via = match &outside.via {
                Some(via) => format!("the sidecars of {via}, for all callers"),
                None => "the sidecar of the caller".to_owned(),
            };
            line("  sent by", &via);
        }
        for filter in &share.filters {
            line("  filter", filter);
        }
        if let Some(seen) = &share.delivered {
            line("  gets", &format!("{} with host {}", seen.path, seen.host));
        }
    }
    if let (Some(status), Some(answer)) = (explanation.status, &explanation.answer) {
        line("answer", &format!("{status} {answer}"));
    }
    if let Some(treatment) = &explanation.treatment {
        line(
            "timeouts",
            &format!(
                "request {}, attempt {}",
                treatment.request_timeout, treatment.attempt_timeout
            ),
        );
        line("retries", &treatment.retries.to_string());
    }
    for decision in &explanation.decisions {
        let says = if decision.allowed { "allows" } else { "denies" };
        let by = decision.policy.as_deref().unwrap_or("the default");
        line(
            "policy",
            &format!("{} {says} it, by {by}", decision.service),
        );
    }
    text
}
