//! The application of the conformance cases: it says what it saw, waits where it is asked to, sets the
//! response headers that a request lists, and fails as often as a request of the retry cases asks for.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::harness::{Origin, Seen, pause};

/// Response headers that the application sets, as `Name: value` with `;` between them.
pub(super) const ANSWER_WITH: &str = "x-answer-with";

/// Begins the application of the workload `name`.
pub(super) fn start(address: Ipv4Addr, name: &'static str) -> Origin {
    let tries: Mutex<HashMap<String, u32>> = Mutex::default();
    Origin::http(address, move |request, out| {
        let query = Query::of(request);
        if let Some(key) = query.get("uuid") {
            let most = query.number("succeedAfter");
            let made = {
                let mut tries = tries.lock().unwrap();
                let made = tries.entry(key.to_owned()).or_default();
                *made += 1;
                *made
            };
            if made <= most {
                wait(query.number("delayRetry"));
                return match query.number("responseCode") {
                    // A connection that ends without an answer.
                    0 => Ok(false),
                    code => answer(out, code, &[], "failed as asked"),
                };
            }
        }
        wait(query.number("delay"));
        let mut extra = Vec::new();
        for line in request.header(ANSWER_WITH).unwrap_or_default().split(';') {
            if let Some((name, value)) = line.split_once(':') {
                extra.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        answer(out, 200, &extra, &told(name, request).to_string())
    })
}

fn wait(milliseconds: u32) {
    if milliseconds > 0 {
        pause(Duration::from_millis(milliseconds.into()));
    }
}

fn answer(
    out: &mut impl Write,
    code: u32,
    extra: &[(String, String)],
    body: &str,
) -> io::Result<bool> {
    let mut head = format!("HTTP/1.1 {code} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in extra {
        head += &format!("{name}: {value}\r\n");
    }
    out.write_all(format!("{head}\r\n{body}").as_bytes())?;
    Ok(true)
}

/// What it saw; several lines of a header are joined with commas.
fn told(name: &str, request: &Seen) -> Value {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &request.headers {
        let entry = headers
            .entry(name.to_ascii_lowercase())
            .or_insert(json!(""));
        let before = entry.as_str().unwrap_or_default();
        *entry = match before.is_empty() {
            true => json!(value),
            false => json!(format!("{before},{value}")),
        };
    }
    json!({
        "backend": name,
        "method": request.line.split(' ').next(),
        "path": request.path(),
        "headers": headers,
        "body": String::from_utf8_lossy(&request.body),
    })
}

struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn of(request: &'a Seen) -> Self {
        let (_, query) = request.path().split_once('?').unwrap_or_default();
        Self(
            query
                .split('&')
                .filter_map(|one| one.split_once('='))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| *value)
    }

    fn number(&self, name: &str) -> u32 {
        self.get(name).map_or(0, |text| text.parse().unwrap())
    }
}
