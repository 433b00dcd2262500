//! The tables of metrics in `docs/operate.md`, and the names of metrics in every page and source file: they
//! are those of the catalogue, `transport/src/metrics/`.
//!
//! `UPDATE_PAGES=1 cargo test --test documentation` writes the tables anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use weft_transport::metrics::{Kind, Label, Metric, Program, Unit, Values, all};

use super::{pages, root, sources};

const END: &str = "<!-- End of what is made. -->\n";

fn begin(what: &str) -> String {
    format!(
        "<!-- Made from transport/src/metrics by tests/documentation: edit the comments there. {what} -->\n"
    )
}

fn kind(metric: &Metric) -> String {
    let kind = match metric.kind() {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    match metric.unit() {
        Unit::Things => kind.to_owned(),
        Unit::Seconds => format!("{kind}, seconds"),
        Unit::Bytes => format!("{kind}, bytes"),
        Unit::UnixTime => format!("{kind}, Unix time"),
        Unit::Flag => format!("{kind}, 0 or 1"),
    }
}

fn label(label: &Label) -> String {
    let name = label.name;
    match &label.values {
        Values::OneOf(values) if values.len() < 12 => format!("`{name}`: {}", values.join(", ")),
        Values::OneOf(_) | Values::Open { .. } => format!("`{name}`"),
    }
}

fn labels(metric: &Metric) -> String {
    let shared = metric.labels().count() - metric.own_labels().len();
    let shared = match shared {
        0 => None,
        // Metrics that the table below explains in one row each are named, not repeated.
        6 => Some("those of calls".to_owned()),
        _ => Some(
            metric
                .labels()
                .take(shared)
                .map(label)
                .collect::<Vec<_>>()
                .join("; "),
        ),
    };
    let own = metric.own_labels().iter().map(label);
    shared.into_iter().chain(own).collect::<Vec<_>>().join("; ")
}

fn sidecar() -> String {
    let mut table = "| metric | type | what it counts | labels |\n|---|---|---|---|\n".to_owned();
    for metric in all().filter(|metric| metric.programs().contains(&Program::Sidecar)) {
        let (name, meaning) = (metric.name(), metric.meaning());
        let (kind, labels) = (kind(metric), labels(metric));
        writeln!(table, "| `{name}` | {kind} | {meaning} | {labels} |").unwrap();
    }
    table
}

fn control() -> String {
    let mut table =
        "| metric | of | type | what it counts | labels |\n|---|---|---|---|---|\n".to_owned();
    let of = |metric: &Metric| {
        let mut of = Vec::new();
        for (program, name) in [(Program::Ca, "CA"), (Program::Config, "config")] {
            of.extend(metric.programs().contains(&program).then_some(name));
        }
        of.join(", ")
    };
    for metric in all().filter(|metric| !of(metric).is_empty()) {
        let (name, of, meaning) = (metric.name(), of(metric), metric.meaning());
        let (kind, labels) = (kind(metric), labels(metric));
        writeln!(table, "| `{name}` | {of} | {kind} | {meaning} | {labels} |").unwrap();
    }
    table
}

/// Labels whose values the tables of metrics have no room for.
fn open_labels() -> String {
    let mut table = "| label | values | at most |\n|---|---|---|\n".to_owned();
    let mut rows = BTreeMap::new();
    let is_call = |metric: &Metric| metric.labels().any(|label| label.name == "direction");
    // Those of calls first: the first that has a name explains it.
    let ordered = all().filter(|metric| is_call(metric)).chain(all());
    for (index, one) in ordered.flat_map(Metric::labels).enumerate() {
        let (what, bound) = match &one.values {
            Values::Open { what, bound } => ((*what).to_owned(), (*bound).to_owned()),
            Values::OneOf(values) if values.len() >= 12 || one.name == "direction" => {
                let values = values.iter().map(|value| match *value {
                    "" => "empty",
                    value => value,
                });
                (values.collect::<Vec<_>>().join(", "), "these".to_owned())
            }
            Values::OneOf(_) => continue,
        };
        rows.entry((one.name, what)).or_insert((index, bound));
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, (index, _))| *index);
    for ((name, what), (_, bound)) in rows {
        writeln!(table, "| `{name}` | {what} | {bound} |").unwrap();
    }
    table
}

#[test]
fn the_tables_of_metrics_are_those_of_the_catalogue() {
    let path = root().join("docs/operate.md");
    let mut page = fs::read_to_string(&path).unwrap();
    let update = std::env::var_os("UPDATE_PAGES").is_some();
    for (what, wanted) in [
        ("Metrics of a sidecar.", sidecar()),
        ("Their labels.", open_labels()),
        ("Metrics of the CA and the config service.", control()),
    ] {
        let begin = begin(what);
        let (before, rest) = page.split_once(&begin).unwrap();
        let (found, after) = rest.split_once(END).unwrap();
        assert!(
            update || found == wanted,
            "docs/operate.md lags behind the catalogue of metrics. Write it anew with: \
             UPDATE_PAGES=1 cargo test --test documentation"
        );
        page = format!("{before}{begin}{wanted}{END}{after}");
    }
    if update {
        fs::write(&path, page).unwrap();
    }
}

/// The names in a text that look like those of metrics, without the suffixes of a histogram.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| {
        let ends = [
            "_total", "_seconds", "_bytes", "_bucket", "_sum", "_count", "_fds", "_info",
        ];
        word.starts_with("weft_")
            || word.starts_with("process_") && ends.iter().any(|end| word.ends_with(end))
    });
    names.map(|name| {
        let stems = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|end| name.strip_suffix(end));
        let known = |stem: &&str| {
            all().any(|metric| metric.name() == *stem && metric.kind() == Kind::Histogram)
        };
        stems.into_iter().find(known).unwrap_or(name)
    })
}

fn is_known(name: &str) -> bool {
    all().any(|metric| metric.name() == name)
}

/// Words that begin like a metric's name and are none: crates, a field of results, headers of examples.
const OTHERS: [&str; 11] = [
    "weft_proxy",
    "weft_transport",
    "weft_config",
    "weft_ca",
    "weft_loadtest",
    "weft_netem_tests",
    "weft_over",
    "weft_better",
    "weft_worse",
    "weft_client_id",
    "weft_",
];

#[test]
fn every_metric_that_a_page_names_exists() {
    let mut missing = Vec::new();
    for page in pages() {
        // The changelog also names metrics that were removed.
        if page.ends_with("CHANGELOG.md") {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        for name in names(&text).filter(|name| !OTHERS.contains(name)) {
            if !is_known(name) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The types of the catalogue ensure this already. A page written by hand would not pass them.
#[test]
fn no_source_file_names_a_metric_that_the_catalogue_does_not_have() {
    let mut missing = Vec::new();
    for source in sources() {
        let of_program = source.contains("/src/") || source.starts_with("src/");
        if !of_program || source.starts_with("transport/src/metrics/") || !source.ends_with(".rs") {
            continue;
        }
        let text = fs::read_to_string(root().join(&source)).unwrap();
        for word in text.split('"').skip(1).step_by(2) {
            // A name by itself, or at the head of a line of a page.
            let name = word.split(['{', ' ']).next().unwrap_or_default();
            let is_name = names(name).next() == Some(name) && !OTHERS.contains(&name);
            if is_name && !is_known(name) {
                missing.push(format!("{source}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The catalogue is in a crate below those that count, so its descriptions are compared here.
#[test]
fn the_catalogue_has_the_errors_and_the_bounds_of_the_proxy() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let failure = read("proxy/src/failure.rs");
    let table = failure.split("fn table(").nth(1).unwrap();
    let table = table.split("    }\n").next().unwrap();
    let tokens: BTreeSet<&str> = table.split('"').skip(1).step_by(2).collect();
    assert!(tokens.len() > 10, "{tokens:?}");
    let requests = all().find(|metric| metric.name() == "weft_requests_total");
    let mut labels = requests.unwrap().labels();
    let error = labels.find(|label| label.name == "error").unwrap();
    let Values::OneOf(errors) = error.values else {
        panic!("{error:?}");
    };
    let errors: BTreeSet<&str> = errors
        .iter()
        .copied()
        .filter(|error| !error.is_empty())
        .collect();
    assert_eq!(errors, tokens);

    let limits = read("proxy/src/limits.rs");
    for (name, said) in [
        ("METRIC_SERIES_MAX", "2000"),
        ("METRIC_OUTCOMES_MAX", "128"),
    ] {
        assert!(
            limits.contains(&format!("{name}: usize = {said};")),
            "{name} is not what transport/src/metrics/sidecar.rs says: {said}"
        );
    }
}
