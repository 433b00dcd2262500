//! The parts of a sidecar's process that its admin endpoint shows and that the data path does not know: its
//! log, and the state of its identity and table on disk.

use weft_ca::agent::AgentStatus;
use weft_config::client::SubscriptionHandle;
use weft_proxy::Process;
use weft_transport::metrics::{Sample, TABLE_UNSAVED};

use crate::process;
use crate::process_metrics;
use crate::telemetry::LogFilter;

pub(super) struct Upkeep {
    pub(super) log: LogFilter,
    pub(super) identity: AgentStatus,
    pub(super) subscription: SubscriptionHandle,
}

impl Process for Upkeep {
    fn is_main(&self) {
        process::is_main();
    }

    fn log_filter(&self) -> String {
        self.log.current()
    }

    fn set_log_filter(&self, directives: &str) -> Result<(), String> {
        self.log.set(directives)
    }

    fn concerns(&self) -> Vec<String> {
        let mut concerns = self.identity.concerns();
        let status = self.subscription.status();
        if let (false, Some(error)) = (status.connected, status.last_error) {
            concerns.push(format!("the config service does not answer ({error})"));
        }
        if let (Some(revision), Some(reason)) = (&status.offered, &status.refusal) {
            concerns.push(format!(
                "revision {} is refused ({reason})",
                revision.number
            ));
        }
        for withheld in &status.withheld {
            concerns.push(withheld.to_string());
        }
        if let Some(reason) = status.unsaved {
            concerns.push(format!("the table in force is not on disk ({reason})"));
        }
        concerns
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = self.identity.samples();
        let unsaved = self.subscription.status().unsaved;
        samples.push(TABLE_UNSAVED.flag(unsaved.is_some()));
        samples.extend(process_metrics::samples());
        samples
    }
}
