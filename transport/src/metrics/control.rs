//! The metrics of the CA and the config service, and those that all processes share: their identity, and
//! their use of the host's resources.

use super::{Label, Program, catalogue};

const EVERY: &[Program] = &[Program::Sidecar, Program::Ca, Program::Config];
const MEMBERS: &[Program] = &[Program::Sidecar, Program::Config];
const CA: &[Program] = &[Program::Ca];
const CONFIG: &[Program] = &[Program::Config];

catalogue! {
    /// Certificates issued.
    CA_SIGNED = Counter("weft_ca_signed_total", Things).of(CA);
    /// Certificates sent again to the key that already received them.
    CA_REPEATED = Counter("weft_ca_repeated_total", Things).of(CA);
    /// Requests refused, by reason.
    CA_REFUSED = Counter("weft_ca_refused_total", Things).of(CA).by(&[], &[
        Label::one_of("reason", &[
            "no_credential", "token_unknown", "token_expired", "token_used", "token_restored", "svid_expired",
            "other_trust_domain", "key_taken", "bad_csr", "too_many_signatures"
        ])
    ]);
    /// Requests that failed for a reason within the CA.
    CA_FAILED = Counter("weft_ca_failed_total", Things).of(CA);
    /// Join tokens made.
    CA_TOKENS = Counter("weft_ca_tokens_created_total", Things).of(CA);
    /// Connections that were not accepted, or that the CA ended, by reason: handshake_place and place (newer
    /// connections needed it, before and after the handshake), handshake_failed, certificate_ended, too_old.
    CA_CONNECTIONS_ENDED = Counter("weft_ca_connections_ended_total", Things).of(CA).by(&[], &[
        Label::one_of("reason", &["handshake_place", "handshake_failed", "place", "certificate_ended", "too_old"])
    ]);
    /// End of the CA's own certificates.
    CA_CERTIFICATE_EXPIRY = Gauge("weft_ca_certificate_expiry_timestamp_seconds", UnixTime).of(CA).by(&[], &[
        Label::one_of("certificate", &["issuing", "root"])
    ]);
    /// Number of the revision in force.
    STORE_REVISION = Gauge("weft_config_store_revision", Things).of(CONFIG);
    /// Sidecars that receive changes.
    SIDECARS_CONNECTED = Gauge("weft_config_sidecars_connected", Things).of(CONFIG);
    /// Sidecars whose stream broke less than a lease ago.
    SIDECARS_LOST = Gauge("weft_config_sidecars_lost", Things).of(CONFIG);
    /// Connected sidecars that have not yet acknowledged the revision in force.
    SIDECARS_BEHIND = Gauge("weft_config_sidecars_behind", Things).of(CONFIG);
    /// Connected sidecars that refused the revision in force.
    SIDECARS_REFUSING = Gauge("weft_config_sidecars_refusing", Things).of(CONFIG);
    /// Connected sidecars that do not get a part of a resource, because they do not support this feature.
    SIDECARS_WITHHELD = Gauge("weft_config_sidecars_withheld", Things).of(CONFIG).by(&[], &[
        Label::open("feature", "feature of a table, as docs/protocol.md lists them", "those of the build")
    ]);
    /// Revisions that a sidecar refused; each is in the log with its reason.
    CONFIG_REFUSALS = Counter("weft_config_refusals_total", Things).of(CONFIG);
    /// Workloads whose lease is valid.
    WORKLOADS = Gauge("weft_config_workloads_registered", Things).of(CONFIG);
    /// Sidecars that tell of their calls.
    SIGNAL_STREAMS = Gauge("weft_config_signal_streams", Things).of(CONFIG);
    /// Edges of the mesh whose calls are kept for `weft stat`.
    SIGNAL_EDGES = Gauge("weft_config_signal_edges", Things).of(CONFIG);
    /// Bytes of what is kept of them.
    SIGNAL_BYTES = Gauge("weft_config_signal_bytes", Bytes).of(CONFIG);
    /// Calls that share the edge `other`, as there are too many edges (`no_room`), and edges that a sidecar
    /// told of and that are not its own (`not_its_own`).
    SIGNALS_LEFT_OUT = Counter("weft_config_signals_left_out_total", Things).of(CONFIG).by(&[], &[
        Label::one_of("reason", &["no_room", "not_its_own"])
    ]);
    /// Certificates renewed.
    IDENTITY_RENEWALS = Counter("weft_identity_renewals_total", Things).of(MEMBERS);
    /// Attempts to renew the certificate that failed.
    IDENTITY_RENEWAL_FAILURES = Counter("weft_identity_renewal_failures_total", Things).of(MEMBERS);
    /// End of the certificate in use.
    IDENTITY_EXPIRY = Gauge("weft_identity_expiry_timestamp_seconds", UnixTime).of(MEMBERS);
    /// 1 while renewal fails and less than a third of the life is left.
    IDENTITY_RENEWAL_ALARM = Gauge("weft_identity_renewal_alarm", Flag).of(MEMBERS);
    /// 1 while the identity in force is not on disk, because the state directory cannot be written.
    IDENTITY_UNSAVED = Gauge("weft_identity_unsaved", Flag).of(MEMBERS);
    /// Tasks of one connection, request or call that ended by a fault of weft. The connection, request or
    /// call ended with its task, and the log names each task.
    TASKS_DIED = Counter("weft_tasks_died_total", Things).of(EVERY).by(&[], &[
        Label::open("task", "name of a task in the log", "those of the program")
    ]);
    /// 1, with the build that runs.
    BUILD_INFO = Gauge("weft_build_info", Flag).of(EVERY).by(&[], &[
        Label::open("version", "version of weft", "one per process"),
        Label::open("commit", "commit of a release; else empty", "one per process")
    ]);
    /// User and system CPU time. This and the next five are named as in Prometheus's own libraries.
    PROCESS_CPU = Counter("process_cpu_seconds_total", Seconds).of(EVERY);
    /// Start of the process.
    PROCESS_START = Gauge("process_start_time_seconds", UnixTime).of(EVERY);
    /// Resident memory.
    PROCESS_RESIDENT = Gauge("process_resident_memory_bytes", Bytes).of(EVERY);
    /// Virtual memory.
    PROCESS_VIRTUAL = Gauge("process_virtual_memory_bytes", Bytes).of(EVERY);
    /// Open file descriptors.
    PROCESS_OPEN_FILES = Gauge("process_open_fds", Things).of(EVERY);
    /// Most file descriptors that may be open.
    PROCESS_OPEN_FILES_MAX = Gauge("process_max_fds", Things).of(EVERY);
}
