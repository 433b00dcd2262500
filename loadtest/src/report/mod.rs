//! The forms in which a result is shown: to people at a terminal (`text.rs`), in a browser (`html.rs`), to
//! other tools (`hdr_log.rs`). The contents of a result are in `result/`.

pub mod hdr_log;
pub mod html;
pub mod series;
pub mod text;

#[cfg(test)]
pub(crate) mod testing;
