//! Where the time of a request went on the serving side: the field `weft-time` of its answer, which the
//! calling sidecar reads and takes off. Durations, as the clocks of two hosts differ. Pure.

use std::io::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits;

/// `application, sidecar`, in microseconds.
pub(crate) const WEFT_TIME: HeaderName = HeaderName::from_static("weft-time");

/// See the module. Longer than an hour counts as 4,295 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServingTime {
    application: u32,
    sidecar: u32,
}

impl ServingTime {
    /// The application took so long from the request to the head of its answer, and the sidecar so long
    /// before and after.
    pub(crate) fn new(application: Duration, sidecar: Duration) -> Self {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self {
            application: micros(application),
            sidecar: micros(sidecar),
        }
    }

    /// What the application took.
    pub(crate) fn application(self) -> Duration {
        Duration::from_micros(self.application.into())
    }

    /// What the sidecar took.
    pub(crate) fn sidecar(self) -> Duration {
        Duration::from_micros(self.sidecar.into())
    }

    /// Writes it into an answer.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let mut text = [0; limits::WEFT_TIME_BYTES_MAX];
        let mut rest = &mut text[..];
        if write!(rest, "{}, {}", self.application, self.sidecar).is_err() {
            return;
        }
        let left = rest.len();
        if let Ok(value) = HeaderValue::from_bytes(&text[..limits::WEFT_TIME_BYTES_MAX - left]) {
            headers.insert(WEFT_TIME, value);
        }
    }

    /// What an answer says. A field that says something else is none.
    pub(crate) fn told(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(WEFT_TIME)?.to_str().ok()?;
        let (application, sidecar) = text.split_once(", ")?;
        Some(Self {
            application: application.parse().ok()?,
            sidecar: sidecar.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &'static str) -> Option<ServingTime> {
        let value = HeaderValue::from_static(text);
        ServingTime::told(&HeaderMap::from_iter([(WEFT_TIME, value)]))
    }

    #[test]
    fn what_is_told_is_read_back_however_long_it_took() {
        for (application, sidecar) in [(0, 0), (1_234, 56), (u64::MAX, u64::MAX)] {
            let time = ServingTime::new(
                Duration::from_micros(application),
                Duration::from_micros(sidecar),
            );
            let mut headers = HeaderMap::new();
            time.tell(&mut headers);
            assert_eq!(ServingTime::told(&headers), Some(time));
        }
    }

    #[test]
    fn what_is_no_time_tells_nothing() {
        for text in ["", "1", "1,2", "-1, 2", "1, 2, 3", "4294967296, 1", "a, b"] {
            assert_eq!(told(text), None, "{text}");
        }
        assert_eq!(ServingTime::told(&HeaderMap::new()), None);
    }
}
