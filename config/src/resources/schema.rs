//! How values of resources are described, for the reference pages of `docs/resources`. The types derive the
//! rest; `config/tests/documentation/` writes the pages and checks them.
//!
//! Keys beyond those of JSON Schema, all of them texts for people: `x-type` (what is written), `x-range`
//! (what is accepted), `x-default` (what holds where nothing is written, if the code has no value for that).

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::traffic::{Size, Span};
use crate::table::{GrpcCode, HashKey, HedgeAfter, IdentityPattern, PathPattern, Percent};
use weft_transport::units::{format_bytes, format_duration};

/// An identity of a workload, which [`weft_transport::identity::SpiffeId`] parses.
pub(super) struct Identity;

pub(super) fn numbers<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("{} to {}", range.start(), range.end())
}

pub(super) fn durations(range: &RangeInclusive<Duration>) -> String {
    let (least, most) = (
        format_duration(*range.start()),
        format_duration(*range.end()),
    );
    format!("{least} to {most}")
}

/// Of a duration that zero switches off.
pub(super) fn durations_or_zero(range: &RangeInclusive<Duration>) -> String {
    format!("{}, or 0s", durations(range))
}

pub(super) fn sizes(range: &RangeInclusive<u32>) -> String {
    format!(
        "{} to {}",
        format_bytes((*range.start()).into()),
        format_bytes((*range.end()).into())
    )
}

/// Of a list that may be empty.
pub(super) fn up_to(most: usize) -> String {
    format!("up to {most}")
}

/// Of a list that may not.
pub(super) fn some(most: usize) -> String {
    format!("1 to {most}")
}

/// A default that is not written, because it is the default.
pub(super) fn word<T: serde::Serialize>(value: T) -> String {
    // A word of an enumeration: this cannot fail.
    let value = serde_json::to_value(value).unwrap_or_default();
    format!("`{}`", value.as_str().unwrap_or_default())
}

/// Describes types that are written as one word.
macro_rules! written_as {
    ($($name:ident: $kind:literal, $range:expr;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "x-type": $kind, "x-range": $range })
            }
        }
    )*};
}

written_as! {
    Identity: "identity", "`spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`";
    IdentityPattern: "identity", "`spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, or with `/*` at its end";
    Span: "duration", "";
    Size: "size", "";
    Percent: "percent", "0 to 100";
    PathPattern: "path", "`/PATH`, or `/PATH/*`";
    HashKey: "mapping or word", "`{ header: NAME }`, `{ cookie: NAME }` or `source`";
    HedgeAfter: "duration or percentile", hedge_range();
    GrpcCode: "gRPC status", GrpcCode::ALL.map(|code| format!("`{}`", code.as_str())).join(", ");
}

fn hedge_range() -> String {
    use crate::limits::traffic::{HEDGE_AFTER_RANGE, HEDGE_PERCENTILE_RANGE};
    let (least, most) = (HEDGE_PERCENTILE_RANGE.start(), HEDGE_PERCENTILE_RANGE.end());
    format!("{}, or p{least} to p{most}", durations(&HEDGE_AFTER_RANGE))
}
