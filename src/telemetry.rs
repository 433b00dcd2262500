//! Logs: fields, not prose, on stderr. JSON lines unless stderr is a terminal; the filter comes from
//! `WEFT_LOG` (or `RUST_LOG`) and can be changed while the process runs. Peers choose some of the values, so
//! an event is always one line, without characters that act on a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};
use weft_proxy::visible::escape;

/// Lifecycle only: no event per request has this level. Peers can cause warnings of libraries as often as
/// they like; weft counts such events itself, and logs them once when an operator has to know.
const DEFAULT_FILTER: &str =
    "info,h2=error,hyper=error,quinn=error,quinn_proto=error,rustls=error,tonic=error";

/// Changes the log filter of the running process.
#[derive(Clone)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogFilter {
    /// The filter in force.
    pub fn current(&self) -> String {
        self.handle
            .with_current(ToString::to_string)
            .unwrap_or_default()
    }

    /// Replaces the filter. The error names the fault in `filter`, a text such as `info,weft_proxy=debug`.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter)
            .map_err(|error| format!("`{filter}` is not a log filter: {error}; write a level, as debug, or info,weft_proxy=debug"))?;
        self.handle
            .reload(filter)
            .map_err(|error| error.to_string())
    }
}

/// Starts logging for the whole process. `requested` is the environment's filter.
pub fn start(requested: Option<&str>) -> LogFilter {
    let directives = requested.unwrap_or(DEFAULT_FILTER);
    let parsed = EnvFilter::try_new(directives);
    let refused = parsed.is_err();
    let (filter, handle) =
        reload::Layer::new(parsed.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER)));
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Lines(io::stderr()));
    let lines = if io::stderr().is_terminal() {
        lines.with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    // A second subscriber in one process can only come from a test harness; its logs then win.
    let _ = Registry::default().with(filter).with(lines).try_init();
    if refused {
        tracing::warn!(
            value = directives,
            "WEFT_LOG is not a log filter, so `{DEFAULT_FILTER}` is used; write a level, as debug, or info,weft_proxy=debug"
        );
    }
    LogFilter { handle }
}

/// Writes events, each of which comes in one piece.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(line(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event as one line. The colours for a terminal stay: `tracing_subscriber` writes them, and removes the
/// same sequences from fields.
fn line(event: &str) -> Cow<'_, str> {
    const COLOUR: char = '\u{1b}';
    let text = event.strip_suffix('\n').unwrap_or(event);
    let is_plain = |part: &str| matches!(escape(part), Cow::Borrowed(_));
    if text.split(COLOUR).all(is_plain) {
        return Cow::Borrowed(event);
    }
    let parts: Vec<_> = text.split(COLOUR).map(escape).collect();
    Cow::Owned(parts.join("\u{1b}") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_in_which_nothing_acts_but_its_colours() {
        for (event, expected) in [
            ("plain\n", "plain\n"),
            (
                "\u{1b}[32m INFO\u{1b}[0m ready\n",
                "\u{1b}[32m INFO\u{1b}[0m ready\n",
            ),
            ("peer=a\nINFO forged\n", "peer=a\\u000aINFO forged\n"),
            (
                "{\"peer\":\"a\u{202e}b\u{9b}1m\"}\n",
                "{\"peer\":\"a\\u202eb\\u009b1m\"}\n",
            ),
        ] {
            let mut written = Vec::new();
            Lines(&mut written).write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }
}
