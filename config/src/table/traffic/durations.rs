//! Durations of a table: whole milliseconds, as they are written. One that is finer would be another after a
//! restart, which reads what was written: half a millisecond would be none at all. Pure.

use std::time::Duration;

use serde::de::Error;
use weft_transport::units;

/// One that is there.
pub(super) mod duration {
    use std::time::Duration;

    use serde::Deserializer;
    use weft_transport::units;

    pub(in super::super) use units::duration::serialize;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Duration, D::Error> {
        super::whole(units::duration::deserialize(from)?)
    }
}

/// One that may be there.
pub(in crate::table) mod optional_duration {
    use std::time::Duration;

    use serde::Deserializer;
    use weft_transport::units;

    pub(in crate::table) use units::optional_duration::serialize;

    pub(in crate::table) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let duration = units::optional_duration::deserialize(from)?;
        duration.map(super::whole).transpose()
    }
}

fn whole<E: Error>(duration: Duration) -> Result<Duration, E> {
    if duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Ok(duration);
    }
    let about = units::format_duration(duration);
    Err(E::custom(format!(
        "a duration of about {about} is finer than a millisecond: write whole milliseconds"
    )))
}
