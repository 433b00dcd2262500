//! The output of commands: data on stdout as a table, JSON or YAML. Messages go to stderr elsewhere.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;
use weft_proxy::visible::{acts, escape};

use crate::failure::{Code, Failure};

/// Formats of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Rows under their headings, for [`Format::Table`].
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        Self {
            headings: headings.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell per heading.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(self.headings.iter().copied());
        table.add_rows(self.rows.iter().map(|row| row.iter().map(printable)));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = table.to_string();
        for line in text.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A Unix time in seconds as people read it, in UTC.
pub fn moment(unix_seconds: u64) -> String {
    i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| unix_seconds.to_string(), |moment| moment.to_string())
}

/// Names and messages come from other hosts, so control characters are escaped before they reach a terminal.
pub fn printable(text: impl AsRef<str>) -> String {
    text.as_ref()
        .chars()
        .map(|c| if acts(c) { '\u{fffd}' } else { c })
        .collect()
}

/// Prints `data` in the format asked for; `table` makes the columns.
pub fn print<T: Serialize>(
    format: Format,
    data: &T,
    table: impl FnOnce(&T) -> Table,
) -> Result<(), Failure> {
    print_or(format, data, |data| table(data).to_string())
}

/// As [`print()`], if people read another form than a table.
pub fn print_or<T: Serialize>(
    format: Format,
    data: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => text(data),
        Format::Json => json(data)?,
        Format::Yaml => yaml(data)?,
    };
    text_out(&text)
}

fn json<T: Serialize>(data: &T) -> Result<String, Failure> {
    serde_json::to_string_pretty(data)
        .map(|text| visible_json(&text))
        .map_err(|error| Failure::new(Code::Failed, format!("cannot print as JSON: {error}")))
}

/// YAML, or JSON if a string holds characters that act on a terminal: the YAML writer leaves such characters
/// as they are, and JSON is valid YAML (YAML 1.2 section 1.3).
fn yaml<T: Serialize>(data: &T) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(data)
        .map_err(|error| Failure::new(Code::Failed, format!("cannot print as YAML: {error}")))?;
    if text.lines().any(|line| line.chars().any(acts)) {
        return json(data);
    }
    Ok(text)
}

/// JSON of several lines with a final line end. Characters in strings that act on a terminal are written as
/// `\uXXXX`, which means the same.
pub fn visible_json(text: &str) -> String {
    let mut lines: String = text.lines().map(escape).collect::<Vec<_>>().join("\n");
    lines.push('\n');
    lines
}

/// Writes `text` to stdout. A reader that went away (`weft get ... | head`) is no failure.
pub fn text_out(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Failed,
            format!("cannot write to stdout: {error}"),
        )),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes one line to stderr: progress, warnings, and the line of a failure.
pub fn note(line: impl std::fmt::Display) {
    // If stderr is closed, no reader is left.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_with_what_a_terminal_obeys_is_written_as_json() {
        let harmless = yaml(&serde_json::json!({ "reason": "plain" })).unwrap();
        assert_eq!(harmless.trim(), "reason: plain");
        let data = serde_json::json!({ "reason": "a\u{202e}b\u{9b}2J" });
        let text = yaml(&data).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && acts(c)), "{text:?}");
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, data);
    }

    #[test]
    fn json_means_the_same_and_acts_on_no_terminal() {
        let data = serde_json::json!({ "reason": "a\u{202e}b\u{9b}2J\n" });
        let text = visible_json(&serde_json::to_string_pretty(&data).unwrap());
        assert_eq!(text, "{\n  \"reason\": \"a\\u202eb\\u009b2J\\n\"\n}\n");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            data
        );
    }

    #[test]
    fn a_table_is_aligned_and_free_of_control_characters() {
        let mut table = Table::new(&["NAME", "ADDRESS"]);
        table.row(["orders\u{1b}[31m".to_owned(), "10.9.0.3\u{202e}".to_owned()]);
        assert_eq!(
            table.to_string(),
            "NAME         ADDRESS\norders\u{fffd}[31m  10.9.0.3\u{fffd}\n"
        );
    }
}
