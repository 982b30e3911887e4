//! Numeric paths on this CPU: which of them it has, and which instructions they allow.

use qlaunch_shared::protocol::NumericPath;
use qlaunch_shared::{Error, Result};

use crate::tensor::simd::InstructionSet;

/// What this CPU makes of a numeric path.
///
/// Paths differ in matrix products alone: all other operations give the same bits on each of them.
pub trait CpuPath: Sized {
    /// The fastest path of this CPU.
    fn detect() -> Self;

    /// Whether this CPU has it.
    fn available(self) -> bool;

    /// What a host computes with beside a GPU. A GPU's path fixes the bits of that too, so it is the same on all hosts.
    fn beside_gpu() -> Self;

    /// Refuses a path that this CPU lacks.
    ///
    /// # Errors
    /// Names the path and the one that would work.
    fn require(self) -> Result<Self>;
}

impl CpuPath for NumericPath {
    fn detect() -> Self {
        // Fastest first.
        Self::CPU.into_iter().find(|path| path.available()).unwrap_or(Self::Portable)
    }

    fn available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::CudaSm80 | Self::CudaSm89 | Self::CudaSm90 | Self::CudaSm100 | Self::CudaSm120 => false,
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

    fn beside_gpu() -> Self {
        if cfg!(target_arch = "x86_64") { Self::Avx2 } else { Self::Portable }
    }

    fn require(self) -> Result<Self> {
        if self.available() {
            return Ok(self);
        }
        Err(Error::input(format!("this CPU lacks the instructions of the numeric path `{self}`"))
            .hint(format!("run on a node that has them, or start a new run on `{}`", Self::detect())))
    }
}

/// The instructions for loops whose bits do not depend on them.
///
/// The portable path keeps to what every CPU has, so that a test on a large machine runs the code of a small one.
pub(super) fn instruction_set(path: NumericPath) -> InstructionSet {
    match path {
        NumericPath::Portable => InstructionSet::BASELINE,
        _ => InstructionSet::detect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_path_is_available_and_no_faster_one_is() {
        let detected = NumericPath::detect();
        assert_eq!(detected.require().unwrap(), detected);
        for path in NumericPath::CPU.into_iter().take_while(|path| *path != detected) {
            assert!(path.require().unwrap_err().message.contains(path.name()));
        }
    }

    #[test]
    fn a_path_of_gpus_is_none_of_a_cpu() {
        for path in NumericPath::GPU {
            assert!(path.require().unwrap_err().message.contains(path.name()));
        }
    }
}
