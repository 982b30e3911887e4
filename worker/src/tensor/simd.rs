//! Which vector instructions a loop may use, and the macro that compiles one loop for each of them.
//!
//! The loops are plain Rust that the compiler vectorises. None of them contracts `a * b + c` into one rounding, and none
//! lets the vector width choose an order of summation, so an instruction set changes their speed and never their bits.

/// A set of vector instructions that this CPU has.
///
/// Values are made by [`InstructionSet::detect`] alone, so holding one proves that its instructions exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstructionSet(Level);

/// The sets that loops are compiled for, narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// What every CPU of the architecture has.
    Baseline,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl InstructionSet {
    /// What every CPU of the architecture has.
    pub const BASELINE: Self = Self(Level::Baseline);

    /// The widest set of this CPU.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            match (avx2, avx512) {
                (true, true) => return Self(Level::Avx512),
                (true, false) => return Self(Level::Avx2),
                (false, _) => {}
            }
        }
        Self::BASELINE
    }

    /// This set or AVX2, whichever is narrower.
    #[must_use]
    pub fn at_most_avx2(self) -> Self {
        Self(self.0.min(Level::Avx2))
    }

    /// The level, for the dispatch of [`dispatched`].
    pub(crate) const fn level(self) -> Level {
        self.0
    }
}

/// Compiles a function once for each instruction set and calls the one that its first argument names.
///
/// `dispatched! { fn add<E: Element>(left: &[E]) { … } }` makes `fn add<E: Element>(set: InstructionSet, left: &[E])`.
macro_rules! dispatched {
    ($(#[$note:meta])* $visible:vis fn $name:ident $(<$($generic:ident : $bound:path),+>)? (
        $($argument:ident : $kind:ty),* $(,)?
    ) $(-> $result:ty)? $body:block) => {
        $(#[$note])*
        $visible fn $name $(<$($generic: $bound),+>)? (
            set: $crate::tensor::simd::InstructionSet, $($argument: $kind),*
        ) $(-> $result)? {
            #[inline(always)]
            fn body $(<$($generic: $bound),+>)? ($($argument: $kind),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2 $(<$($generic: $bound),+>)? ($($argument: $kind),*) $(-> $result)? {
                body $(::<$($generic),+>)? ($($argument),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512 $(<$($generic: $bound),+>)? ($($argument: $kind),*) $(-> $result)? {
                body $(::<$($generic),+>)? ($($argument),*)
            }

            match set.level() {
                // SAFETY: an `InstructionSet` of this level exists only where the CPU has its instructions.
                #[cfg(target_arch = "x86_64")]
                $crate::tensor::simd::Level::Avx512 => unsafe { avx512 $(::<$($generic),+>)? ($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::tensor::simd::Level::Avx2 => unsafe { avx2 $(::<$($generic),+>)? ($($argument),*) },
                _ => body $(::<$($generic),+>)? ($($argument),*),
            }
        }
    };
}

pub(crate) use dispatched;
