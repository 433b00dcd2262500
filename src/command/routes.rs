//! `weft routes`: the rules of a service in the order in which a running sidecar tries them, with what each
//! does and what it got in the last minute. The data comes from the sidecar's admin endpoint.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::endpoints::{is_of, nothing_of, plain};
use crate::admin_client::get;
use crate::admin_place::SidecarFlags;
use crate::failure::{Code, Failure};
use crate::output::{Format, Table, print_or};
use crate::process;

/// Shows the rules of a Service in the order of matching, and what each got in the last minute.
///
/// The first rule whose TAKES holds takes the request; a request that none takes gets 404. GOES TO has the
/// backends with their shares, and why one gets nothing: BackendNotFound, no endpoint, or another Service
/// that takes over. DOES has the filters, and the session that comes before the shares. A rule with several
/// conditions has a row for each, as others may come between; the counts are of the rule as a whole, over all
/// Services that its route is attached to, and stand in its first row. P50 and P99 are estimates from the
/// buckets of weft_request_duration_seconds.
///
/// It asks one sidecar: others may have more or fewer requests, and routes of a namespace for its own
/// callers. `weft explain` tells which rule takes a certain request.
#[derive(Debug, Args)]
#[command(
    after_help = "weft routes orders --state-dir /var/lib/weft      the rules of orders, all ports\n\
                  weft routes orders.shop:80 --admin 127.0.0.1:6191  of one port, by the admin endpoint\n\
                  weft routes -o json | jq '.ports[].rules[] | select(.last_minute.failures > 0)'"
)]
pub struct Routes {
    /// Only of this Service, such as orders.shop or orders.shop:80
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    at: SidecarFlags,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Runs `weft routes`.
pub fn run(args: &Routes) -> Result<(), Failure> {
    let answer = process::runtime()?.block_on(get(&args.at.to_read()?, "/routes"))?;
    let mut shown = answer.json()?;
    if let Some(wanted) = &args.service
        && let Some(ports) = shown["ports"].as_array_mut()
    {
        let known: BTreeSet<String> = ports.iter().map(|port| plain(&port["port"])).collect();
        ports.retain(|port| is_of(port["port"].as_str().unwrap_or_default(), wanted));
        if ports.is_empty() {
            return Err(Failure::new(Code::Failed, nothing_of(wanted, known)));
        }
    }
    print_or(args.output, &shown, text)
}

fn text(shown: &Value) -> String {
    let mut text = String::new();
    for port in shown["ports"].as_array().into_iter().flatten() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} ({})",
            plain(&port["port"]),
            plain(&port["protocol"])
        );
        let _ = writeln!(text, "{}", table(port));
    }
    let _ = writeln!(
        text,
        "Counts are of the last {} seconds.",
        plain(&shown["seconds"])
    );
    text
}

fn table(port: &Value) -> Table {
    let mut table = Table::new(&[
        "ORDER", "RULE", "TAKES", "DOES", "GOES TO", "REQUESTS", "FAILED", "P50 MS", "P99 MS",
    ]);
    let mut before = BTreeSet::new();
    for rule in port["rules"].as_array().into_iter().flatten() {
        let is_first = before.insert(plain(&rule["rule"]));
        let counted = |name: &str| match is_first {
            true => plain(&rule["last_minute"][name]),
            false => String::new(),
        };
        let backends = rule["backends"].as_array().into_iter().flatten();
        let backends: Vec<String> = backends.map(backend).collect();
        table.row([
            plain(&rule["place"]),
            plain(&rule["rule"]),
            plain(&rule["takes"]),
            lines(&rule["does"]),
            match backends.is_empty() {
                true => "no backend".to_owned(),
                false => backends.join(", "),
            },
            counted("requests"),
            counted("failures"),
            counted("p50_ms"),
            counted("p99_ms"),
        ]);
    }
    table
}

fn backend(shown: &Value) -> String {
    let mut text = format!(
        "{} {} %",
        plain(&shown["backend"]),
        plain(&shown["percent"])
    );
    for more in [plain(&shown["condition"]), lines(&shown["does"])] {
        if more != "-" {
            let _ = write!(text, " ({more})");
        }
    }
    text
}

fn lines(shown: &Value) -> String {
    let lines = shown.as_array().into_iter().flatten();
    let lines: Vec<String> = lines.map(plain).collect();
    match lines.is_empty() {
        true => "-".to_owned(),
        false => lines.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(place: u32, takes: &str, requests: u32) -> Value {
        json!({
            "place": place, "rule": "HTTPRoute/shop/r/0", "takes": takes, "does": [],
            "backends": [
                { "backend": "v1.shop:80", "percent": 90.0, "condition": null, "does": [] },
                { "backend": "v2.shop:80", "percent": 10.0, "condition": "BackendNotFound: answers 500", "does": [] },
            ],
            "last_minute": { "requests": requests, "failures": 1, "p50_ms": 2.5, "p99_ms": null },
        })
    }

    #[test]
    fn rules_stand_in_order_and_the_counts_of_a_rule_once() {
        let shown = json!({ "seconds": 57, "ports": [
            { "port": "echo.shop:80", "protocol": "http", "rules": [rule(1, "path /a", 42), rule(2, "path /b", 42)] },
        ] });
        let text = text(&shown);
        assert!(text.starts_with("echo.shop:80 (http)\n"), "{text}");
        assert_eq!(text.matches("42").count(), 1, "{text}");
        assert!(
            text.contains("v2.shop:80 10.0 % (BackendNotFound: answers 500)"),
            "{text}"
        );
        assert!(
            text.ends_with("Counts are of the last 57 seconds.\n"),
            "{text}"
        );
        assert!(text.find("path /a") < text.find("path /b"));
    }
}
