//! What reads bytes of others, and the fuzz targets of each: `docs/adr/0024-fuzzing.md`.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Findings, rust_sources};

/// Files that make something of foreign bytes, each with its crate and its targets there.
const DECODERS: [(&str, &str, &[&str]); 23] = [
    (
        "transport/src/http3/frame.rs",
        "transport",
        &["http3_frames", "http3_connection"],
    ),
    (
        "transport/src/http3/connection_core.rs",
        "transport",
        &["http3_connection"],
    ),
    (
        "transport/src/http3/control.rs",
        "transport",
        &["http3_connection"],
    ),
    (
        "transport/src/http3/settings.rs",
        "transport",
        &["http3_connection"],
    ),
    (
        "transport/src/http3/qpack/instructions.rs",
        "transport",
        &["http3_connection"],
    ),
    (
        "transport/src/http3/qpack/decoder.rs",
        "transport",
        &["qpack_sections"],
    ),
    (
        "transport/src/http3/qpack/huffman.rs",
        "transport",
        &["qpack_sections"],
    ),
    (
        "transport/src/http3/message/request.rs",
        "transport",
        &["http3_requests"],
    ),
    (
        "transport/src/http3/message/response.rs",
        "transport",
        &["http3_responses"],
    ),
    (
        "transport/src/http3/message/fields.rs",
        "transport",
        &["http3_requests", "http3_trailers"],
    ),
    (
        "ca/src/token.rs",
        "ca",
        &["join_tokens", "join_token_contents"],
    ),
    ("ca/src/csr.rs", "ca", &["certificate_requests"]),
    ("config/src/client/held.rs", "config", &["tables"]),
    ("config/src/client/cache.rs", "config", &["table_files"]),
    ("config/src/client/take.rs", "config", &["service_messages"]),
    ("config/src/resources.rs", "config", &["resources"]),
    ("config/src/table/session.rs", "config", &["session_tokens"]),
    ("proxy/src/outbound/http1.rs", "proxy", &["http1_requests"]),
    ("proxy/src/http/traceparent.rs", "proxy", &["trace_context"]),
    (
        "proxy/src/traces/answer.rs",
        "proxy",
        &["collector_answers"],
    ),
    ("proxy/src/health/grpc.rs", "proxy", &["grpc_health"]),
    (
        "proxy/src/outside/names/message.rs",
        "proxy",
        &["dns_answers"],
    ),
    (
        "proxy/src/takeover/message.rs",
        "proxy",
        &["takeover_messages", "takeover_lengths"],
    ),
];

/// Those whose decoder is hyper or rustls, with what the sidecar makes of its words.
const OF_LIBRARIES: [(&str, &str, &[&str]); 2] = [
    ("proxy/src/http/response.rs", "proxy", &["http1_answers"]),
    (
        "transport/src/client_hello.rs",
        "transport",
        &["client_hellos"],
    ),
];

#[test]
fn every_decoder_of_foreign_bytes_has_a_fuzz_target_with_inputs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = Findings::default();
    let sources = rust_sources();
    let mut listed = BTreeSet::new();
    for (file, krate, targets) in DECODERS.iter().chain(&OF_LIBRARIES) {
        if !root.join(file).exists() {
            findings.add(
                file,
                1,
                "it is gone: mend the list in tests/tidy/fuzzing.rs",
            );
        }
        for target in *targets {
            listed.insert(format!("{krate}/fuzz/corpus/{target}"));
            let quoted = format!("\"{target}\"");
            let runs = |path: &str| path.starts_with(krate) && path.contains("fuzz");
            let is_run = sources
                .iter()
                .any(|source| runs(&source.path) && source.text.contains(&quoted));
            if !is_run {
                findings.add(file, 1, format!("no test runs the fuzz target {target}"));
            }
        }
    }
    for krate in ["transport", "store", "ca", "config", "proxy"] {
        let Ok(folders) = std::fs::read_dir(root.join(krate).join("fuzz/corpus")) else {
            continue;
        };
        for folder in folders.filter_map(Result::ok) {
            let name = folder.file_name();
            let name = name.to_str().unwrap();
            let path = format!("{krate}/fuzz/corpus/{name}");
            if !listed.remove(&path) {
                findings.add(
                    &path,
                    1,
                    "say in tests/tidy/fuzzing.rs whose inputs these are",
                );
            }
            for input in std::fs::read_dir(folder.path())
                .unwrap()
                .filter_map(Result::ok)
            {
                if input.file_name().to_str().unwrap().starts_with("found-") {
                    findings.add(&path, 1, "give what was found a name that says what it is");
                }
            }
        }
    }
    for path in listed {
        findings.add(&path, 1, "a fuzz target has inputs: there are none");
    }
    findings.expect_none();
}
