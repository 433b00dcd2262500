//! One file per subcommand: reads its flags, calls the crate that does the work, prints.

pub mod ca;
pub mod change;
pub mod check;
pub mod completion;
pub mod config;
pub mod demo;
mod effective;
pub mod endpoints;
pub mod explain;
pub mod get;
pub mod import;
pub mod lab;
pub mod load;
pub mod login;
pub mod logout;
pub mod man;
pub mod proxy;
pub mod routes;
pub mod stat;
pub mod version;
pub mod why;
