//! Kinds of Istio.

mod authorization;
mod destination_rule;
mod filters;
mod matches;
mod times;
mod virtual_service;

use super::mesh::Mesh;
use super::output::Output;
use super::reader::{Document, Place};

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    match document.kind.as_str() {
        "VirtualService" => virtual_service::import(document, mesh, output),
        "DestinationRule" => destination_rule::import(document, mesh, output),
        "AuthorizationPolicy" => authorization::import(document, mesh, output),
        "PeerAuthentication" => peer_authentication(document, output),
        "ServiceEntry" => {
            let hint = "let callers reach it without the mesh, or write an ExternalService where your weft has that kind";
            let message = "a service outside of the mesh has no counterpart";
            output.dropped(document, &document.root(), message, hint);
        }
        "RequestAuthentication" => {
            let hint = "let the application check its tokens";
            let message = "weft checks no tokens of users: invalid ones are no longer refused";
            output.dropped(document, &document.root(), message, hint);
        }
        "Gateway" => {
            let hint = "keep your gateway, and let it call the mesh through a sidecar";
            let message = "weft has no gateway";
            output.dropped(document, &document.root(), message, hint);
        }
        _ => {
            let hint = "write what it does anew, or remove it";
            output.dropped(
                document,
                &document.root(),
                "this kind has no counterpart",
                hint,
            );
        }
    }
}

/// Sidecars take calls of proven identities only, whatever is written.
fn peer_authentication(document: &Document<'_>, output: &mut Output) {
    let spec = document.spec();
    let mut modes = Vec::new();
    modes.extend(spec.as_ref().and_then(|spec| spec.field("mtls")));
    let by_port = spec.and_then(|spec| spec.field("portLevelMtls"));
    modes.extend(
        by_port
            .iter()
            .flat_map(Place::entries)
            .map(|(_, place)| place),
    );
    for at in modes {
        match at.field("mode").and_then(|mode| mode.text()).as_deref() {
            Some("STRICT" | "UNSET") | None => {
                let message =
                    "needs no counterpart: weft always asks for an identity of both sides";
                output.told(document, &at, message, "");
            }
            Some(_) => {
                let message = "callers without an identity are refused: weft always asks for one";
                let hint = "give such callers a sidecar before the move";
                output.dropped(document, &at, message, hint);
            }
        }
    }
}
