//! Conditions of a VirtualService. A match of which a part cannot be said is left out: without that part it
//! would take more.

use serde_json::{Value as Json, json};

use crate::import::output::Output;
use crate::import::reader::{Document, Place};

/// What decides which match is asked first: exact paths, regular expressions, prefixes; then length, method,
/// headers and parameters.
pub(super) type Rank = (u8, usize, bool, usize, usize);

#[derive(Default)]
pub(super) struct Matches<'n> {
    pub(super) json: Vec<Json>,
    pub(super) ranks: Vec<(Rank, Place<'n>)>,
}

/// The matches that can be said, and whether the rule takes every request.
pub(super) fn matches<'n>(
    document: &Document<'n>,
    rule: &Place<'n>,
    output: &mut Output,
) -> (Matches<'n>, bool) {
    let Some(at) = rule.field("match") else {
        return (Matches::default(), true);
    };
    let mut found = Matches::default();
    let mut all = false;
    for item in at.items() {
        if let Some(one) = one_match(document, &item, output) {
            let rank = rank_of(&one);
            all |= one == json!({});
            found.ranks.push((rank, item));
            found.json.push(one);
        }
    }
    (found, all)
}

fn rank_of(one: &Json) -> Rank {
    let path = &one["path"];
    let kind = match path["type"].as_str() {
        Some("Exact") => 2,
        Some("RegularExpression") => 1,
        _ => 0,
    };
    let length = path["value"]
        .as_str()
        .map_or(1, |value| value.chars().count());
    let count = |name: &str| one[name].as_array().map_or(0, Vec::len);
    (
        kind,
        length,
        !one["method"].is_null(),
        count("headers"),
        count("queryParams"),
    )
}

/// `None` if a condition cannot be said: without it the rule would take more.
fn one_match(document: &Document<'_>, at: &Place<'_>, output: &mut Output) -> Option<Json> {
    let mut fields = at.fields();
    let mut json = json!({});
    let mut whole = true;
    fields.take("name");
    fields.take("statPrefix");
    let ignores_case = fields
        .take("ignoreUriCase")
        .is_some_and(|one| one.is_true());
    let mut lost = |at: &Place<'_>, output: &mut Output| {
        let message = "is a condition that has no counterpart, so this match is left out";
        output.dropped(
            document,
            at,
            message,
            "match by path, method, headers or parameters",
        );
        whole = false;
    };
    if let Some(at) = fields.take("uri") {
        match string_match(&at) {
            Some((kind, value)) => {
                json["path"] = path_of(document, &at, kind, &value, ignores_case, output);
            }
            None => lost(&at, output),
        }
    }
    if let Some(at) = fields.take("method") {
        match string_match(&at) {
            Some((Kind::Exact, value)) => json["method"] = json!(value),
            Some(_) | None => lost(&at, output),
        }
    }
    let mut headers = Vec::new();
    if let Some(at) = fields.take("authority") {
        match string_match(&at) {
            Some(one) => headers.push(pair("host", one)),
            None => lost(&at, output),
        }
    }
    for (name, at) in fields.take("headers").iter().flat_map(Place::entries) {
        match (name, string_match(&at)) {
            (":authority", Some(one)) => headers.push(pair("host", one)),
            (name, Some(one)) if !name.starts_with(':') => headers.push(pair(name, one)),
            // One without a value asks only that the header is there.
            (name, None) if at.entries().is_empty() && !name.starts_with(':') => {
                headers.push(pair(name, (Kind::Regex, ".*".to_owned())));
            }
            (_, _) => lost(&at, output),
        }
    }
    if !headers.is_empty() {
        json["headers"] = json!(headers);
    }
    let mut parameters = Vec::new();
    for (name, at) in fields.take("queryParams").iter().flat_map(Place::entries) {
        match string_match(&at) {
            Some(one) => parameters.push(pair(name, one)),
            None => lost(&at, output),
        }
    }
    if !parameters.is_empty() {
        json["queryParams"] = json!(parameters);
    }
    if let Some(at) = fields.take("gateways")
        && !at.texts().iter().any(|one| one == "mesh")
    {
        lost(&at, output);
    }
    for at in fields.left() {
        lost(&at, output);
    }
    whole.then_some(json)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Exact,
    Prefix,
    Regex,
}

pub(super) fn string_match(at: &Place<'_>) -> Option<(Kind, String)> {
    let kinds = [
        ("exact", Kind::Exact),
        ("prefix", Kind::Prefix),
        ("regex", Kind::Regex),
    ];
    kinds
        .into_iter()
        .find_map(|(name, kind)| Some((kind, at.field(name)?.text()?)))
}

fn pair(name: &str, (kind, value): (Kind, String)) -> Json {
    match kind {
        Kind::Exact => json!({ "name": name, "value": value }),
        Kind::Prefix => {
            let value = format!("{}.*", escaped(&value));
            json!({ "name": name, "type": "RegularExpression", "value": value })
        }
        Kind::Regex => json!({ "name": name, "type": "RegularExpression", "value": value }),
    }
}

fn path_of(
    document: &Document<'_>,
    at: &Place<'_>,
    kind: Kind,
    value: &str,
    ignores_case: bool,
    output: &mut Output,
) -> Json {
    let pattern = |text: String| json!({ "type": "RegularExpression", "value": text });
    match kind {
        Kind::Exact if ignores_case => pattern(format!("(?i){}", escaped(value))),
        Kind::Prefix if ignores_case => pattern(format!("(?i){}.*", escaped(value))),
        Kind::Exact => json!({ "type": "Exact", "value": value }),
        Kind::Regex => pattern(value.to_owned()),
        Kind::Prefix => {
            if value != "/" {
                let message = "a prefix is whole segments in weft: /a takes /a and below, not /ab";
                output.told(
                    document,
                    at,
                    message,
                    "use a regular expression if /ab is meant, too",
                );
            }
            json!({ "type": "PathPrefix", "value": value })
        }
    }
}

/// A text as a regular expression that only it matches.
fn escaped(text: &str) -> String {
    let mut all = String::new();
    for one in text.chars() {
        if "\\.+*?()|[]{}^$#&-~".contains(one) {
            all.push('\\');
        }
        all.push(one);
    }
    all
}
