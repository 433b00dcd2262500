//! The cases of the Gateway API for a mesh (`docs/conformance.md`), with real sidecars and applications:
//! unchanged YAML in, requests through, and what the application and the client saw. The name of each test
//! begins with the cases that it judges, by their numbers on that page (`name.rs`): `report.rs` keeps the
//! page to the results, and `tests/documentation` finds cases without a test.

mod application;
mod backends;
mod cors;
mod edges;
mod explained;
mod filters;
mod fixture;
mod grpc;
mod matching;
mod mirrors;
mod name;
mod parents;
mod protocols;
mod redirects;
mod report;
mod retries;
mod sessions;
mod tcp;
mod tls;
mod visible;
