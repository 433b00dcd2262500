//! Compiles `proto/` with protox, so that a machine needs no `protoc`.

use std::{error::Error, path::Path};

const FILES: [&str; 2] = ["weft/ca/v1/authority.proto", "weft/ca/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .skip_debug(["weft.ca.v1.SignRequest", "weft.ca.v1.CreateTokensResponse"])
        .compile_fds(descriptors)?;
    Ok(())
}
