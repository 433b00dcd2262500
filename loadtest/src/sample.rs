//! The result of one request: the only value that a client gives to the measurements. Pure. `measurements.rs`
//! combines many samples.

use std::fmt;
use std::time::Duration;

/// One arrival and its result. Times are distances from the run's origin, so that samples of all threads
/// share one time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the plan wanted it to start. In a closed loop, when it did start.
    pub intended: Duration,
    /// When the generator did start it (began to dial, or to write on an open connection).
    pub started: Duration,
    /// When its last attempt began: later than `started` if it was sent again. The times of its phases are
    /// those of that attempt.
    pub attempted: Duration,
    /// How often it was sent again, because the server had not processed it.
    pub resent: u32,
    /// When a new TCP connection was open. `None` on a kept connection and over QUIC.
    pub connected: Option<Duration>,
    /// When a new TLS or QUIC handshake was done.
    pub tls_done: Option<Duration>,
    /// New handshakes of TLS or QUIC, of all attempts.
    pub handshakes: u32,
    /// Those that went on with a session of an earlier connection. None over QUIC, whose library does not
    /// tell.
    pub resumed: u32,
    /// When the first byte of the answer was there.
    pub first_byte: Option<Duration>,
    /// When it ended, well or not.
    pub finished: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes received, as the application sees them (heads are counted where the protocol shows
    /// them as bytes).
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Whether it ran on a connection that had served before.
    pub reused: bool,
    /// Whether `--max-in-flight` (not the generator's slowness) kept it from starting in time.
    pub held_back: bool,
}

impl Sample {
    /// A request that was due at `intended` and starts at `started`. It counts as open until its outcome is
    /// set.
    pub fn begin(intended: Duration, started: Duration) -> Self {
        Self {
            intended,
            started,
            attempted: started,
            resent: 0,
            connected: None,
            tls_done: None,
            handshakes: 0,
            resumed: 0,
            first_byte: None,
            finished: started,
            outcome: Outcome::Failure(ErrorKind::OpenAtEnd),
            bytes_in: 0,
            bytes_out: 0,
            reused: false,
            held_back: false,
        }
    }

    /// An arrival that never started: `--max-in-flight` requests were open until `now`.
    pub fn unsent(intended: Duration, now: Duration) -> Self {
        Self {
            outcome: Outcome::Failure(ErrorKind::Unsent),
            held_back: true,
            ..Self::begin(intended, now.max(intended))
        }
    }

    /// It is sent again: the earlier attempts leave only the time that they took.
    pub(crate) fn resend(&mut self, now: Duration) {
        self.attempted = now;
        self.resent += 1;
        self.connected = None;
        self.tls_done = None;
        self.first_byte = None;
        self.reused = false;
    }

    /// A new handshake is done; `resumed` if it went on with an earlier session.
    pub(crate) fn shook_hands(&mut self, now: Duration, resumed: bool) {
        self.tls_done = Some(now);
        self.handshakes += 1;
        self.resumed += u32::from(resumed);
    }

    /// From the intended start to the end: what a user waits, the generator's queue included.
    pub fn latency(&self) -> Duration {
        self.finished.saturating_sub(self.intended)
    }

    /// From the real start to the end.
    pub fn service(&self) -> Duration {
        self.finished.saturating_sub(self.started)
    }

    /// How late the generator itself was; `None` if it was not the cause.
    pub fn lateness(&self) -> Option<Duration> {
        (!self.held_back).then(|| self.started.saturating_sub(self.intended))
    }

    /// How long it took to establish a TCP connection.
    pub fn connect(&self) -> Option<Duration> {
        Some(self.connected?.saturating_sub(self.attempted))
    }

    /// How long a TLS handshake took, or the whole handshake of QUIC.
    pub fn tls(&self) -> Option<Duration> {
        let begin = self.connected.unwrap_or(self.attempted);
        Some(self.tls_done?.saturating_sub(begin))
    }

    /// From the moment when the request could be sent to the first byte of the answer.
    pub fn first_byte(&self) -> Option<Duration> {
        let begin = self.tls_done.or(self.connected).unwrap_or(self.attempted);
        Some(self.first_byte?.saturating_sub(begin))
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was complete and as expected.
    Success,
    /// The request failed.
    Failure(ErrorKind),
}

/// Why a request failed. There are few kinds, so that counting by kind is bounded: a peer chooses the codes,
/// not the kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// No server listens there, or the network refuses.
    ConnectRefused,
    /// No connection within the time for it.
    ConnectTimeout,
    /// The connection could not be made for another reason (no route, no free port, no descriptor).
    ConnectFailed,
    /// The handshake failed: certificate, ALPN, version, alert.
    Tls,
    /// The connection or the stream was reset under way.
    Reset,
    /// The peer closed before the answer began.
    Closed,
    /// The answer ended before it was whole.
    ShortBody,
    /// The bytes are not a message of the protocol.
    Protocol,
    /// The deadline of the request passed.
    Deadline,
    /// An HTTP status that is not among the expected.
    Status(u16),
    /// A gRPC status other than OK.
    Grpc(u8),
    /// The body is not the one that was expected.
    UnexpectedBody,
    /// A header that was expected is missing or different.
    UnexpectedHeader,
    /// `--max-in-flight` was reached: the request was due and never sent.
    Unsent,
    /// The run and its grace ended before the answer came.
    OpenAtEnd,
    /// Anything else of the operating system.
    Io,
}

impl ErrorKind {
    /// Whether the request ran out of time, so that its age is a lower bound of its latency. Such failures
    /// count in the latency: leaving them out would make a hanging server look fast.
    pub fn is_lower_bound(self) -> bool {
        matches!(
            self,
            Self::ConnectTimeout | Self::Deadline | Self::OpenAtEnd
        )
    }

    /// Reads what [`token`](Self::token) gave.
    pub fn from_token(token: &str) -> Option<Self> {
        if let Some(code) = token.strip_prefix("status_") {
            return code.parse().ok().map(Self::Status);
        }
        if let Some(code) = token.strip_prefix("grpc_") {
            return code.parse().ok().map(Self::Grpc);
        }
        let plain = [
            Self::ConnectRefused,
            Self::ConnectTimeout,
            Self::ConnectFailed,
            Self::Tls,
            Self::Reset,
            Self::Closed,
            Self::ShortBody,
            Self::Protocol,
            Self::Deadline,
            Self::UnexpectedBody,
            Self::UnexpectedHeader,
            Self::Unsent,
            Self::OpenAtEnd,
            Self::Io,
        ];
        plain.into_iter().find(|kind| kind.token() == token)
    }

    /// The token in JSON, stable; codes are part of it (`status_503`, `grpc_14`).
    pub fn token(self) -> String {
        match self {
            Self::ConnectRefused => "connect_refused".into(),
            Self::ConnectTimeout => "connect_timeout".into(),
            Self::ConnectFailed => "connect_failed".into(),
            Self::Tls => "tls".into(),
            Self::Reset => "reset".into(),
            Self::Closed => "closed".into(),
            Self::ShortBody => "short_body".into(),
            Self::Protocol => "protocol".into(),
            Self::Deadline => "deadline".into(),
            Self::Status(code) => format!("status_{code}"),
            Self::Grpc(code) => format!("grpc_{code}"),
            Self::UnexpectedBody => "unexpected_body".into(),
            Self::UnexpectedHeader => "unexpected_header".into(),
            Self::Unsent => "unsent".into(),
            Self::OpenAtEnd => "open_at_end".into(),
            Self::Io => "io".into(),
        }
    }
}

/// As people read it.
impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectRefused => f.write_str("connection refused"),
            Self::ConnectTimeout => f.write_str("connecting took too long"),
            Self::ConnectFailed => f.write_str("connection failed"),
            Self::Tls => f.write_str("TLS handshake failed"),
            Self::Reset => f.write_str("reset by the peer"),
            Self::Closed => f.write_str("closed before the answer"),
            Self::ShortBody => f.write_str("body cut short"),
            Self::Protocol => f.write_str("not a message of the protocol"),
            Self::Deadline => f.write_str("deadline passed"),
            Self::Status(code) => write!(f, "HTTP status {code}"),
            Self::Grpc(code) => write!(f, "gRPC status {code}"),
            Self::UnexpectedBody => f.write_str("unexpected body"),
            Self::UnexpectedHeader => f.write_str("unexpected header"),
            Self::Unsent => f.write_str("unsent: --max-in-flight reached"),
            Self::OpenAtEnd => f.write_str("still open at the end"),
            Self::Io => f.write_str("error of the operating system"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn latency_counts_from_the_intended_start_and_service_from_the_real_one() {
        let sample = Sample {
            finished: at(150),
            ..Sample::begin(at(100), at(130))
        };
        assert_eq!(sample.latency(), at(50));
        assert_eq!(sample.service(), at(20));
        assert_eq!(sample.lateness(), Some(at(30)));
    }

    #[test]
    fn phases_follow_each_other_without_overlap() {
        let sample = Sample {
            connected: Some(at(3)),
            tls_done: Some(at(8)),
            first_byte: Some(at(20)),
            finished: at(21),
            ..Sample::begin(at(0), at(1))
        };
        assert_eq!(sample.connect(), Some(at(2)));
        assert_eq!(sample.tls(), Some(at(5)));
        assert_eq!(sample.first_byte(), Some(at(12)));
    }

    #[test]
    fn what_is_sent_again_keeps_its_age_and_has_the_phases_of_its_last_attempt() {
        let mut sample = Sample {
            connected: Some(at(2)),
            first_byte: Some(at(3)),
            ..Sample::begin(at(0), at(1))
        };
        sample.shook_hands(at(3), true);
        sample.resend(at(10));
        assert_eq!((sample.connect(), sample.tls()), (None, None));
        assert_eq!(sample.first_byte(), None);
        sample.connected = Some(at(14));
        sample.shook_hands(at(16), false);
        sample.first_byte = Some(at(17));
        sample.finished = at(20);
        assert_eq!(sample.connect(), Some(at(4)));
        assert_eq!(sample.tls(), Some(at(2)));
        assert_eq!(sample.first_byte(), Some(at(1)));
        assert_eq!((sample.latency(), sample.service()), (at(20), at(19)));
        assert_eq!(
            (sample.resent, sample.handshakes, sample.resumed),
            (1, 2, 1)
        );
    }

    #[test]
    fn a_request_on_a_kept_connection_has_no_connect_and_no_tls_phase() {
        let sample = Sample {
            first_byte: Some(at(7)),
            ..Sample::begin(at(5), at(5))
        };
        assert_eq!(sample.connect(), None);
        assert_eq!(sample.tls(), None);
        assert_eq!(sample.first_byte(), Some(at(2)));
    }

    #[test]
    fn tokens_read_back_and_unknown_ones_do_not() {
        for kind in [
            ErrorKind::Status(503),
            ErrorKind::Grpc(14),
            ErrorKind::OpenAtEnd,
            ErrorKind::Io,
        ] {
            assert_eq!(ErrorKind::from_token(&kind.token()), Some(kind));
        }
        assert_eq!(ErrorKind::from_token("status_x"), None);
    }

    #[test]
    fn a_request_held_back_by_the_bound_is_not_the_generators_fault() {
        assert_eq!(Sample::unsent(at(10), at(900)).lateness(), None);
    }
}
