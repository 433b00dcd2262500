//! One file per subcommand: reads its flags, calls the crate that does the work, prints.

pub mod ca;
pub mod check;
pub mod completion;
pub mod proxy;
pub mod version;
