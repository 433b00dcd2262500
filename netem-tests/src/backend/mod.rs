//! The impairment of packets on a lab's links: by the kernel's `tc netem`, or by the emulator.
//!
//! The emulator does everything; netem costs less CPU per packet if the kernel has it, and does what
//! [`netem::options`] can express. A lab uses one of them for all of its links.

pub mod netem;

use crate::link::Impairment;

/// The requested kind of a lab's links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The kernel's netem if it exists and can do all that the lab asks for, else the emulator.
    #[default]
    Auto,
    /// The emulator.
    Emulator,
    /// The kernel's netem, or nothing.
    Netem,
}

/// The kind that they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// TUN devices and the link model.
    Emulator,
    /// veth pairs and `tc netem`.
    Netem,
}

/// Why netem cannot be used although it was asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The kernel or `tc` has none.
    #[error("this kernel has no netem ({0}): leave the back-end to `auto`")]
    Missing(String),
    /// The kernel's netem lacks a function that the link needs.
    #[error("the kernel's netem cannot do {0}: write `--backend emulator`")]
    Unable(&'static str),
}

impl Choice {
    /// Decides. `wanted` is all that the lab's links shall do, `nat` whether one has NAT; `probe` tests
    /// whether netem exists, and says why not.
    pub fn decide<'a>(
        self,
        wanted: impl IntoIterator<Item = &'a Impairment>,
        nat: bool,
        probe: impl FnOnce() -> Result<(), String>,
    ) -> Result<Backend, Unavailable> {
        if self == Self::Emulator {
            return Ok(Backend::Emulator);
        }
        let unable = wanted
            .into_iter()
            .find_map(|impairment| netem::options(impairment).err())
            .or(nat.then_some("NAT"));
        let found = match unable {
            Some(what) => Err(Unavailable::Unable(what)),
            None => probe().map_err(Unavailable::Missing),
        };
        match (self, found) {
            (_, Ok(())) => Ok(Backend::Netem),
            (Self::Netem, Err(unavailable)) => Err(unavailable),
            (Self::Auto | Self::Emulator, Err(_)) => Ok(Backend::Emulator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn black_hole() -> Impairment {
        Impairment {
            black_hole: Some(1300),
            ..Impairment::default()
        }
    }

    #[test]
    fn netem_is_taken_where_it_exists_and_can_do_everything() {
        let auto = |wanted: &[Impairment], nat, exists: bool| {
            let probe = || exists.then_some(()).ok_or_else(|| "no".to_owned());
            Choice::Auto.decide(wanted, nat, probe)
        };
        let plain = [Impairment::default()];
        assert_eq!(auto(&plain, false, true), Ok(Backend::Netem));
        assert_eq!(auto(&plain, false, false), Ok(Backend::Emulator));
        assert_eq!(auto(&plain, true, true), Ok(Backend::Emulator));
        assert_eq!(auto(&[black_hole()], false, true), Ok(Backend::Emulator));
    }

    #[test]
    fn asking_for_netem_without_it_gives_the_reason() {
        let missing = Choice::Netem.decide(&[], false, || Err("no qdisc".to_owned()));
        assert_eq!(missing, Err(Unavailable::Missing("no qdisc".to_owned())));
        let unable = Choice::Netem.decide(&[black_hole()], false, || Ok(()));
        assert_eq!(unable, Err(Unavailable::Unable("black_hole")));
    }
}
