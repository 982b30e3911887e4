//! What CUDA says, in words with a remedy.

use cudarc::cublaslt::result::CublasError;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use qlaunch_shared::Error;

/// A failure of the driver.
pub(super) fn driver(doing: &str, error: DriverError) -> Error {
    let failure = Error::input(format!("the GPU could not {doing}: {error}"));
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => failure
            .hint("give `--batch-size 1`, use more ranks, or a GPU with more free memory (`nvidia-smi`)"),
        CUresult::CUDA_ERROR_NO_DEVICE | CUresult::CUDA_ERROR_INVALID_DEVICE => {
            failure.hint("`qlaunch doctor` shows what was found; `--device cpu` goes on without a GPU")
        }
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => failure
            .hint("GPUs from compute capability 8.0 on are served, with a driver of CUDA 12.8 or newer"),
        _ => failure.hint("`--device cpu` goes on without the GPU"),
    }
}

/// A failure of cuBLASLt.
pub(super) fn blas(doing: &str, error: CublasError) -> Error {
    Error::input(format!("cuBLASLt could not {doing}: {error}"))
        .hint("`--device cpu` goes on without the GPU")
}
