//! Reports of runs. Pure: outcomes in, text out.
//!
//! `text.rs` is for a terminal, `junit.rs` for CI, `html.rs` for a browser (one file, nothing
//! fetched), with `figures.rs` and `plot.rs` for its pictures. JSON is the outcome itself.

mod figures;
mod html;
mod junit;
mod plot;
mod text;

pub use figures::svg;
pub use html::html;
pub use junit::junit;
pub use text::{matrix, repeated, text};
