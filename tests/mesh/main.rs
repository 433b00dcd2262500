//! Black-box tests: the real command in real processes, with real programs around it (nginx, wrk, PostgreSQL,
//! redis, grpcio, aioquic). No code here uses weft's crates: the tests know a mesh only by the command's
//! interface and the wire.
//!
//! Each module has one subject; its tests' names are facts. `harness/` starts and watches processes, waits,
//! and speaks plain HTTP. `scripts/test` installs what the tests need; a test that lacks a requirement prints
//! that and is skipped, or fails where `CI` is set.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "the whole crate is tests: what does not hold must stop them"
)]

mod harness;

mod admin;
mod admin_browser;
mod application_ends;
mod application_streams;
mod authorization;
mod bad_input;
mod change_under_load;
mod clients;
mod conformance;
mod control_plane;
mod databases;
mod drain;
mod early_answers;
mod egress;
mod egress_changes;
mod egress_interim;
mod egress_tls;
mod egress_via;
mod figures;
mod framing;
mod framing_of_fields;
mod framing_of_servers;
mod full_disk;
mod greedy_caller;
mod grpc;
mod health;
mod hostile_client;
mod hostile_handshake;
mod hostile_member;
mod hostile_origin;
mod hostile_peer;
mod hostile_source;
mod http;
mod identity;
mod impatient;
mod interop;
mod ipv6;
mod listeners;
mod many;
mod namespaces;
mod nginx;
mod operator_commands;
mod outage;
mod overload;
mod overload_of_application;
mod own_answers;
mod plaintext;
mod plaintext_unread;
mod policy_sight;
mod renewal;
mod replicas;
mod resilience;
mod routing_guide;
mod shares;
mod shown_refusals;
mod signals;
mod stat;
mod streams;
mod takeover;
mod takeover_delay;
mod takeover_failures;
mod takeover_generations;
mod times;
mod traces;
mod why;
mod workloads;
