//! What must hold of all texts that an operator may apply as resources, and of all bytes that a client may
//! send as the token of its session. Their inputs are in `config/fuzz/corpus`; `client/fuzz_tests.rs` has
//! those of tables.

use std::collections::BTreeSet;

use weft_fuzz::Target;
use weft_transport::identity::{SpiffeId, TrustDomain};

use crate::compile::{Endpoints, Plan, Sidecar};
use crate::findings::{Findings, Severity};
use crate::limits;
use crate::resources::{InvalidRules, Parsed, Resource, Set, SourceFile, parse_with};
use crate::table::{Features, Revision, ServiceName, SessionKey, Table, TokenFault, Tokens};
use crate::validate::validate;

const WORDS: &[&str] = &[
    "\n---\n",
    "\n  ",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "|",
    ">",
    "\"",
    "'",
    "# ",
    "null",
    "~",
    "true",
    "yes",
    "0x10",
    "0o17",
    ".inf",
    ".nan",
    "1e400",
    "100ms",
    "1h",
    "0s",
    "64KiB",
    "99.99",
    "-1",
    "kind: Service",
    "kind: HTTPRoute",
    "kind: AuthorizationPolicy",
    "kind: TrafficPolicy",
    "kind: MeshConfig",
    "namespace: weft",
    "spiffe://demo.test/ns/shop/sa/*",
    "PathPrefix",
    "Exact",
    "/a/../b",
    "/%2f",
    "\u{e9}",
    "\t",
    "protocol: tcp",
    "port: 80",
    "weight: 0",
    "Deny",
    "Audit",
    "\u{feff}",
];

fn read(text: &str, invalid_rules: InvalidRules) -> Parsed {
    let file = SourceFile {
        name: "mesh.yaml".into(),
        text: text.into(),
    };
    parse_with(&[file], invalid_rules)
}

/// That they say what is wrong, and where in the text.
fn assert_are_told(findings: &Findings, text: &str) {
    let lines = text
        .split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
        .count();
    assert!(findings.listed.len() <= limits::FINDINGS_MAX);
    for finding in &findings.listed {
        assert!(!finding.message.is_empty());
        assert!(!finding.to_string().contains('\n'), "{finding}");
        let line = finding
            .position
            .map_or(1, |position| position.line as usize);
        assert!((1..=lines + 1).contains(&line), "line {line} of {lines}");
    }
}

fn domain() -> TrustDomain {
    "demo.test".parse().unwrap()
}

/// The table of a sidecar of each service, which would call all others.
fn compile(set: &Set, features: Features) -> Vec<Table> {
    let revision = Revision {
        store: "s".into(),
        number: 1,
    };
    let plan = Plan::new(revision, domain(), set);
    let all: BTreeSet<ServiceName> = set.services().map(|(name, _)| name).collect();
    let of = |name: &ServiceName| {
        let sidecar = Sidecar {
            identity: SpiffeId::for_workload(&domain(), &name.namespace, &name.name).unwrap(),
            listens_for: all.clone(),
            serves: [name.clone()].into(),
            features,
        };
        plan.table(&sidecar, &Endpoints::new())
    };
    all.iter().map(of).collect()
}

fn set_of(parsed: &Parsed) -> Set {
    let mut set = Set::default();
    let resources = parsed.resources.iter().cloned();
    resources.for_each(|one| set.insert(one));
    set
}

/// That resources without a fault are the same after they were shown, applied again, and stored.
fn lasts(parsed: &Parsed, invalid_rules: InvalidRules) {
    if parsed.findings.has_errors() {
        return;
    }
    for resource in &parsed.resources {
        let written = resource.to_yaml();
        let again = read(&written, invalid_rules);
        assert_eq!(again.resources, std::slice::from_ref(resource), "{written}");
        let stored = serde_json::to_vec(resource).unwrap();
        assert_eq!(
            serde_json::from_slice::<Resource>(&stored).unwrap(),
            *resource
        );
    }
}

/// An input is a file of resources.
#[test]
fn resources_are_refused_with_a_place_or_become_tables_that_a_sidecar_reads() {
    let property = |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let partly = read(&text, InvalidRules::Drop);
        lasts(&partly, InvalidRules::Drop);
        compile(&set_of(&partly), Features::all());
        assert_are_told(&partly.findings, &text);
        let parsed = read(&text, InvalidRules::Refuse);
        assert_are_told(&parsed.findings, &text);
        lasts(&parsed, InvalidRules::Refuse);
        let set = set_of(&parsed);
        let validated = validate(&set, Some(&domain()), &parsed);
        assert_are_told(&validated, &text);
        // It compiles what it can even of what is refused.
        let tables = compile(&set, Features::all());
        let of_older = compile(&set, Features::none());
        if parsed.findings.has_errors() {
            let first = parsed
                .findings
                .listed
                .iter()
                .find(|one| one.severity == Severity::Error);
            let field = first.map_or("", |one| &one.field);
            let field: String = field
                .chars()
                .filter(|one| !one.is_ascii_digit())
                .take(60)
                .collect();
            return format!("refused at {field}");
        }
        if validated.has_errors() {
            return "does not fit together".to_owned();
        }
        for table in tables {
            let json = table.write_for(Features::all()).unwrap();
            assert_eq!(serde_json::from_slice::<Table>(&json).unwrap(), table);
        }
        for table in of_older {
            let json = table.write_for(Features::none()).unwrap();
            assert!(serde_json::from_slice::<Table>(&json).is_ok());
        }
        let kinds: BTreeSet<&str> = set.resources.keys().map(|key| key.kind.as_str()).collect();
        format!("{kinds:?}")
    };
    let target = Target::new(env!("CARGO_MANIFEST_DIR"), "resources").words(WORDS);
    let seen = target.longest(4000).rounds(800).run(property);
    seen.expect("does not fit together")
        .expect("{\"AuthorizationPolicy\", \"HTTPRoute\", \"Service\"}");
}

/// An input is what a client sends as the token of its session.
#[test]
fn a_token_that_a_client_sends_is_one_that_the_key_sealed_or_none() {
    let tokens = Tokens::new(&[SessionKey::new([1; 32])]).unwrap();
    let property = |input: &[u8]| match tokens.open(input, None, 0) {
        Ok(token) => {
            let again = tokens.seal(&token, [1; 12]).unwrap();
            assert_eq!(again.as_bytes(), input);
            "a token"
        }
        Err(TokenFault::Malformed) => "malformed",
        Err(TokenFault::Unauthentic) => "unauthentic",
        Err(TokenFault::Expired) => "expired",
    };
    let seen = Target::new(env!("CARGO_MANIFEST_DIR"), "session_tokens")
        .words(&["AQEBAQEBAQEBAQEB", "-", "_", "+", "="])
        .rounds(10_000)
        .run(property);
    seen.expect("a token")
        .expect("malformed")
        .expect("unauthentic");
}
