//! Messages and services generated from `proto/weft/ca/v1`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::restriction,
    reason = "generated code"
)]

tonic::include_proto!("weft.ca.v1");
