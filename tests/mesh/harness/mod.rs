//! The tools of the tests. They know no test.

mod capture;
mod client;
mod disk;
mod h2;
mod http;
mod load;
mod mesh;
mod need;
mod network;
mod origin;
mod process;
mod python;
mod quota;
mod shop;
mod sidecar;
mod wait;

pub(crate) use capture::{Capture, Packet};
pub(crate) use client::{Client, Content, Reply, Version};
pub(crate) use disk::Disk;
pub(crate) use h2::{Answer, Call, Http2, Streams};
pub(crate) use http::{
    Connection, Response, connect, exchange, exchange_at, expect_echo, get, read_response,
};
pub(crate) use load::{Load, OpenLoad};
pub(crate) use mesh::{Mesh, service};
pub(crate) use need::{Need, heavy, need};
pub(crate) use network::{Namespace, Wire};
pub(crate) use origin::{Origin, Seen};
pub(crate) use process::{Output, Process, postgres_programs, program, run};
pub(crate) use python::{python, python_command};
pub(crate) use quota::Quota;
pub(crate) use shop::Shop;
pub(crate) use sidecar::{Sidecar, SidecarPlan};
pub(crate) use wait::{eventually, pause, wait_until};

/// The command under test.
pub(crate) const WEFT: &str = env!("CARGO_BIN_EXE_weft");
