//! The reports of a running sidecar and of the mesh about it, and their meaning. [`ask`] and [`ask_mesh`]
//! gather; the rest judges, and is pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::judge::{Finding, SvidFact, Verdict, finding, judge_svid};
use crate::admin_client::{Target, get};
use crate::context::ContextFlags;
use crate::failure::Failure;

/// How long the mesh is waited for: a host may have a login but no connection to the config service.
const MESH_PATIENCE: Duration = Duration::from_secs(5);

/// The sidecar's own report.
#[derive(Debug, Default)]
pub struct Running {
    /// The answer of `/ready`, and whether it reports readiness.
    pub ready: (bool, String),
    /// `/certs` and `/config_dump`.
    pub certs: Value,
    pub dump: Value,
    /// The mesh's report, if this host has an operator's login.
    pub mesh: Option<Mesh>,
}

/// The config service's report on the sidecars of one identity.
#[derive(Debug, Default)]
pub struct Mesh {
    /// The newest revision.
    pub revision: u64,
    /// Registrations that do not hold, in words for operators.
    pub problems: BTreeMap<String, String>,
}

/// Asks a sidecar. A sidecar that waits for its identity answers only `/ready`.
pub async fn ask(at: &[Target]) -> Result<Running, Failure> {
    let ready = get(at, "/ready").await?;
    let said = String::from_utf8_lossy(&ready.body).trim().to_owned();
    let mut running = Running {
        ready: (ready.status.is_success(), said),
        ..Running::default()
    };
    let certs = get(at, "/certs").await?;
    if certs.status == http::StatusCode::SERVICE_UNAVAILABLE {
        return Ok(running);
    }
    running.certs = certs.json()?;
    running.dump = get(at, "/config_dump").await?.json()?;
    running.mesh = ask_mesh(running.identity()).await;
    Ok(running)
}

/// Asks the config service, as the operator who logged in on this host, if one did.
async fn ask_mesh(identity: &str) -> Option<Mesh> {
    let asked = async {
        let mut operator = ContextFlags::default().connect().await.ok()?;
        let revisions = operator.revisions().await.ok()?;
        let sidecars = operator.sidecars().await.ok()?;
        let own = sidecars
            .into_iter()
            .filter(|one| one.identity.as_str() == identity);
        Some(Mesh {
            revision: revisions.iter().map(|one| one.number).max().unwrap_or(0),
            problems: own.flat_map(|one| one.problems).collect(),
        })
    };
    tokio::time::timeout(MESH_PATIENCE, asked).await.ok()?
}

impl Running {
    /// Its identity.
    pub fn identity(&self) -> &str {
        self.certs["identity"].as_str().unwrap_or_default()
    }

    /// Every address that it listens on. If its settings name others, they were changed since its start.
    pub fn listens_on(&self, address: &str) -> bool {
        let listeners = rows(&self.dump["listeners"]).map(|row| text(&row["listen"]));
        let served = rows(&self.dump["registrations"]);
        let plaintext = served.map(|row| text(&row["plaintext"]["listen"]));
        self.dump["listen"] == address || listeners.chain(plaintext).any(|one| one == address)
    }

    /// All findings.
    pub fn judge(&self, now: SystemTime) -> Vec<Finding> {
        let mut findings = vec![self.judge_ready()];
        if self.certs.is_null() {
            return findings;
        }
        findings.push(judge_svid(&self.svid(), now));
        findings.push(self.judge_control_plane());
        findings.push(self.judge_table());
        let registrations = rows(&self.dump["registrations"]);
        findings.extend(registrations.map(|row| self.judge_registration(row)));
        findings.extend(rows(&self.dump["registrations"]).filter_map(judge_plaintext));
        findings.extend(rows(&self.dump["listeners"]).map(judge_listener));
        findings
    }

    fn judge_ready(&self) -> Finding {
        let (is_ready, said) = &self.ready;
        match (is_ready, said.as_str()) {
            (true, "ready") => finding("sidecar", Verdict::Ok, "ready", ""),
            (true, _) => finding("sidecar", Verdict::Warn, said, "see docs/operate.md"),
            (false, _) => {
                let advice = "no traffic should be sent to it; the lines below and its log say why";
                finding("sidecar", Verdict::Fail, said, advice)
            }
        }
    }

    fn svid(&self) -> Result<SvidFact, String> {
        let time = |name: &str| -> Result<SystemTime, String> {
            let text = text(&self.certs[name]);
            let time: Result<jiff::Timestamp, _> = text.parse();
            time.map(SystemTime::from)
                .map_err(|error| format!("the sidecar's {name} is no time: {error}"))
        };
        Ok(SvidFact {
            id: self.identity().to_owned(),
            not_before: time("not_before")?,
            not_after: time("not_after")?,
        })
    }

    fn judge_control_plane(&self) -> Finding {
        let status = &self.dump["control_plane"];
        if status["connected"] == true {
            let heard = status["last_heard"].as_str().unwrap_or("not yet");
            let found = format!("connected, last heard {heard}");
            return finding("config service", Verdict::Ok, found, "");
        }
        let error = status["last_error"].as_str().unwrap_or("not reached yet");
        let advice = "the sidecar goes on with its last good table; changes and endpoints do not reach it: start the \
                      config service, or correct config.addresses";
        let found = format!("not connected: {error}");
        finding("config service", Verdict::Warn, found, advice)
    }

    fn judge_table(&self) -> Finding {
        let status = &self.dump["control_plane"];
        let Some(revision) = self.dump["table"]["revision"]["number"].as_u64() else {
            let advice = "it denies all calls until it has one: see the line on the config service";
            return finding("table", Verdict::Fail, "none yet", advice);
        };
        let found = format!("revision {revision}");
        if let Some(refusal) = status["refusal"].as_str() {
            let offered = &status["offered"]["number"];
            let found = format!("{found}; refuses revision {offered}: {refusal}");
            let advice = "run the same version of weft everywhere, or roll the revision back (weft rollback)";
            return finding("table", Verdict::Fail, found, advice);
        }
        if status["from_disk"] == true {
            let advice = "it is as old as the file; see the line on the config service";
            return finding("table", Verdict::Warn, found + ", from disk", advice);
        }
        match &self.mesh {
            Some(mesh) if mesh.revision > revision => {
                let found = format!("{found}; the mesh is at {}", mesh.revision);
                let advice = "wait a moment and check again; weft get sidecars shows who is behind";
                finding("table", Verdict::Warn, found, advice)
            }
            Some(_) | None => finding("table", Verdict::Ok, found, ""),
        }
    }

    fn judge_registration(&self, row: &Value) -> Finding {
        let service = text(&row["service"]);
        let check = format!("registration {service}");
        let told = self
            .mesh
            .as_ref()
            .and_then(|mesh| mesh.problems.get(service));
        let problem = told.map(String::as_str).or_else(|| row["problem"].as_str());
        match problem {
            Some(problem) => {
                let advice = "callers do not find it. Apply the Service with this port, and name this identity in its \
                              spec.identities if it is not that of the Service (weft get services -o yaml)";
                finding(check, Verdict::Fail, problem, advice)
            }
            None if self.dump["control_plane"]["connected"] == true => {
                finding(check, Verdict::Ok, "registered", "")
            }
            None => {
                let advice =
                    "callers lose it when its lease ends: see the line on the config service";
                finding(check, Verdict::Warn, "not confirmed", advice)
            }
        }
    }
}

/// The listener of a service for callers without mutual TLS, if it has one.
fn judge_plaintext(row: &Value) -> Option<Finding> {
    let listen = row["plaintext"]["listen"].as_str()?;
    let check = format!("plaintext {listen}");
    Some(match row["plaintext"]["problem"].as_str() {
        None => {
            let found = format!("takes callers of {}", text(&row["service"]));
            finding(check, Verdict::Ok, found, "")
        }
        Some(problem) => {
            let advice = "every connection there is refused. Write mutualTls: Permissive in the Service, or take \
                          plaintext_listen out";
            finding(check, Verdict::Warn, problem, advice)
        }
    })
}

fn judge_listener(row: &Value) -> Finding {
    let check = format!("outbound {}", text(&row["listen"]));
    let leads_to = text(&row["leads_to"]);
    let why = text(&row["why"]);
    match text(&row["state"]) {
        "by_host" => finding(check, Verdict::Ok, "routes by Host", ""),
        "ok" => finding(check, Verdict::Ok, format!("leads to {leads_to}"), ""),
        "no_endpoint" => {
            let found = format!("{leads_to} has no endpoint: {why}");
            let advice =
                "calls get 503 until a workload serves it: weft get sidecars shows who does";
            finding(check, Verdict::Warn, found, advice)
        }
        "forbidden" => {
            let advice = "calls get 403 (a TCP client is reset). Name this identity in an AuthorizationPolicy that allows \
                          the call, or take the listener out";
            finding(check, Verdict::Fail, why, advice)
        }
        "unknown" => {
            let advice = "calls get 503. Correct outbound.listeners, or apply the Service; one of another namespace that \
                          this identity may not call looks the same from here";
            finding(check, Verdict::Fail, why, advice)
        }
        _ => finding(check, Verdict::Warn, why, "see the line on the table"),
    }
}

/// A sidecar that has the admin address and is not that of the settings.
pub fn judge_stranger(running: &Running, own: &str, admin: &str) -> Option<Finding> {
    let other = running.identity();
    if other.is_empty() || own.is_empty() || other == own {
        return None;
    }
    let found = format!("held by the sidecar of {other}, not of {own}");
    let advice = "write another admin.listen for one of the two";
    Some(finding(
        format!("admin {admin}"),
        Verdict::Fail,
        found,
        advice,
    ))
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn running() -> Running {
        Running {
            ready: (true, "ready".into()),
            certs: json!({
                "identity": "spiffe://demo.test/ns/shop/sa/orders",
                "not_before": "2026-11-29T12:00:00Z",
                "not_after": "2026-11-30T12:00:00Z",
            }),
            dump: json!({
                "listen": "10.0.0.1:6143",
                "control_plane": { "connected": true, "last_heard": "2026-11-29T12:30:00Z" },
                "table": { "revision": { "number": 7 } },
                "registrations": [{ "service": "orders.shop:80", "problem": null }],
                "listeners": [
                    { "listen": "127.0.0.1:5001", "leads_to": "a.shop:80", "state": "ok", "why": null },
                ],
            }),
            mesh: None,
        }
    }

    fn now() -> SystemTime {
        "2026-11-29T13:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into()
    }

    #[track_caller]
    fn expect(running: &Running, check: &str, verdict: Verdict, words: &str) {
        let findings = running.judge(now());
        let found = findings.iter().find(|one| one.check == check).unwrap();
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert!(found.found.contains(words), "{found:?}");
        assert_eq!(found.advice.is_empty(), verdict == Verdict::Ok, "{found:?}");
    }

    #[test]
    fn a_sidecar_that_is_well_has_nothing_to_be_done_about() {
        let findings = running().judge(now());
        assert!(
            findings.iter().all(|one| one.verdict == Verdict::Ok),
            "{findings:?}"
        );
        assert_eq!(findings.len(), 6);
        assert!(running().listens_on("127.0.0.1:5001") && running().listens_on("10.0.0.1:6143"));
        assert!(!running().listens_on("127.0.0.1:5002"));
    }

    #[test]
    fn a_listener_without_mutual_tls_whose_service_takes_no_such_callers_is_told() {
        let mut sidecar = running();
        let listen = "127.0.0.1:5003";
        sidecar.dump["registrations"][0]["plaintext"] =
            json!({ "listen": listen, "problem": null });
        let check = format!("plaintext {listen}");
        expect(&sidecar, &check, Verdict::Ok, "callers of orders.shop:80");
        assert!(sidecar.listens_on(listen));
        sidecar.dump["registrations"][0]["plaintext"]["problem"] = "mutualTls: Strict".into();
        expect(&sidecar, &check, Verdict::Warn, "Strict");
        // What an older sidecar says.
        sidecar.dump["registrations"][0]["plaintext"] = Value::Null;
        assert_eq!(sidecar.judge(now()).len(), 6);
    }

    #[test]
    fn settings_that_the_mesh_does_not_meet_fail() {
        let mut sidecar = running();
        sidecar.dump["registrations"][0]["problem"] = "waits: no Service".into();
        expect(
            &sidecar,
            "registration orders.shop:80",
            Verdict::Fail,
            "waits",
        );
        // The report of the mesh is more exact.
        let problems = [("orders.shop:80".to_owned(), "only x may".to_owned())].into();
        sidecar.mesh = Some(Mesh {
            revision: 7,
            problems,
        });
        expect(
            &sidecar,
            "registration orders.shop:80",
            Verdict::Fail,
            "only x may",
        );
        for (state, verdict) in [
            ("forbidden", Verdict::Fail),
            ("unknown", Verdict::Fail),
            ("no_endpoint", Verdict::Warn),
            ("not_ready", Verdict::Warn),
            ("what a later version says", Verdict::Warn),
        ] {
            sidecar.dump["listeners"][0]["state"] = state.into();
            sidecar.dump["listeners"][0]["why"] = "because".into();
            expect(&sidecar, "outbound 127.0.0.1:5001", verdict, "because");
        }
    }

    #[test]
    fn its_table_and_its_config_service_are_judged() {
        let mut sidecar = running();
        sidecar.mesh = Some(Mesh {
            revision: 9,
            ..Mesh::default()
        });
        expect(&sidecar, "table", Verdict::Warn, "the mesh is at 9");
        sidecar.dump["control_plane"] =
            json!({ "connected": false, "from_disk": true, "last_error": "refused" });
        expect(&sidecar, "table", Verdict::Warn, "from disk");
        expect(&sidecar, "config service", Verdict::Warn, "refused");
        expect(
            &sidecar,
            "registration orders.shop:80",
            Verdict::Warn,
            "not confirmed",
        );
        sidecar.dump["control_plane"]["refusal"] = "unknown field".into();
        expect(&sidecar, "table", Verdict::Fail, "unknown field");
        sidecar.dump["table"] = Value::Null;
        expect(&sidecar, "table", Verdict::Fail, "none");
        sidecar.ready = (false, "not ready: draining".into());
        expect(&sidecar, "sidecar", Verdict::Fail, "draining");
        sidecar.certs = Value::Null;
        assert_eq!(sidecar.judge(now()).len(), 1);
    }

    #[test]
    fn another_sidecar_at_the_admin_address_is_named() {
        let own = "spiffe://demo.test/ns/shop/sa/carts";
        let found = judge_stranger(&running(), own, "127.0.0.1:6191").unwrap();
        assert!(found.found.contains("sa/orders"), "{found:?}");
        assert_eq!(judge_stranger(&running(), running().identity(), "a"), None);
    }
}
