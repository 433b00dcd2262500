//! What impairs the packets of a lab's links: the kernel's `tc netem`, or the emulator.

/// What a lab's links should be made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The kernel's netem where it exists and can do what the topology asks for, else the emulator.
    #[default]
    Auto,
    /// The emulator: everything that this crate knows, and drops that repeat with the seed.
    Emulator,
    /// The kernel's netem, or nothing.
    Netem,
}
