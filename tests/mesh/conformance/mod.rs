//! The cases of the Gateway API for a mesh (`docs/conformance.md`), with real sidecars and applications:
//! unchanged YAML in, requests through, and what the application and the client saw. Each case is named by
//! its number on that page.

mod application;
mod backends;
mod cors;
mod explained;
mod filters;
mod fixture;
mod matching;
mod mirrors;
mod parents;
mod retries;
mod sessions;
