//! The kernels as they are committed: real code for the generations that are served, PTX for those to come.
//!
//! `worker/kernels/run.sh` makes them from the CUDA C beside it, and CI compares.

/// Kernels in a form that a driver takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    /// Code of one generation.
    Cubin(&'static [u8]),
    /// What the driver compiles itself.
    Ptx(&'static str),
}

macro_rules! built {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/built/", $name))
    };
}

const SM_80: &[u8] = built!("sm_80.cubin");
const SM_89: &[u8] = built!("sm_89.cubin");
const SM_90A: &[u8] = built!("sm_90a.cubin");
const SM_100A: &[u8] = built!("sm_100a.cubin");
const SM_120A: &[u8] = built!("sm_120a.cubin");
const PTX: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/built/kernels.ptx"));

/// The kernels for a GPU of this compute capability; `None` where it is too old.
///
/// Code for 8.0 runs on every 8.x, code with an `a` on its own generation alone.
pub(super) fn image((major, minor): (i32, i32)) -> Option<Image> {
    match (major, minor) {
        (..8, _) => None,
        (8, 9) => Some(Image::Cubin(SM_89)),
        (8, _) => Some(Image::Cubin(SM_80)),
        (9, 0) => Some(Image::Cubin(SM_90A)),
        (10, 0) => Some(Image::Cubin(SM_100A)),
        (12, 0) => Some(Image::Cubin(SM_120A)),
        _ => Some(Image::Ptx(PTX)),
    }
}

/// Kernels that exist for each type that models compute in.
pub(super) const NAMES: [&str; 42] = [
    "activate",
    "add",
    "attention_quotients",
    "attention_weights",
    "channels",
    "comparison",
    "dequantize_fp8_runs",
    "dequantize_int4_pairs",
    "dequantize_int8_runs",
    "dequantize_mxfp4",
    "dequantize_mxfp6",
    "dequantize_mxfp8",
    "dequantize_mxint8",
    "dequantize_nf4",
    "dequantize_nvfp4",
    "gather",
    "gram",
    "likelihood",
    "magnitude",
    "quantize_fp8",
    "quantize_fp8_runs",
    "quantize_int4_pairs",
    "quantize_int8_runs",
    "quantize_mxfp4",
    "quantize_mxfp6",
    "quantize_mxfp8",
    "quantize_mxint8",
    "quantize_nf4",
    "quantize_nvfp4",
    "quantize_nvfp4_fixed",
    "rms_norm",
    "rotate",
    "scale_channels",
    "scatter_add",
    "simulate_fp8",
    "simulate_fp8_rows",
    "simulate_int8",
    "simulate_mxfp4",
    "simulate_mxfp6",
    "simulate_mxfp8",
    "simulate_mxint8",
    "simulate_nvfp4",
];

/// Endings of their names.
pub(super) const TYPES: [&str; 3] = ["f32", "bf16", "f16"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_every_image() {
        for name in NAMES {
            for kind in TYPES {
                let kernel = format!("{name}_{kind}");
                assert!(PTX.contains(&format!(".entry {kernel}(")), "{kernel} is not in the PTX");
                for (target, cubin) in
                    [("80", SM_80), ("89", SM_89), ("90a", SM_90A), ("100a", SM_100A), ("120a", SM_120A)]
                {
                    let found = cubin.windows(kernel.len()).any(|window| window == kernel.as_bytes());
                    assert!(found, "{kernel} is not in the code for sm_{target}");
                }
            }
        }
    }

    #[test]
    fn every_generation_gets_code_that_runs_on_it() {
        assert_eq!(image((7, 5)), None);
        assert_eq!(image((8, 6)), Some(Image::Cubin(SM_80)));
        assert_eq!(image((8, 9)), Some(Image::Cubin(SM_89)));
        assert_eq!(image((9, 0)), Some(Image::Cubin(SM_90A)));
        assert!(matches!(image((10, 3)), Some(Image::Ptx(_))), "code for 10.0a runs on 10.0 alone");
        assert!(matches!(image((13, 0)), Some(Image::Ptx(_))));
    }
}
