//! PeerAuthentication of Istio: `mutualTls` of Services. Which it opens is in `import/mutual_tls.rs`; the
//! Services themselves are written by `import/mesh.rs`.

use crate::import::mesh::Mesh;
use crate::import::mutual_tls::Standing;
use crate::import::output::Output;
use crate::import::reader::{Document, Place};

const HINT: &str = "give such callers a sidecar before the move";

pub(super) fn import(document: &Document<'_>, mesh: &Mesh, output: &mut Output) {
    let spec = document.spec();
    let field = |name: &str| spec.as_ref()?.field(name);
    if let Some(at) = field("mtls") {
        match mode(&at).as_deref() {
            Some("PERMISSIVE") => permissive(document, &at, mesh, output),
            other => strict(document, &at, other, output),
        }
    }
    for (_, at) in field("portLevelMtls").iter().flat_map(Place::entries) {
        match mode(&at).as_deref() {
            Some("PERMISSIVE") => {
                let message = "weft has one mode for all ports of a Service: callers without an identity are refused";
                output.dropped(document, &at, message, HINT);
            }
            other => strict(document, &at, other, output),
        }
    }
    if let Some(spec) = &spec {
        let mut fields = spec.fields();
        for known in ["selector", "mtls", "portLevelMtls"] {
            fields.take(known);
        }
        fields.rest(document, output);
    }
}

fn mode(at: &Place<'_>) -> Option<String> {
    at.field("mode")?.text()
}

fn strict(document: &Document<'_>, at: &Place<'_>, mode: Option<&str>, output: &mut Output) {
    match mode {
        Some("STRICT" | "UNSET") | None => {
            let message =
                "needs no counterpart: a Service of weft asks for an identity of both sides";
            output.told(document, at, message, "");
        }
        Some(_) => {
            let message = "callers without an identity are refused: write mutualTls: Permissive into a Service that has to take them for a while";
            output.dropped(document, at, message, HINT);
        }
    }
}

fn permissive(document: &Document<'_>, at: &Place<'_>, mesh: &Mesh, output: &mut Output) {
    let concerned = mesh.concerned_by(document);
    let names = |wanted: Standing| {
        let found = concerned.iter().filter(|(_, standing)| *standing == wanted);
        let names = found.map(|((namespace, name), _)| format!("{name}.{namespace}"));
        names.collect::<Vec<_>>().join(", ")
    };
    let (open, mixed) = (names(Standing::Permissive), names(Standing::Mixed));
    if !open.is_empty() {
        let message = format!("is mutualTls: Permissive of {open}");
        let hint = "name a listener for such callers in the settings of its sidecars (plaintext_listen), and lead them there";
        output.told(document, at, &message, hint);
    }
    if !mixed.is_empty() {
        let message = format!(
            "workloads or ports of {mixed} differ, so callers without an identity are refused there"
        );
        output.dropped(document, at, &message, HINT);
    }
    if concerned.is_empty() {
        let message = "is about no Service of the files: callers without an identity are refused";
        let hint = "import the Services of Kubernetes along: kubectl get service -A -o yaml";
        output.dropped(document, at, message, hint);
    }
}
