//! `weft get`: shows what the config service knows.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use weft_config::operator::{Operator, SidecarInfo};
use weft_config::resources::{Kind, Resource, Set};
use weft_config::store::RevisionInfo;

use crate::command::{change, effective};
use crate::context::{ContextFlags, refused};
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, print};
use crate::process;

/// Lists sidecars, revisions or resources.
#[derive(Debug, Args)]
#[command(override_usage = USAGE, after_help = "Examples:\n  \
    weft get sidecars\n  \
    weft get sidecars orders -n shop\n  \
    weft get revisions\n  \
    weft get revisions 7\n  \
    weft get services\n  \
    weft get httproutes -n shop -o yaml\n  \
    weft get service orders -n shop -o yaml\n  \
    weft get --effective orders -n shop\n  \
    weft get --effective httproute/orders-split -n shop -f mesh.yaml")]
pub struct Get {
    /// sidecars, revisions, services, httproutes, authorizationpolicies, trafficpolicies, meshconfig, or all
    #[arg(value_name = "WHAT")]
    what: Option<String>,
    /// Only the object of this name, or the revision of this number
    name: Option<String>,
    /// Only in this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The traffic policy in force for a Service, ExternalService, HTTPRoute or GRPCRoute with the sessions
    /// of its rules, and where each value comes from
    #[arg(long, value_name = "SERVICE|ROUTE", conflicts_with_all = ["what", "name"])]
    effective: Option<String>,
    /// With --effective: the resources of this file or directory instead of those in force
    #[arg(short, long, value_name = "FILE", requires = "effective")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    context: ContextFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

const USAGE: &str = "weft get [OPTIONS] <WHAT> [NAME]
       weft get [OPTIONS] --effective <SERVICE|ROUTE>";

/// The kinds of objects that `get` knows, for a command line that names none.
const WHATS: &str = "sidecars, revisions, services, httproutes, authorizationpolicies, trafficpolicies, \
                     meshconfig or all";

/// Runs `weft get`.
pub fn run(args: &Get) -> Result<(), Failure> {
    if let Some(wanted) = &args.effective {
        let namespace = args.namespace.as_deref();
        let set = if args.file.is_empty() {
            process::runtime()?.block_on(async {
                let mut operator = args.context.connect().await?;
                in_force(&mut operator).await
            })?
        } else {
            change::offline(&args.file)?
        };
        return effective::show(&set, wanted, namespace, args.output);
    }
    let Some(what) = &args.what else {
        let line = format!("say what to get: {WHATS}");
        return Err(Failure::new(Code::Usage, line));
    };
    let what = Listed::parse(what)?;
    process::runtime()?.block_on(async {
        let mut operator = args.context.connect().await?;
        match what {
            Listed::Sidecars => {
                let mut sidecars = operator.sidecars().await.map_err(|error| refused(&error))?;
                sidecars.retain(|sidecar| is_meant(sidecar, args));
                if sidecars.is_empty() {
                    expect_some("sidecar", args)?;
                }
                print(args.output, &sidecars, |sidecars| sidecar_table(sidecars))
            }
            Listed::Revisions => {
                let number = args.name.as_deref().map(revision_number).transpose()?;
                let mut revisions = operator
                    .revisions()
                    .await
                    .map_err(|error| refused(&error))?;
                revisions.retain(|revision| number.is_none_or(|number| revision.number == number));
                if let (true, Some(number)) = (revisions.is_empty(), &args.name) {
                    return Err(no_such("revision", number));
                }
                print(args.output, &revisions, |revisions| {
                    revision_table(revisions)
                })
            }
            Listed::Resources(kind) => resources(&mut operator, kind, args).await,
        }
    })
}

/// A sidecar by the service account of its identity, or by its whole identity.
fn is_meant(sidecar: &SidecarInfo, args: &Get) -> bool {
    let workload = sidecar.identity.workload();
    let is_in = args.namespace.as_deref().is_none_or(|namespace| {
        workload
            .as_ref()
            .is_some_and(|workload| workload.namespace == namespace)
    });
    let is_named = args.name.as_deref().is_none_or(|name| {
        sidecar.identity.as_str() == name
            || workload.is_some_and(|workload| workload.service_account == name)
    });
    is_in && is_named
}

fn revision_number(text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| {
        let line = format!("`{text}` is not a revision: write its number, as weft get revisions 7");
        Failure::new(Code::Usage, line)
    })
}

/// A named object does not exist: exit code 1, as for `weft delete` and `weft rollback`.
fn no_such(what: &str, name: &str) -> Failure {
    Failure::new(Code::Failed, format!("there is no {what} {name}"))
}

/// An empty result is a failure only if a name or a namespace was asked for.
fn expect_some(what: &str, args: &Get) -> Result<(), Failure> {
    match (&args.name, &args.namespace) {
        (None, None) => Ok(()),
        (Some(name), None) => Err(no_such(what, name)),
        (Some(name), Some(namespace)) => {
            Err(no_such(what, &format!("{name} in namespace {namespace}")))
        }
        (None, Some(namespace)) => Err(no_such(what, &format!("in namespace {namespace}"))),
    }
}

/// All resources that are in force.
pub(super) async fn in_force(operator: &mut Operator) -> Result<Set, Failure> {
    let resources = operator.get(None, None, None).await;
    let mut set = Set::default();
    for resource in resources.map_err(|error| refused(&error))? {
        set.insert(resource);
    }
    Ok(set)
}

enum Listed {
    Sidecars,
    Revisions,
    Resources(Option<Kind>),
}

impl Listed {
    fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "sidecars" | "sidecar" => Ok(Self::Sidecars),
            "revisions" | "revision" => Ok(Self::Revisions),
            "all" => Ok(Self::Resources(None)),
            kind => kind
                .parse()
                .map(|kind| Self::Resources(Some(kind)))
                .map_err(|error| {
                    Failure::new(
                        Code::Usage,
                        format!("{error}, or sidecars, revisions or all"),
                    )
                }),
        }
    }
}

async fn resources(operator: &mut Operator, kind: Option<Kind>, args: &Get) -> Result<(), Failure> {
    let resources = operator
        .get(kind, args.namespace.as_deref(), args.name.as_deref())
        .await
        .map_err(|error| refused(&error))?;
    if resources.is_empty() {
        expect_some(kind.map_or("resource", Kind::as_str), args)?;
    }
    if args.output == Format::Yaml {
        // Several documents, in a form that can be applied again.
        let documents: Vec<String> = resources.iter().map(Resource::to_yaml).collect();
        return crate::output::text_out(&documents.join("---\n"));
    }
    print(args.output, &resources, |resources| {
        let mut table = Table::new(&["KIND", "NAMESPACE", "NAME", "WHAT"]);
        for resource in resources {
            let key = resource.key();
            table.row([
                key.kind.as_str().to_owned(),
                or_dash(key.namespace),
                key.name,
                summary(resource),
            ]);
        }
        table
    })
}

/// The columns that distinguish resources of a kind at a glance.
fn summary(resource: &Resource) -> String {
    match resource {
        Resource::Service(service) => one_line(&service.spec.ports),
        Resource::ExternalService(external) => {
            format!(
                "{}: {}",
                external.spec.hosts.join(", "),
                one_line(&external.spec.ports)
            )
        }
        Resource::HttpRoute(route) => format!("{} rules", route.spec.rules.len()),
        Resource::GrpcRoute(route) => format!("{} rules", route.spec.rules.len()),
        Resource::TlsRoute(route) => one_line(&route.spec.rules),
        Resource::TcpRoute(route) => one_line(&route.spec.rules),
        Resource::ReferenceGrant(grant) => one_line(&grant.spec.from),
        Resource::AuthorizationPolicy(policy) => one_line(&policy.spec.action),
        Resource::TrafficPolicy(policy) => {
            let targets = policy.spec.target_refs.iter();
            let targets: Vec<String> = targets.map(ToString::to_string).collect();
            let fields = policy.spec.traffic.fields();
            let fields: Vec<&str> = fields.iter().map(|field| field.path).collect();
            format!("{}: {}", targets.join(", "), fields.join(", "))
        }
        Resource::MeshConfig(mesh) => one_line(&mesh.spec),
        Resource::Workload(workload) => {
            let spec = &workload.spec;
            let served = spec.services.iter();
            let served: Vec<String> = served
                .map(|one| format!("{}:{}", one.name, one.port))
                .collect();
            format!(
                "{} at {} as {}",
                served.join(", "),
                spec.address,
                spec.identity
            )
        }
    }
}

fn one_line(value: &impl Serialize) -> String {
    serde_json::to_string(value)
        .unwrap_or_default()
        .replace('"', "")
}

fn sidecar_table(sidecars: &[SidecarInfo]) -> Table {
    let mut table = Table::new(&[
        "IDENTITY",
        "STATE",
        "ADDRESS",
        "VERSION",
        "REVISION",
        "SERVES",
        "SVID EXPIRES",
        "LAST SEEN",
        "PROBLEMS",
    ]);
    for sidecar in sidecars {
        let serves = sidecar.serves.iter().map(|(service, healthy)| {
            if *healthy {
                service.clone()
            } else {
                format!("{service} (down)")
            }
        });
        table.row([
            sidecar.identity.to_string(),
            if sidecar.connected {
                "connected"
            } else {
                "gone"
            }
            .to_owned(),
            or_dash(
                sidecar
                    .address
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
            ),
            sidecar.version.clone(),
            or_dash(
                sidecar
                    .revision
                    .as_ref()
                    .map(|revision| revision.number.to_string())
                    .unwrap_or_default(),
            ),
            or_dash(serves.collect::<Vec<_>>().join(" ")),
            sidecar.svid_expires.clone(),
            sidecar.last_seen.clone(),
            or_dash(problems(sidecar)),
        ]);
    }
    table
}

/// Why it refused a table, which parts of a table it does not get, and which of its services are not
/// registered.
fn problems(sidecar: &SidecarInfo) -> String {
    let registrations = sidecar.problems.iter();
    let registrations = registrations.map(|(service, problem)| format!("{service}: {problem}"));
    let refusal = sidecar.refusal.clone().into_iter();
    let withheld = sidecar.withheld.iter().map(ToString::to_string);
    let all: Vec<String> = refusal.chain(withheld).chain(registrations).collect();
    all.join("; ")
}

fn revision_table(revisions: &[RevisionInfo]) -> Table {
    let mut table = Table::new(&["REVISION", "TIME", "AUTHOR", "CHANGES", "MESSAGE"]);
    for revision in revisions {
        table.row([
            revision.number.to_string(),
            revision.time.clone(),
            revision.author.clone(),
            revision.changes.to_string(),
            revision.message.clone(),
        ]);
    }
    table
}

fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}
