//! Linears with random weights, for tests of algorithms.

use half::bf16;
use qlaunch_shared::assign::{LinearNumerics, Smoothing};
use qlaunch_shared::numerics::Format;

use crate::quantize::LinearWork;
use crate::tensor::host::HostTensor;

/// Numbers between -1 and 1, of which few are large; each seed has its own.
pub(super) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * next() * next()).collect()
}

/// A bf16 linear with these values, under scales of max calibration.
pub(super) fn linear(format: Format, [rows, columns]: [usize; 2], values: &[f32]) -> LinearWork {
    let numerics = LinearNumerics {
        module: 0,
        name: "linear".to_owned(),
        weight: format,
        input: None,
        smoothing: Smoothing::None,
        low_rank: None,
        shared: None,
    };
    let values: Vec<bf16> = values.iter().map(|value| bf16::from_f32(*value)).collect();
    LinearWork::new(numerics, HostTensor::new([rows, columns], values).unwrap(), None).unwrap()
}

/// A linear with random values, a column of zeros, and a block of zeros at the end.
pub(super) fn random(format: Format, shape @ [rows, columns]: [usize; 2], seed: u64) -> LinearWork {
    let mut values = numbers(rows * columns, seed);
    values.iter_mut().skip(3).step_by(columns).for_each(|value| *value = 0.0);
    let rest = columns - usize::min(32, columns);
    values[(rows - 1) * columns + rest..].fill(0.0);
    linear(format, shape, &values)
}

/// Every format with magnitudes that calibration keeps, in blocks that fit into rows of 64.
pub(super) const FORMATS: [Format; 11] = {
    use qlaunch_shared::numerics::Nvfp4Scales::{Dynamic, FourOverSix, Static, UnderFp8};
    [
        Format::Fp8,
        Format::Fp8Channel,
        Format::Fp8Block { block: 32 },
        Format::Int8,
        Format::Int8Channel,
        Format::Int4 { block: 32 },
        Format::Nvfp4 { block: 16, scales: Dynamic },
        Format::Nvfp4 { block: 32, scales: UnderFp8 },
        Format::Nvfp4 { block: 16, scales: Static },
        Format::Nvfp4 { block: 16, scales: FourOverSix },
        Format::Int4Fp8 { block: 32 },
    ]
};
