//! `weft endpoints`: the state of each endpoint as a running sidecar sees it, and why one gets no requests.
//! The data comes from the sidecar's admin endpoint.

use clap::Args;
use serde_json::Value;

use crate::admin_client::get;
use crate::admin_place::SidecarFlags;
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, print_or};
use crate::process;

/// Shows the endpoints that a sidecar may call: in rotation or out, why, by what and until when.
///
/// STATE is in; spared (it said that it is busy, or is new, and gets less than its share); out (it failed and
/// gets no requests until the time in UNTIL); probing (one request tries it); or observed (a policy only
/// observes: it would be out). A destination without endpoints has the state none, and why. Each worker of
/// the sidecar judges for itself.
///
/// Beside an application it also shows the services that it serves, and by their addresses the callers that
/// came to them without mutual TLS.
#[derive(Debug, Args)]
pub struct Endpoints {
    /// Only of this destination, such as orders.shop or orders.shop:80
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
    #[command(flatten)]
    at: SidecarFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs `weft endpoints`.
pub fn run(args: &Endpoints) -> Result<(), Failure> {
    let answer = process::runtime()?.block_on(get(&args.at.to_read()?, "/endpoints"))?;
    let mut shown = answer.json()?;
    if let Some(wanted) = &args.destination {
        let mut all = std::collections::BTreeSet::new();
        let mut found = 0;
        for list in LISTS {
            let Some(rows) = shown[list].as_array_mut() else {
                continue;
            };
            all.extend(rows.iter().map(|row| name_of(row).to_owned()));
            rows.retain(|row| is_of(name_of(row), wanted));
            found += rows.len();
        }
        if found == 0 {
            return Err(Failure::new(Code::Failed, nothing_of(wanted, all)));
        }
    }
    print_or(args.output, &shown, |shown| {
        let mut text = table(shown).to_string();
        for more in [served(shown), plaintext(shown)].into_iter().flatten() {
            text.push_str(&format!("\n{more}"));
        }
        text
    })
}

/// The lists in the sidecar's answer: endpoints, destinations that have none, and services that it serves.
const LISTS: [&str; 3] = ["endpoints", "without_endpoints", "served"];

/// The destination or served service that a row is about.
fn name_of(row: &Value) -> &str {
    let name = row["destination"].as_str().or(row["service"].as_str());
    name.unwrap_or_default()
}

/// The message about a destination that this sidecar does not know.
pub(super) fn nothing_of(wanted: &str, known: impl IntoIterator<Item = String>) -> String {
    let known: Vec<String> = known.into_iter().collect();
    let known = match known.is_empty() {
        true => "none is".to_owned(),
        false => format!("known are: {}", known.join(", ")),
    };
    format!(
        "there is no destination {wanted} that this sidecar may call: it does not exist, not any more, or is not for \
         this identity; {known}"
    )
}

/// Whether a destination, as `orders.shop:80`, is the one that was named, with or without its namespace and
/// port.
pub(super) fn is_of(destination: &str, wanted: &str) -> bool {
    let (name, port) = destination.split_once(':').unwrap_or((destination, ""));
    let service = name.split('.').next().unwrap_or_default();
    let (wanted_name, wanted_port) = wanted.split_once(':').unwrap_or((wanted, port));
    wanted_port == port && (wanted_name == name || wanted_name == service)
}

fn table(shown: &Value) -> Table {
    let mut table = Table::new(&[
        "DESTINATION",
        "WORKLOAD",
        "ADDRESS",
        "WEIGHT",
        "METADATA",
        "WORKER",
        "STATE",
        "WHY",
        "UNTIL",
        "IN FLIGHT",
        "LATENCY MS",
    ]);
    for row in shown["endpoints"].as_array().into_iter().flatten() {
        table.row([
            plain(&row["destination"]),
            plain(&row["workload"]),
            plain(&row["address"]),
            plain(&row["weight"]),
            labels(&row["metadata"]),
            plain(&row["worker"]),
            plain(&row["state"]),
            plain(&row["out"]["cause"]),
            plain(&row["out"]["until"]),
            plain(&row["in_flight"]),
            plain(&row["latency_ms"]),
        ]);
    }
    for row in shown["without_endpoints"].as_array().into_iter().flatten() {
        let mut cells = vec!["-".to_owned(); 11];
        cells[0] = plain(&row["destination"]);
        cells[6] = "none".to_owned();
        cells[7] = plain(&row["why"]);
        table.row(cells);
    }
    table
}

/// The services that this sidecar serves, if it serves any.
fn served(shown: &Value) -> Option<Table> {
    let rows = shown["served"].as_array().filter(|rows| !rows.is_empty())?;
    let mut table = Table::new(&[
        "SERVED",
        "HEALTH",
        "CHECK",
        "WHY",
        "IN FLIGHT",
        "LIMIT",
        "WAITING",
        "ADAPTIVE",
        "ADAPTIVE LIMIT",
        "SINCE",
    ]);
    for row in rows {
        let adaptive = &row["adaptive"];
        let state = match (adaptive["acting"].as_bool(), adaptive["mode"].as_str()) {
            (Some(true), Some("Observe")) => "would act",
            (Some(true), _) => "acts",
            (_, Some("Observe")) => "observes",
            (_, _) => "calm",
        };
        let health = &row["health"];
        table.row([
            plain(&row["service"]),
            plain(&health["state"]),
            plain(&health["check"]),
            plain(&health["failed"]),
            plain(&row["in_flight"]),
            plain(&row["limit"]),
            plain(&row["waiting"]),
            state.to_owned(),
            plain(&adaptive["limit"]),
            plain(&adaptive["since"]),
        ]);
    }
    Some(table)
}

/// Who comes without mutual TLS to the services that this sidecar serves, if it has listeners for that. A
/// service to which none came has a row of its own: that is what an operator looks for.
fn plaintext(shown: &Value) -> Option<Table> {
    let rows = shown["served"].as_array().into_iter().flatten();
    let mut rows = rows.filter(|row| row["plaintext"].is_object()).peekable();
    rows.peek()?;
    let mut table = Table::new(&[
        "WITHOUT MUTUAL TLS",
        "MUTUAL TLS",
        "LISTENS AT",
        "CALLER",
        "CONNECTIONS",
        "REFUSED",
        "CALLS",
        "LAST",
    ]);
    for row in rows {
        let plaintext = &row["plaintext"];
        let of_service = || {
            vec![
                plain(&row["service"]),
                plain(&plaintext["mutual_tls"]),
                plain(&plaintext["listen"]),
            ]
        };
        let callers = plaintext["callers"].as_array();
        let callers = callers.filter(|all| !all.is_empty());
        for caller in callers.into_iter().flatten() {
            let mut cells = of_service();
            for name in ["address", "connections", "refused", "calls", "last"] {
                cells.push(plain(&caller[name]));
            }
            table.row(cells);
        }
        let forgotten = plaintext["forgotten"].as_u64().unwrap_or_default();
        if callers.is_none() || forgotten > 0 {
            let mut cells = of_service();
            cells.push(match forgotten {
                0 => "none came".to_owned(),
                more => format!("and {more} before them"),
            });
            cells.resize(8, "-".to_owned());
            table.row(cells);
        }
    }
    Some(table)
}

/// `version=v2,rack=7`.
fn labels(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    let pairs: Vec<String> = pairs
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    match pairs.is_empty() {
        true => "-".to_owned(),
        false => pairs.join(","),
    }
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            other.to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_named_with_or_without_its_namespace_and_port() {
        let destination = "orders.shop:80";
        assert!(is_of(destination, "orders.shop") && is_of(destination, "orders.shop:80"));
        assert!(is_of(destination, "orders") && is_of(destination, "orders:80"));
        assert!(!is_of(destination, "order") && !is_of(destination, "orders.shop:81"));
    }
}
