//! Numeric paths of CPUs: which bits a run gets, by name.

use qlaunch_shared::{Error, Result};

use crate::tensor::simd::InstructionSet;

/// A way of multiplying and adding that gives the same bits on every CPU that has it.
///
/// Paths differ in matrix products alone: all other operations give the same bits on each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NumericPath {
    /// Product, then sum, each rounded: what any CPU can do.
    Portable,
    /// Fused multiply-add in `f32`; narrower types are widened first.
    Avx2,
    /// As [`NumericPath::Avx2`], but bf16 matrices are multiplied by `VDPBF16PS`: pairs of products, no subnormals.
    Avx512Bf16,
}

impl NumericPath {
    /// Every path, most portable first.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512Bf16];

    /// The fastest path of this CPU.
    pub fn detect() -> Self {
        Self::ALL
            .into_iter()
            .rev()
            .find(|path| path.is_available())
            .unwrap_or(Self::Portable)
    }

    /// Its name in specifications and outcomes: `avx512bf16`, `avx2` or `portable`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512Bf16 => "avx512bf16",
        }
    }

    /// The path of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|path| path.name() == name)
            .ok_or_else(|| {
                Error::usage(format!("no CPU numeric path is called `{name}`"))
                    .hint("paths are `avx512bf16`, `avx2` and `portable`")
            })
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                is_x86_feature_detected!("avx512bf16")
                    && InstructionSet::detect() > InstructionSet::detect().at_most_avx2()
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512Bf16 => false,
        }
    }

    /// Refuses a path that this CPU lacks.
    ///
    /// # Errors
    /// Names the path and the one that would work.
    pub fn require(self) -> Result<Self> {
        if self.is_available() {
            return Ok(self);
        }
        Err(Error::input(format!(
            "this CPU lacks the instructions of the numeric path `{}`",
            self.name()
        ))
        .hint(format!(
            "run on a node that has them, or start a new run on `{}`",
            Self::detect().name()
        )))
    }

    /// The instructions for loops whose bits do not depend on them.
    ///
    /// The portable path keeps to what every CPU has, so that a test on a large machine runs the code of a small one.
    pub(crate) fn instruction_set(self) -> InstructionSet {
        match self {
            Self::Portable => InstructionSet::BASELINE,
            Self::Avx2 | Self::Avx512Bf16 => InstructionSet::detect(),
        }
    }
}

impl std::fmt::Display for NumericPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_paths() {
        for path in NumericPath::ALL {
            assert_eq!(NumericPath::parse(path.name()).unwrap(), path);
        }
        assert_eq!(NumericPath::parse("avx9").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn the_detected_path_is_available_and_no_better_one_is() {
        let detected = NumericPath::detect();
        assert_eq!(detected.require().unwrap(), detected);
        for path in NumericPath::ALL.into_iter().filter(|path| *path > detected) {
            assert!(path.require().unwrap_err().message.contains(path.name()));
        }
    }
}
