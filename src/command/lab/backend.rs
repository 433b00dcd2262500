//! `--backend`: what impairs the packets of a lab.

use clap::ValueEnum;
use weft_netem_tests::backend::Choice;

/// See [`Choice`].
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum BackendFlag {
    /// The kernel's netem where it exists and can do what the topology asks for, else the emulator
    #[default]
    Auto,
    /// weft's own emulator: every impairment, and drops that repeat with the seed
    Emulator,
    /// The kernel's netem, or nothing
    Netem,
}

impl BackendFlag {
    pub(super) fn choice(self) -> Choice {
        match self {
            Self::Auto => Choice::Auto,
            Self::Emulator => Choice::Emulator,
            Self::Netem => Choice::Netem,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Emulator => "emulator",
            Self::Netem => "netem",
        }
    }
}
