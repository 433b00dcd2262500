//! Kinds of Istio.

mod authorization;
mod destination_rule;
mod filters;
mod matches;
mod peer_authentication;
mod service_entry;
mod times;
mod virtual_service;

use super::mesh::Mesh;
use super::output::Output;
use super::reader::Document;

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    match document.kind.as_str() {
        "VirtualService" => virtual_service::import(document, mesh, output),
        "DestinationRule" => destination_rule::import(document, mesh, output),
        "AuthorizationPolicy" => authorization::import(document, mesh, output),
        "PeerAuthentication" => peer_authentication::import(document, mesh, output),
        "ServiceEntry" => service_entry::import(document, mesh, output),
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
