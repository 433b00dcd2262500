//! `weft import`: turns the resources of another mesh into weft's. `crate::import` decides; this reads files,
//! prints, and gives the exit code.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weft_config::findings::Severity;
use weft_config::resources::{FilesError, read_files};
use weft_config::yaml;
use weft_transport::identity::TrustDomain;

use crate::failure::{Code, Failure};
use crate::import::{self, From};
use crate::output::{note, text_out};

/// Turns the resources of Istio or Linkerd into weft's.
///
/// The result goes to stdout or --out, and `weft validate` takes it. What has no counterpart, means something
/// else in weft, or needs work on the sidecars, goes to stderr with its file, line and field. A rule of
/// authorisation that cannot be expressed never lets more calls in than before: one that allows is left out,
/// one that denies is made wider, and where neither is possible the mesh denies by default.
///
/// Give it the Services, ServiceAccounts and Deployments of Kubernetes along: routes need the ports, and
/// policies the workloads that they select. What maps to what is in docs/import.md.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    kubectl get virtualservices,destinationrules,authorizationpolicies.security.istio.io,services,\\\n    \
    serviceaccounts,deployments -A -o yaml > istio.yaml\n  \
    weft import istio -f istio.yaml --trust-domain shop.example --out weft.yaml\n  \
    weft validate -f weft.yaml\n\n\
    Exit code 0 if all of it has a counterpart, 1 if something was left out or means something else.")]
pub struct Import {
    /// The mesh that the files are of
    #[arg(value_enum)]
    from: Mesh,
    /// File or directory with resources, or - for stdin; may be repeated
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The trust domain of the identities in the result: that of your weft mesh
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// Write the result there instead of to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The meshes that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mesh {
    /// VirtualService, DestinationRule, AuthorizationPolicy, PeerAuthentication
    Istio,
    /// ServiceProfile, HTTPRoute, Server, ServerAuthorization, AuthorizationPolicy, TrafficSplit
    Linkerd,
}

/// Runs `weft import`.
pub fn run(args: &Import) -> Result<(), Failure> {
    let files = read_files(&args.file).map_err(|error| {
        let code = match error {
            FilesError::Io { .. } => Code::Failed,
            FilesError::NotText(_) | FilesError::Empty(_) | FilesError::TooLarge => Code::BadData,
        };
        Failure::new(code, error.to_string())
    })?;
    let from = match args.from {
        Mesh::Istio => From::Istio,
        Mesh::Linkerd => From::Linkerd,
    };
    let imported = import::import(from, &files, &args.trust_domain);
    let mut text = String::new();
    for document in &imported.documents {
        let yaml = yaml::to_string(document).map_err(|error| Failure::new(Code::Failed, error))?;
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&yaml);
    }
    match &args.out {
        Some(path) => std::fs::write(path, &text).map_err(|error| Failure::io(path, &error))?,
        None => text_out(&text)?,
    }
    let findings = &imported.findings;
    for finding in &findings.listed {
        note(format_args!("{finding}"));
    }
    if findings.omitted > 0 {
        note(format_args!("and {} more", findings.omitted));
    }
    let told = findings
        .listed
        .iter()
        .filter(|one| one.severity == Severity::Warning)
        .count();
    note(format_args!(
        "weft: {} resources; {} places have no counterpart, {told} are to be looked at",
        imported.documents.len(),
        findings.errors()
    ));
    match findings.has_errors() {
        true => Err(Failure::silent(Code::Failed)),
        false => Ok(()),
    }
}
