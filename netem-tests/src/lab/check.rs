//! What a lab can use on this machine, found by trying.

use serde::Serialize;

use super::clock;
use super::host::{Host, tool};
use super::wire::probe_netem;
use crate::emulator::Device;
use crate::limits;

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Its name.
    pub what: &'static str,
    /// Whether it was found.
    pub found: bool,
    /// Whether a lab needs it.
    pub needed: bool,
    /// Details: what is missing, or what it means.
    pub said: String,
}

/// Tries everything. Only inside a [`super::sandbox`], which is the first thing to try.
pub fn probe() -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |what, needed, tried: Result<String, String>| {
        findings.push(Finding {
            what,
            found: tried.is_ok(),
            needed,
            said: tried.unwrap_or_else(|why| why),
        });
    };
    let ip = tool("ip", &["-Version"], "").map(|()| "hosts get addresses and routes".to_owned());
    add("iproute2", true, ip);
    let host = Host::new("probe").map_err(|error| error.to_string());
    let network = host.as_ref().map(|_| "each host is one".to_owned());
    add("network namespaces", true, network.map_err(Clone::clone));
    let Ok(host) = host else {
        return findings;
    };
    let device = host
        .run(|| Device::open("probe", limits::MTU_DEFAULT).map(drop))
        .and_then(|opened| opened);
    add(
        "TUN devices",
        true,
        device
            .map(|()| "the emulator is made of them".to_owned())
            .map_err(|error| {
                format!("/dev/net/tun: {error} (modprobe tun; chmod 666 for plain users)")
            }),
    );
    let netem = probe_netem(Some(&host));
    add(
        "kernel netem",
        false,
        netem
            .map(|()| "taken where it can do what a lab asks for".to_owned())
            .map_err(|said| format!("the emulator stands in ({said})")),
    );
    add("real-time threads", false, real_time());
    add("congestion control", false, congestion(&host));
    let clocks = clock::library().map(|path| format!("`step_clock` takes {}", path.display()));
    add(
        "clocks of programs",
        false,
        clocks.map_err(|error| error.to_string()),
    );
    findings
}

/// Whether a thread may have priority over all others, as the emulator's should.
fn real_time() -> Result<String, String> {
    let tried = std::thread::Builder::new().spawn(crate::emulator::ahead_of_others);
    match tried.map(std::thread::JoinHandle::join) {
        Ok(Ok(true)) => Ok("the emulator is on time on a busy machine, too".to_owned()),
        _ => {
            Err("no SCHED_FIFO: on a busy machine packets may be late, and runs invalid".to_owned())
        }
    }
}

/// Which congestion controls the hosts' TCP may use.
fn congestion(host: &Host) -> Result<String, String> {
    let path = |name: &str| format!("/proc/sys/net/ipv4/{name}");
    let files = [
        path("tcp_congestion_control"),
        path("tcp_available_congestion_control"),
    ];
    host.run(move || files.map(std::fs::read_to_string))
        .map_err(|error| error.to_string())
        .and_then(|[default, available]| match (default, available) {
            (Ok(default), Ok(available)) => Ok(format!(
                "TCP without a mesh uses {}; available: {}",
                default.trim(),
                available.trim()
            )),
            (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
        })
}
