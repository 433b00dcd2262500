//! Compiles `proto/` with protox, so that a machine needs no `protoc`.

use std::{error::Error, path::Path};

const FILES: [&str; 4] = [
    "weft/config/v1/discovery.proto",
    "weft/config/v1/observation.proto",
    "weft/config/v1/operator.proto",
    "weft/config/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // One encoded table is sent to every sidecar that has it.
        .bytes(".weft.config.v1.Table.json")
        .compile_fds(descriptors)?;
    Ok(())
}
