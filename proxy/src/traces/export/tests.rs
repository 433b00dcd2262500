//! Tests of `proxy/src/traces/export.rs`, against collectors that answer as a test says.
