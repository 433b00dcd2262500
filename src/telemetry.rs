//! Logs: fields, not prose, on stderr. JSON lines unless stderr is a terminal; the filter comes
//! from `WEFT_LOG` (or `RUST_LOG`) and can be changed while the process runs.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// Lifecycle only: nothing per request stands at this level.
const DEFAULT_FILTER: &str = "info";

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

    /// Replaces it; says what is wrong with `filter`, as `info,weft_proxy=debug`.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter)
            .map_err(|error| format!("`{filter}` is not a log filter: {error}; write a level, as debug, or info,weft_proxy=debug"))?;
        self.handle
            .reload(filter)
            .map_err(|error| error.to_string())
    }
}

/// Starts logging for the whole process. `requested` is the environment's wish.
pub fn start(requested: Option<&str>) -> LogFilter {
    let wish = requested.unwrap_or(DEFAULT_FILTER);
    let parsed = EnvFilter::try_new(wish);
    let refused = parsed.is_err();
    let (filter, handle) =
        reload::Layer::new(parsed.unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER)));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.with_target(false).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    // A second subscriber in one process can only come from a test harness; its logs then win.
    let _ = Registry::default().with(filter).with(lines).try_init();
    if refused {
        tracing::warn!(
            value = wish,
            "WEFT_LOG is not a log filter, so `{DEFAULT_FILTER}` is used; write a level, as debug, or info,weft_proxy=debug"
        );
    }
    LogFilter { handle }
}
