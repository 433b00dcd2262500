//! The resources of other meshes as weft's: documents in, documents and findings out. `weft import` reads and
//! writes them. Pure.
//!
//! Two rules hold for all of it. What has no counterpart is a finding with its place, never silence. And no
//! call is let in that the source refuses: a rule of authorisation that cannot be expressed is left out where
//! it allows and made wider where it denies (`access.rs`).
//!
//! `reader.rs` reads fields and reports those that were not asked for, `mesh.rs` knows the Services and
//! identities of the files, `istio/` and `linkerd/` have a file for each group of kinds, and `output.rs` is
//! what comes of it.

mod access;
mod durations;
mod external;
mod istio;
mod linkerd;
mod mesh;
mod mutual_tls;
mod output;
mod reader;
#[cfg(test)]
mod tests;

use serde_json::Value;
use weft_config::findings::Findings;
use weft_config::resources::SourceFile;
use weft_config::yaml;
use weft_transport::identity::TrustDomain;

use mesh::Mesh;
use output::Output;
use reader::{Document, Place};

/// The mesh that the files are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// Istio.
    Istio,
    /// Linkerd.
    Linkerd,
}

/// What came of it.
#[derive(Debug)]
pub struct Imported {
    /// Resources of weft, which `weft validate` takes.
    pub documents: Vec<Value>,
    /// Errors are what was left out or means something else; warnings are what is to be known or done.
    pub findings: Findings,
}

/// Turns the documents of these files into weft's. Identities get that trust domain.
pub fn import(from: From, files: &[SourceFile], trust_domain: &TrustDomain) -> Imported {
    let mut output = Output::new(trust_domain.clone());
    let mut trees = Vec::new();
    for file in files {
        match yaml::documents(&file.text) {
            Ok(nodes) => trees.push((file.name.as_str(), nodes)),
            Err(error) => output.unreadable(&file.name, error),
        }
    }
    let mut documents = Vec::new();
    for (file, nodes) in &trees {
        for node in nodes {
            Document::read_all(file, &Place::root(node), &mut output, &mut documents);
        }
    }
    let mesh = Mesh::of(&documents);
    for document in &documents {
        match (document.group(), from) {
            ("", _) => mesh::import(document, &mesh, &mut output),
            ("gateway.networking.k8s.io", _) => output::pass(document, &mut output),
            ("networking.istio.io" | "security.istio.io", From::Istio) => {
                istio::import(document, &mesh, &mut output);
            }
            ("linkerd.io" | "policy.linkerd.io" | "split.smi-spec.io", From::Linkerd) => {
                linkerd::import(document, &mesh, &mut output);
            }
            (group, _) if mesh::is_of_no_concern(group) => {}
            (group, _) => {
                let hint = match group {
                    "networking.istio.io"
                    | "security.istio.io"
                    | "extensions.istio.io"
                    | "telemetry.istio.io" => "run weft import istio for it, or write it anew",
                    "linkerd.io" | "policy.linkerd.io" => "run weft import linkerd for it",
                    _ => "write what it does anew, or remove it",
                };
                output.dropped(
                    document,
                    &document.root(),
                    "this kind has no counterpart",
                    hint,
                );
            }
        }
    }
    output.finish()
}
