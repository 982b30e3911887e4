//! Values to measure with.

use qlaunch_shared::Result;
use qlaunch_worker::tensor::DType;
use qlaunch_worker::tensor::host::HostTensor;

/// The same values between `-size` and `size` in each run.
///
/// # Errors
/// The type holds no real numbers.
pub fn noise(dtype: DType, shape: &[usize], size: f32) -> Result<HostTensor> {
    let mut state = 0x2545_f491u32;
    let values = (0..shape.iter().product()).map(|_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * size
    });
    HostTensor::new(shape, values.collect::<Vec<f32>>())?.view().cast(dtype)
}
