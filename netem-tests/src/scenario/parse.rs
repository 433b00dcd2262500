//! Reads a text into a [`Scenario`], strictly: every mistake is one line with file, line and what to write.
//! Pure.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use weft_config::settings::yaml_message;
use weft_config::yaml::{self, Node};

use super::Scenario;
use super::check::{Problem, check};
use super::raw::RawScenario;
use super::traces::ReadFile;

/// `transport.congestion=bbr`: a field of a scenario and another value for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Path of the field, as `topology.links.wan.set.loss`.
    pub path: String,
    /// The value, as YAML.
    pub value: String,
}

/// Why a scenario cannot be used: its mistakes, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// Each with file and line.
    pub lines: Vec<String>,
}

impl std::error::Error for ScenarioError {}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((path, value)) if !path.is_empty() && !value.is_empty() => Ok(Self {
                path: path.to_owned(),
                value: value.to_owned(),
            }),
            Some(_) | None => Err(format!(
                "`{text}`: write FIELD=VALUE, as transport.congestion=bbr or topology.links.wan.set.loss=1%"
            )),
        }
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path, self.value)
    }
}

/// Reads the scenario `name` from `text`, which came from `origin` (a file's path, for messages),
/// with some fields replaced; `files` reads those that it names.
///
/// # Errors
/// All mistakes that were found, each with its line.
pub fn parse(
    name: &str,
    origin: &str,
    text: &str,
    overrides: &[Override],
    files: ReadFile<'_>,
) -> Result<Scenario, ScenarioError> {
    let one = |line: String| ScenarioError { lines: vec![line] };
    // The tree knows where each field is; the typed reading knows which fields exist.
    let root = match yaml::documents(text).map(|mut documents| (documents.len(), documents.pop())) {
        Ok((1, Some(root))) => root,
        Ok(_) => {
            return Err(one(format!(
                "{origin}: a scenario is one YAML document, which begins with `description:`"
            )));
        }
        Err(error) => {
            let line = error.position.map_or(1, |at| at.line);
            return Err(one(format!("{origin}:{line}: {}", error.message)));
        }
    };
    let options = serde_saphyr::options! { with_snippet: false };
    let mut raw: RawScenario =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line());
            one(format!("{origin}:{line}: {}", yaml_message(&error)))
        })?;
    for change in overrides {
        raw = replace(raw, change).map_err(|message| one(format!("{change}: {message}")))?;
    }
    check(name, raw, files).map_err(|problems| ScenarioError {
        lines: problems
            .iter()
            .map(|problem| line(origin, &root, problem))
            .collect(),
    })
}

/// `FILE:LINE: FIELD: what is wrong`.
pub(super) fn line(origin: &str, root: &Node, problem: &Problem) -> String {
    let Problem { field, message } = problem;
    let at = root.nearest(field).position.line;
    format!("{origin}:{at}: {field}: {message}")
}

/// Puts another value at a path. The path must lead through existing fields; only its last step may be new.
fn replace(raw: RawScenario, change: &Override) -> Result<RawScenario, String> {
    let mut tree = serde_json::to_value(&raw).map_err(|error| error.to_string())?;
    let value: Value =
        serde_saphyr::from_str(&change.value).map_err(|error| yaml_message(&error))?;
    let mut steps = change.path.split('.').peekable();
    let mut place = &mut tree;
    while let Some(step) = steps.next() {
        let last = steps.peek().is_none();
        place = match place {
            Value::Object(map) => {
                if last {
                    map.entry(step).or_insert(Value::Null)
                } else {
                    // Blocks that the file may leave out.
                    if matches!(step, "set" | "from") {
                        map.entry(step)
                            .or_insert_with(|| Value::Object(serde_json::Map::new()));
                    }
                    map.get_mut(step)
                        .ok_or_else(|| format!("there is no `{step}` in the scenario"))?
                }
            }
            Value::Array(items) => step
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get_mut(index))
                .ok_or_else(|| format!("there is no item `{step}`: they are counted from 0"))?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(format!("there is nothing below `{step}`"));
            }
        };
    }
    *place = value;
    serde_json::from_value(tree).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Action, Pace, Role};
    use super::*;

    const GOOD: &str = "description: Two hosts.
duration: 5s
control: a
topology:
  hosts: [a, b]
  links:
    wan: { between: [a, b], set: { delay: 10ms } }
services:
  orders: { host: b }
callers:
  shop: { host: a, calls: [orders] }
loads:
  requests: { from: shop, to: orders, rate: 100 }
timeline:
  - { at: 2s, link: wan, blackout: 1s }
  - { at: 1s, link: wan, from: a, set: { loss: 5%, delay: 20ms } }
  - { at: 4s, kill: orders.app }
  - { at: 4s, step_clock: ca, by: -1h }
assert:
  - requests failed == 0
  - shop reconnects == 0
";

    fn parse(
        name: &str,
        origin: &str,
        text: &str,
        overrides: &[Override],
    ) -> Result<Scenario, ScenarioError> {
        super::parse(name, origin, text, overrides, &|name| match name {
            "good.csv" => Ok("0,8mbit\n3,1mbit\n4.5,end\n".to_owned()),
            "bad.csv" => Ok("0,8mbit\n3,1\n".to_owned()),
            _ => Err(format!("{name}: no such file")),
        })
    }

    fn read(text: &str) -> Scenario {
        parse("good", "good.yaml", text, &[]).unwrap()
    }

    fn refusal(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        let error = parse("good", "good.yaml", &GOOD.replace(from, to), &[]);
        error.map(|_| "accepted").unwrap_err().to_string()
    }

    #[test]
    fn a_scenario_is_read_whole_with_its_timeline_in_order() {
        let scenario = read(GOOD);
        let times: Vec<u64> = scenario
            .timeline
            .iter()
            .map(|event| event.at.as_secs())
            .collect();
        assert_eq!(times, [1, 2, 3, 4, 4]);
        let last = scenario.timeline[4].action.to_string();
        assert_eq!(last, "clock of ca jumps by -1h");
        assert_eq!(scenario.loads[0].pace, Pace::Open(100.0));
        let processes: Vec<(String, Role)> = scenario.processes().into_iter().collect();
        let names: Vec<&str> = processes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ca", "config", "orders", "orders.app", "shop"]);
    }

    #[test]
    fn the_control_plane_may_be_judged_by_its_metrics() {
        let claim = "ca weft_ca_signed_total <= 3";
        let scenario = read(&GOOD.replace("shop reconnects == 0", claim));
        assert_eq!(scenario.assertions[1].line, claim);
    }

    #[test]
    fn a_change_of_a_link_keeps_what_it_does_not_name() {
        let scenario = read(GOOD);
        let Action::Link {
            impairments, what, ..
        } = &scenario.timeline[2].action
        else {
            panic!("{:?}", scenario.timeline)
        };
        assert_eq!(what, "heals");
        let delays = impairments.each_ref().map(|impairment| impairment.delay);
        assert_eq!(
            delays,
            [Duration::from_millis(20), Duration::from_millis(10)]
        );
        assert!(impairments.iter().all(|impairment| !impairment.blackout));
    }

    #[test]
    fn each_mistake_has_its_line_and_says_what_to_write() {
        for (from, to, expected) in [
            (
                "duration:",
                "duraton:",
                "good.yaml:2: unknown key `duraton`: did you mean `duration`?",
            ),
            (
                "duration: 5s",
                "duration: 5",
                "good.yaml:2: \"5\" has no unit",
            ),
            (
                "[a, b], set",
                "[a, c], set",
                "good.yaml:7: topology.links.wan.between[1]: no host or router `c`: write one of a, b",
            ),
            (
                "delay: 10ms",
                "dely: 10ms",
                "good.yaml:7: topology.links.wan.set.dely: there is no setting `dely`",
            ),
            (
                "delay: 10ms",
                "rate: trace file bad.csv",
                "good.yaml:7: topology.links.wan.set.rate: bad.csv:2: `1`: write a rate, as `3mbit`",
            ),
            (
                "loss: 5%",
                "rate: trace file lost.csv",
                "good.yaml:16: timeline[1].set.rate: lost.csv: no such file",
            ),
            (
                "from: shop",
                "from: shpo",
                "good.yaml:13: loads.requests.from: no caller `shpo`: did you mean `shop`?",
            ),
            (
                "to: orders, rate: 100",
                "to: orders",
                "good.yaml:13: loads.requests: write either `rate: 200`",
            ),
            (
                "blackout: 1s",
                "from: a",
                "good.yaml:15: timeline[0].link: say what happens to it",
            ),
            (
                "blackout: 1s",
                "blackout: 213503982334d",
                "good.yaml:15: timeline[0].blackout: no scenario takes that long",
            ),
            (
                "rate: 100",
                "rate: 100, deadline: 213503982334d",
                "good.yaml:13: loads.requests.deadline: write a duration of at most 43200s",
            ),
            (
                "kill: orders.app",
                "kill: order.app",
                "good.yaml:17: timeline[2].kill: no process `order.app`: did you mean `orders.app`?",
            ),
            (
                "at: 4s, kill",
                "kill",
                "good.yaml:17: timeline[2].at: say when",
            ),
            (
                "by: -1h",
                "by: 1h",
                "good.yaml:18: `1h`: write how far the clock jumps with its sign",
            ),
            (
                ", by: -1h",
                "",
                "good.yaml:18: timeline[3].step_clock: say how far it jumps",
            ),
            (
                "step_clock: ca",
                "step_clock: cb",
                "good.yaml:18: timeline[3].step_clock: no process `cb`: did you mean `ca`?",
            ),
            (
                "step_clock: ca",
                "kill: ca",
                "good.yaml:18: timeline[3].by: belongs to a clock",
            ),
            (
                "requests failed == 0",
                "request failed == 0",
                "good.yaml:20: assert[0]: no load `request`: did you mean `requests`?",
            ),
            (
                "shop reconnects",
                "requests reconnects",
                "good.yaml:21: assert[1]: no sidecar `requests`",
            ),
            (
                "shop reconnects",
                "ca reconnects",
                "good.yaml:21: assert[1]: no sidecar `ca`",
            ),
            (
                "shop reconnects",
                "orders.app weft_requests_total",
                "good.yaml:21: assert[1]: no process with metrics `orders.app`",
            ),
            (
                "  shop: {",
                "  orders: {",
                "`orders` names something else already",
            ),
        ] {
            let refused = refusal(from, to);
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn a_rate_may_stand_in_a_file_and_is_the_same_as_one_that_is_written_out() {
        let with = |rate: &str| {
            let text = GOOD.replace("delay: 10ms }", &format!("delay: 10ms, rate: {rate} }}"));
            read(&text.replace("loss: 5%", &format!("rate: {rate}")))
        };
        let (file, inline) = (
            with("trace file good.csv"),
            with("trace 8mbit 3s 1mbit 1500ms"),
        );
        assert_eq!(file.topology, inline.topology);
        let rate = |scenario: &Scenario| {
            let Action::Link {
                impairments, what, ..
            } = &scenario.timeline[0].action
            else {
                panic!("{:?}", scenario.timeline)
            };
            (impairments[0].rate.clone(), what.clone())
        };
        assert_eq!(rate(&file).0, rate(&inline).0);
        assert!(rate(&file).1.contains("rate=trace file good.csv"));
    }

    #[test]
    fn several_mistakes_are_reported_at_once() {
        let refused = refusal("rate: 100", "rate: 0");
        let line = "good.yaml:13: loads.requests.rate: write requests per second";
        assert!(refused.contains(line), "{refused}");
        let text = GOOD
            .replace("control: a", "control: x")
            .replace("at: 4s, kill", "kill");
        let error = parse("good", "good.yaml", &text, &[]).unwrap_err();
        assert_eq!(error.lines.len(), 2, "{error}");
    }

    #[test]
    fn a_field_may_be_replaced_and_a_path_that_leads_nowhere_is_refused() {
        let with = |text: &str| parse("good", "good.yaml", GOOD, &[text.parse().unwrap()]);
        let scenario = with("topology.links.wan.set.loss=3%").unwrap();
        assert_ne!(scenario.topology, read(GOOD).topology);
        assert_eq!(
            with("duration=9s").unwrap().duration,
            Duration::from_secs(9)
        );
        assert!(with("transport.congestion=bbr").is_ok());
        let refused = with("topology.links.lan.set.loss=3%")
            .unwrap_err()
            .to_string();
        assert!(refused.contains("there is no `lan`"), "{refused}");
        let refused = with("transport.congestion=vegas").unwrap_err().to_string();
        assert!(refused.contains("vegas"), "{refused}");
        assert!("duration".parse::<Override>().is_err());
    }
}
