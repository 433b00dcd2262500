//! Faults that a policy injects on purpose, to test how callers handle them. Pure.

use std::time::Duration;

use rand::{Rng, RngExt};
use weft_config::table::{Fault, FaultStatus, GrpcCode, Percent};

use crate::failure::{Failure, Reason};

/// The faults of one request, drawn independently.
pub(crate) struct Drawn {
    /// It is delayed by this time.
    pub(crate) delay: Option<Duration>,
    /// It gets this answer, and is not sent.
    pub(crate) abort: Option<Failure>,
}

/// Draws the faults of one request.
pub(crate) fn draw(fault: &Fault, random: &mut impl Rng) -> Drawn {
    let delay = fault.delay.as_ref();
    let delay = delay.filter(|delay| happens(delay.percent, random));
    let delay = delay.map(|delay| delay.duration);
    let abort = fault.abort.as_ref();
    let abort = abort.filter(|abort| happens(abort.percent, random));
    Drawn {
        delay,
        abort: abort.map(|abort| failure(abort.with)),
    }
}

fn happens(percent: Percent, random: &mut impl Rng) -> bool {
    random.random_range(0..10_000) < percent.hundredths()
}

fn failure(status: FaultStatus) -> Failure {
    let (status, grpc) = match status {
        FaultStatus::Http(status) => (status, grpc_code(status)),
        FaultStatus::Grpc(code) => (http_status(code), code.number()),
    };
    Failure::new(
        Reason::Injected { status, grpc },
        "a traffic policy injects this failure",
    )
}

/// grpc/doc/http-grpc-status-mapping.md.
fn grpc_code(status: u16) -> u8 {
    let code = match status {
        400 => GrpcCode::Internal,
        401 => GrpcCode::Unauthenticated,
        403 => GrpcCode::PermissionDenied,
        404 => GrpcCode::Unimplemented,
        429 | 502 | 503 | 504 => GrpcCode::Unavailable,
        _ => GrpcCode::Unknown,
    };
    code.number()
}

/// google/rpc/code.proto, which names an HTTP status for each code.
fn http_status(code: GrpcCode) -> u16 {
    match code {
        GrpcCode::Cancelled => 499,
        GrpcCode::InvalidArgument | GrpcCode::FailedPrecondition | GrpcCode::OutOfRange => 400,
        GrpcCode::DeadlineExceeded => 504,
        GrpcCode::NotFound => 404,
        GrpcCode::AlreadyExists | GrpcCode::Aborted => 409,
        GrpcCode::PermissionDenied => 403,
        GrpcCode::ResourceExhausted => 429,
        GrpcCode::Unimplemented => 501,
        GrpcCode::Unavailable => 503,
        GrpcCode::Unauthenticated => 401,
        GrpcCode::Unknown | GrpcCode::Internal | GrpcCode::DataLoss => 500,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use weft_config::table::{FaultAbort, FaultDelay};

    use super::*;

    #[test]
    fn so_many_percent_of_requests_meet_each_fault() {
        let fault = Fault {
            delay: Some(FaultDelay {
                percent: Percent::whole(10),
                duration: Duration::from_secs(1),
            }),
            abort: Some(FaultAbort {
                percent: Percent::whole(50),
                with: FaultStatus::Http(503),
            }),
        };
        let mut random = StdRng::seed_from_u64(1);
        let drawn: Vec<_> = (0..10_000).map(|_| draw(&fault, &mut random)).collect();
        let delayed = drawn.iter().filter(|one| one.delay.is_some()).count();
        let aborted = drawn.iter().filter(|one| one.abort.is_some()).count();
        assert!((900..1100).contains(&delayed), "{delayed}");
        assert!((4800..5200).contains(&aborted), "{aborted}");
        let none = draw(&Fault::default(), &mut random);
        assert!(none.delay.is_none() && none.abort.is_none());
    }

    #[test]
    fn an_abort_is_said_in_the_language_of_the_request() {
        let reason = |status| failure(status).reason;
        let by_http = reason(FaultStatus::Http(503));
        assert_eq!((by_http.status().as_u16(), by_http.grpc_code()), (503, 14));
        let by_grpc = reason(FaultStatus::Grpc(GrpcCode::ResourceExhausted));
        assert_eq!((by_grpc.status().as_u16(), by_grpc.grpc_code()), (429, 8));
    }
}
