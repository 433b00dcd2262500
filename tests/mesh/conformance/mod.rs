//! The cases of the Gateway API for a mesh (`docs/conformance.md`), with real sidecars and applications:
//! unchanged YAML in, requests through, and what the application and the client saw. Each case is named by
//! its number on that page, and each test says which it judges: `report.rs` keeps the page to the results.

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
mod parents;
mod protocols;
mod redirects;
mod report;
mod retries;
mod sessions;
mod tcp;
mod tls;
