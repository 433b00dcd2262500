//! Judges what the facts about this host mean for a sidecar. Pure: `facts.rs` gathers, this file judges.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::Serialize;

/// Clocks further apart than this make fresh certificates look not yet valid: they begin 60 s
/// before they are issued.
const SKEW_FAIL: Duration = Duration::from_secs(60);
/// Clocks further apart than this drift: they are not synchronised.
const SKEW_WARN: Duration = Duration::from_secs(5);
/// Open files below which a busy sidecar runs out: two per connection of the application.
const FILES_WARN: u64 = 16_384;

/// The facts; no judgement.
#[derive(Debug, Default)]
pub struct Facts {
    /// Clocks of the control plane.
    pub clocks: Vec<Clock>,
    /// Peers that were sent a QUIC packet.
    pub udp: Vec<UdpProbe>,
    /// UDP socket buffers.
    pub buffers: Option<Buffers>,
    /// Addresses that the sidecar listens on.
    pub ports: Vec<Port>,
    /// The identity in the state directory.
    pub svid: Option<Result<SvidFact, String>>,
    /// The identity that a sidecar gets by its token if it has never joined.
    pub joins_as: Option<String>,
    /// Applications that the sidecar delivers to.
    pub applications: Vec<Application>,
    /// Soft and hard limit of open files.
    pub files: Option<(u64, u64)>,
}

/// A clock of the control plane, read over its TLS connection (to the second).
#[derive(Debug)]
pub struct Clock {
    pub of: String,
    pub theirs: Result<SystemTime, String>,
    pub ours: SystemTime,
}

/// A QUIC packet that every QUIC server answers, and whether this one did.
#[derive(Debug)]
pub struct UdpProbe {
    pub peer: SocketAddr,
    pub answered: Result<bool, String>,
}

/// Bytes per direction: requested, and granted by the kernel.
#[derive(Debug)]
pub struct Buffers {
    pub wanted: u64,
    pub receive: u64,
    pub send: u64,
}

/// An address of the settings.
#[derive(Debug)]
pub struct Port {
    pub setting: &'static str,
    pub address: String,
    pub state: PortState,
    /// The running sidecar says that it listens there.
    pub ours: bool,
}

impl Port {
    /// Whether it is one of the admin endpoint.
    pub fn is_admin(&self) -> bool {
        self.setting == ADMIN
    }
}

/// The setting of the admin endpoint.
pub const ADMIN: &str = "admin";

/// The state of the sidecar with these settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// No sidecar runs.
    None,
    /// It waits for the CA, and has only its admin endpoint.
    Waits,
    Runs,
}

/// The error of binding it.
#[derive(Debug)]
pub enum PortState {
    Free,
    /// The program that holds it, if that is visible.
    InUse(Option<String>),
    Refused(String),
}

/// The certificate on disk.
#[derive(Debug)]
pub struct SvidFact {
    pub id: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// An application of `inbound.services`.
#[derive(Debug)]
pub struct Application {
    pub service: String,
    /// The question of its health check, and where.
    pub asked: String,
    /// How it failed, if it did.
    pub answered: Result<(), String>,
}

/// One line of the report.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: String,
    pub verdict: Verdict,
    pub found: String,
    /// The remedy; empty if there is no fault.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// How severe a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        })
    }
}

/// Judges all facts. A sidecar that runs has its ports in use.
pub fn judge(facts: &Facts, now: SystemTime, life: Life) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A running sidecar states its identity itself; the disk may not hold it yet.
    if life != Life::Runs {
        findings.extend(match &facts.joins_as {
            Some(identity) => Some(judge_token(identity)),
            None => facts.svid.as_ref().map(|svid| judge_svid(svid, now)),
        });
    }
    findings.extend(facts.clocks.iter().map(judge_clock));
    findings.extend(facts.udp.iter().map(judge_udp));
    findings.extend(facts.buffers.as_ref().map(judge_buffers));
    findings.extend(facts.ports.iter().map(|port| judge_port(port, life)));
    findings.extend(facts.applications.iter().map(judge_application));
    findings.extend(facts.files.map(judge_files));
    findings
}

/// A line of the report.
pub fn finding(
    check: impl Into<String>,
    verdict: Verdict,
    found: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding {
        check: check.into(),
        verdict,
        found: found.into(),
        advice: advice.into(),
    }
}

fn judge_token(identity: &str) -> Finding {
    let found = format!("none yet; the token is for {identity}");
    let advice = "the sidecar joins with it at its first start";
    finding("identity", Verdict::Warn, found, advice)
}

/// Judges the certificate that a sidecar has.
pub fn judge_svid(svid: &Result<SvidFact, String>, now: SystemTime) -> Finding {
    let join = "join again: write a new token's file as join.token_file (weft ca token)";
    let svid = match svid {
        Ok(svid) => svid,
        Err(error) => return finding("identity", Verdict::Fail, error, join),
    };
    let life = svid
        .not_after
        .duration_since(svid.not_before)
        .unwrap_or_default();
    let Ok(left) = svid.not_after.duration_since(now) else {
        return finding(
            "identity",
            Verdict::Fail,
            format!("{} has expired", svid.id),
            join,
        );
    };
    if svid.not_before > now {
        return finding(
            "identity",
            Verdict::Fail,
            format!("{} is not valid yet", svid.id),
            "set this host's clock: it is behind the CA's",
        );
    }
    let found = format!("{}, {} left of {}", svid.id, span(left), span(life));
    // It is renewed at two thirds of its life, so with a third left, renewal has failed.
    if left < life / 4 {
        let advice =
            "renewal is overdue: see whether the CA is reachable and what the sidecar's log says";
        return finding("identity", Verdict::Warn, found, advice);
    }
    finding("identity", Verdict::Ok, found, "")
}

fn judge_clock(clock: &Clock) -> Finding {
    let check = format!("clock against {}", clock.of);
    let theirs = match &clock.theirs {
        Ok(theirs) => *theirs,
        Err(error) => {
            let advice = "start it, or correct its address; until then a sidecar runs with its last good table";
            return finding(check, Verdict::Warn, error, advice);
        }
    };
    let (skew, side) = match clock.ours.duration_since(theirs) {
        Ok(skew) => (skew, "ahead"),
        Err(error) => (error.duration(), "behind"),
    };
    // Their clock is read to the second.
    if skew < Duration::from_secs(2) {
        return finding(check, Verdict::Ok, "within 2s", "");
    }
    let found = format!("this host is {} {side}", span(skew));
    let advice = "set the clocks by NTP (timedatectl set-ntp true)";
    match skew {
        skew if skew >= SKEW_FAIL => finding(check, Verdict::Fail, found, advice),
        skew if skew >= SKEW_WARN => finding(check, Verdict::Warn, found, advice),
        _ => finding(check, Verdict::Ok, found, ""),
    }
}

fn judge_udp(probe: &UdpProbe) -> Finding {
    let check = format!("UDP to {}", probe.peer);
    match &probe.answered {
        Ok(true) => finding(check, Verdict::Ok, "answers", ""),
        Ok(false) => finding(
            check,
            Verdict::Fail,
            "no answer",
            format!(
                "let UDP port {} through firewalls in both directions, or see whether that sidecar runs",
                probe.peer.port()
            ),
        ),
        Err(error) => finding(check, Verdict::Fail, error, "see the route to that address"),
    }
}

fn judge_buffers(buffers: &Buffers) -> Finding {
    let granted = buffers.receive.min(buffers.send);
    let found = format!(
        "{} KiB of {} KiB granted",
        granted / 1024,
        buffers.wanted / 1024
    );
    if granted >= buffers.wanted {
        return finding("UDP buffers", Verdict::Ok, found, "");
    }
    let advice = format!(
        "bursts will be dropped: sysctl -w net.core.rmem_max={0} net.core.wmem_max={0}",
        buffers.wanted
    );
    finding("UDP buffers", Verdict::Warn, found, advice)
}

fn judge_port(port: &Port, life: Life) -> Finding {
    let check = format!("{} {}", port.setting, port.address);
    match &port.state {
        PortState::Free if life == Life::Runs => finding(
            check,
            Verdict::Warn,
            "free, though the sidecar runs",
            "it runs with other settings: restart it",
        ),
        PortState::Free => finding(check, Verdict::Ok, "free", ""),
        PortState::InUse(_)
            if (life == Life::Runs && port.ours) || (life == Life::Waits && port.is_admin()) =>
        {
            finding(check, Verdict::Ok, "in use, by the running sidecar", "")
        }
        PortState::InUse(holder) => {
            let holder = holder.as_deref().unwrap_or("a program of another user");
            let found = format!("in use, by {holder}");
            let advice = match life {
                Life::Runs => {
                    "the running sidecar does not listen there: end what holds it or write another port, and restart \
                     the sidecar"
                }
                Life::None | Life::Waits => {
                    "end what holds it (ss -lnptu shows it) or write another port"
                }
            };
            finding(check, Verdict::Fail, found, advice)
        }
        PortState::Refused(error) => finding(
            check,
            Verdict::Fail,
            error,
            "write an address of this host, and a port above 1023 unless weft may take lower ones",
        ),
    }
}

fn judge_application(application: &Application) -> Finding {
    let check = format!("application of {}", application.service);
    let asked = &application.asked;
    match &application.answered {
        Ok(()) => finding(check, Verdict::Ok, format!("{asked}: healthy"), ""),
        Err(error) => finding(
            check,
            Verdict::Fail,
            format!("{asked}: {error}"),
            "start it, or correct its address or its health check; until then the sidecar does not announce the service",
        ),
    }
}

fn judge_files((soft, hard): (u64, u64)) -> Finding {
    let found = format!("{soft}, can be raised to {hard}");
    if hard < FILES_WARN {
        let advice = format!("allow {FILES_WARN} (LimitNOFILE= of the unit, or ulimit -Hn)");
        return finding("open files", Verdict::Warn, found, advice);
    }
    finding("open files", Verdict::Ok, found, "")
}

/// A duration for people: its two largest units.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn verdict(facts: Facts, now: SystemTime, life: Life) -> Verdict {
        let findings = judge(&facts, now, life);
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].verdict == Verdict::Ok,
            findings[0].advice.is_empty()
        );
        findings[0].verdict
    }

    #[test]
    fn an_identity_is_judged_by_the_life_it_has_left() {
        let start = SystemTime::UNIX_EPOCH + 1000 * HOUR;
        let at = |now| {
            let svid = SvidFact {
                id: "spiffe://x/y".into(),
                not_before: start,
                not_after: start + 24 * HOUR,
            };
            verdict(
                Facts {
                    svid: Some(Ok(svid)),
                    ..Facts::default()
                },
                now,
                Life::None,
            )
        };
        assert_eq!(at(start + HOUR), Verdict::Ok);
        assert_eq!(at(start + 20 * HOUR), Verdict::Warn);
        assert_eq!(at(start + 24 * HOUR + HOUR), Verdict::Fail);
        assert_eq!(at(start - HOUR), Verdict::Fail);
    }

    #[test]
    fn a_sidecar_that_has_yet_to_join_is_no_failure() {
        let facts = Facts {
            svid: Some(Err("orders/identity.crt: there is none".into())),
            joins_as: Some("spiffe://x/y".into()),
            ..Facts::default()
        };
        assert_eq!(
            verdict(facts, SystemTime::UNIX_EPOCH, Life::None),
            Verdict::Warn
        );
    }

    #[test]
    fn a_skewed_clock_fails_in_both_directions() {
        let now = SystemTime::UNIX_EPOCH + 1000 * HOUR;
        let with = |theirs| {
            let clock = Clock {
                of: "ca".into(),
                theirs,
                ours: now,
            };
            verdict(
                Facts {
                    clocks: vec![clock],
                    ..Facts::default()
                },
                now,
                Life::None,
            )
        };
        assert_eq!(with(Ok(now - Duration::from_secs(1))), Verdict::Ok);
        assert_eq!(with(Ok(now + Duration::from_secs(10))), Verdict::Warn);
        assert_eq!(with(Ok(now + 2 * HOUR)), Verdict::Fail);
        assert_eq!(with(Ok(now - 2 * HOUR)), Verdict::Fail);
        assert_eq!(with(Err("refused".into())), Verdict::Warn);
    }

    #[test]
    fn a_port_in_use_is_right_only_while_the_sidecar_runs_and_listens_there() {
        let with = |state, life, ours| {
            let port = Port {
                setting: "admin",
                address: "127.0.0.1:1".into(),
                state,
                ours,
            };
            verdict(
                Facts {
                    ports: vec![port],
                    ..Facts::default()
                },
                SystemTime::UNIX_EPOCH,
                life,
            )
        };
        let used = || PortState::InUse(Some("nginx (pid 7)".into()));
        assert_eq!(with(PortState::Free, Life::None, false), Verdict::Ok);
        assert_eq!(with(PortState::Free, Life::Waits, false), Verdict::Ok);
        assert_eq!(with(used(), Life::Waits, false), Verdict::Ok);
        assert_eq!(with(used(), Life::Runs, true), Verdict::Ok);
        assert_eq!(with(used(), Life::Runs, false), Verdict::Fail);
        assert_eq!(with(used(), Life::None, false), Verdict::Fail);
        assert_eq!(
            with(PortState::Refused("x".into()), Life::None, false),
            Verdict::Fail
        );
    }

    #[test]
    fn clamped_buffers_and_few_files_are_warnings() {
        let buffers = Buffers {
            wanted: 4 << 20,
            receive: 208 << 10,
            send: 4 << 20,
        };
        let facts = Facts {
            buffers: Some(buffers),
            ..Facts::default()
        };
        assert_eq!(
            verdict(facts, SystemTime::UNIX_EPOCH, Life::None),
            Verdict::Warn
        );
        let facts = Facts {
            files: Some((1024, 4096)),
            ..Facts::default()
        };
        assert_eq!(
            verdict(facts, SystemTime::UNIX_EPOCH, Life::None),
            Verdict::Warn
        );
    }
}
