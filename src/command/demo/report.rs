//! The demo's report: the results, in a form that needs no prior knowledge. Pure.

use std::fmt::Write;
use std::time::Duration;

/// The demo's measurements.
pub struct Outcome {
    pub processes: usize,
    pub bring_up: Duration,
    pub requests: usize,
    pub answered: usize,
    pub first_version: usize,
    pub second_version: usize,
    pub ledger_exact: bool,
    pub denied_status: u16,
    pub denied_seen_by_application: u64,
    pub secret: &'static str,
    pub secrets_at_application: u64,
    pub wire_datagrams: usize,
    pub wire_bytes: usize,
    pub wire_secrets: usize,
    pub latency_samples: usize,
    pub direct: Duration,
    pub mesh: Duration,
}

impl Outcome {
    /// The promises that were not kept; empty if the mesh did its job.
    pub fn broken_promises(&self) -> Vec<&'static str> {
        let promises = [
            (self.answered == self.requests, "every request is answered"),
            // 10 % of 200 is 20 +- 4.2; outside of 3 to 50 the split is not random.
            (
                (3..=50).contains(&(self.second_version * 200 / self.requests.max(1))),
                "the split follows its weights",
            ),
            (self.ledger_exact, "TCP arrives byte-exact"),
            (
                self.denied_status == 403,
                "the forbidden call is answered with 403",
            ),
            (
                self.denied_seen_by_application == 0,
                "a denied call does not reach the application",
            ),
            (
                self.wire_datagrams > 0,
                "the eavesdropper stands in the path",
            ),
            (self.wire_secrets == 0, "nothing is readable on the wire"),
        ];
        promises
            .into_iter()
            .filter(|(kept, _)| !kept)
            .map(|(_, promise)| promise)
            .collect()
    }

    /// The report.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let bar = |count: usize| "#".repeat((count * 40).div_ceil(self.requests.max(1)));
        let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{} real processes on this machine, up in {:.1} s\n\n\
             Who called whom\n  \
               frontend -> orders   {} of {} requests answered\n  \
               frontend -> ledger   a TCP connection, {}\n\n\
             The split of orders (90/10 asked for)\n  \
               orders-v1  {:>4}  {}\n  \
               orders-v2  {:>4}  {}\n\n\
             The forbidden call\n  \
               frontend DELETE /orders/1 -> {}, {}\n\n\
             What an eavesdropper between the sidecars sees\n  \
               `{}` was read {} times by the applications,\n  \
               and {} times in the {} datagrams ({} KiB) on the wire\n\n\
             Latency added (median of {})\n  \
               direct {:.2} ms, through two sidecars {:.2} ms: {:.2} ms more\n",
            self.processes,
            self.bring_up.as_secs_f64(),
            self.answered,
            self.requests,
            if self.ledger_exact {
                "byte-exact both ways"
            } else {
                "NOT byte-exact"
            },
            self.first_version,
            bar(self.first_version),
            self.second_version,
            bar(self.second_version),
            self.denied_status,
            if self.denied_seen_by_application == 0 {
                "and the application never saw it"
            } else {
                "BUT the application saw it"
            },
            self.secret,
            self.secrets_at_application,
            self.wire_secrets,
            self.wire_datagrams,
            self.wire_bytes / 1024,
            self.latency_samples,
            milliseconds(self.direct),
            milliseconds(self.mesh),
            milliseconds(self.mesh.saturating_sub(self.direct)),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Outcome {
        Outcome {
            processes: 6,
            bring_up: Duration::from_millis(4200),
            requests: 200,
            answered: 200,
            first_version: 181,
            second_version: 19,
            ledger_exact: true,
            denied_status: 403,
            denied_seen_by_application: 0,
            secret: "4929",
            secrets_at_application: 200,
            wire_datagrams: 900,
            wire_bytes: 300_000,
            wire_secrets: 0,
            latency_samples: 300,
            direct: Duration::from_micros(100),
            mesh: Duration::from_micros(450),
        }
    }

    #[test]
    fn a_mesh_that_did_its_job_breaks_no_promise_and_says_so_in_one_screen() {
        assert!(good().broken_promises().is_empty());
        let text = good().text();
        assert!(text.lines().count() <= 24, "{text}");
        assert!(text.contains("orders-v2    19  ####\n"), "{text}");
        assert!(
            text.contains("through two sidecars 0.45 ms: 0.35 ms more"),
            "{text}"
        );
    }

    #[test]
    fn each_broken_promise_is_named() {
        let leaky = Outcome {
            wire_secrets: 1,
            ..good()
        };
        assert_eq!(leaky.broken_promises(), ["nothing is readable on the wire"]);
        let open = Outcome {
            denied_status: 200,
            denied_seen_by_application: 1,
            ..good()
        };
        assert_eq!(open.broken_promises().len(), 2);
    }
}
