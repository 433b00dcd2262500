//! The commands of `docs/routing.md`, run as they stand there: a canary release under load.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::harness::{Mesh, Need, Origin, WEFT, need, run};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/routing.md");

/// The blocks of commands of the page, in its order.
fn commands() -> Vec<String> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split_once("```\n"));
    blocks.map(|(block, _)| block.to_owned()).collect()
}

fn version(mesh: &Mesh, name: &'static str) -> Origin {
    Origin::http(mesh.address(), move |_, out| {
        let length = name.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{name}");
        out.write_all(answer.as_bytes())?;
        Ok(true)
    })
}

#[test]
fn the_canary_release_of_the_routing_guide_fails_no_request() {
    if !need(&[Need::Program("curl")]) {
        return;
    }
    let mesh = Mesh::start();
    let (v1, v2) = (version(&mesh, "version 1"), version(&mesh, "version 2"));
    let _one = mesh
        .sidecar("orders-v1")
        .serves("orders-v1:80", v1.address)
        .spawn();
    let _two = mesh
        .sidecar("orders-v2")
        .serves("orders-v2:80", v2.address)
        .spawn();
    let caller = mesh.sidecar("caller").calls("orders:80").spawn();
    let blocks = commands();
    let (first, rest) = blocks.split_first().unwrap();
    assert_eq!(first, "ORDERS=http://127.0.0.1:5001/\n");
    let mut script = format!("ORDERS=http://{}/\n", caller.listener("orders:80"));
    for (number, block) in rest.iter().enumerate() {
        script += &format!("echo '== {number}'\n{block}");
        if block.contains("canary 0\n") {
            // The sidecars were started before there were Services.
            script += "until curl -sf \"$ORDERS\" > first; do sleep 0.2; done\n";
            script += "until weft explain --from caller --to orders-v2 -n shop | grep '1 endpoint'; do sleep 0.2; done\n";
        }
    }
    let output = run_script(&mesh, &script);
    let parts: Vec<&str> = output.split("== ").collect();
    let part = |of: &str| {
        let at = rest.iter().position(|block| block.contains(of)).unwrap();
        let head = format!("{at}\n");
        let found = parts.iter().find(|part| part.starts_with(&head));
        found.unwrap_or_else(|| panic!("no {of}: {output}"))
    };
    for (step, shares) in [
        (
            "canary 1\n",
            ["orders-v1.shop:80 99 %", "orders-v2.shop:80 1 %"],
        ),
        (
            "canary 10\n",
            ["orders-v1.shop:80 90 %", "orders-v2.shop:80 10 %"],
        ),
        (
            "canary 50\n",
            ["orders-v1.shop:80 50 %", "orders-v2.shop:80 50 %"],
        ),
        ("canary 100\n", ["orders-v2.shop:80 100 %", "20 version 2"]),
        ("weft rollback", ["revision ", "20 version 1"]),
    ] {
        for share in shares {
            assert!(part(step).contains(share), "{step}: {share}: {output}");
        }
    }
    let load = part("cat load.json");
    let load = &load[load.find('{').unwrap()..=load.rfind('}').unwrap()];
    let load: serde_json::Value = serde_json::from_str(load).unwrap();
    let summary = &load["summary"];
    assert_eq!(summary["failed"], 0, "{summary}");
    assert_ne!(summary["succeeded"], 0, "{summary}");
    assert!(!v1.requests().is_empty() && !v2.requests().is_empty());
}

/// Runs it with `weft` on the PATH, as the operator.
#[track_caller]
fn run_script(mesh: &Mesh, script: &str) -> String {
    let file = mesh.folder().join("guide.sh");
    std::fs::File::create(&file)
        .and_then(|mut file| file.write_all(script.as_bytes()))
        .unwrap();
    let weft = Path::new(WEFT).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap().into_string().unwrap();
    let mut bash = Command::new("bash");
    bash.args(["-eu", "-o", "pipefail"]).arg(&file);
    bash.current_dir(mesh.folder()).env("HOME", mesh.folder());
    bash.env("PATH", format!("{}:{path}", weft.display()));
    let output = run(&mut bash);
    assert_eq!(output.code, 0, "{}\n{}", output.stdout, output.stderr);
    output.stdout
}
