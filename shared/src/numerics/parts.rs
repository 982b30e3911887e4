//! The tensors that store a weight, by format (modelopt.md §6.3; NF4 as bitsandbytes has it).

use super::Format;
use crate::checkpoint::DType;

/// One tensor that a format stores beside or instead of a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Suffix on the module's name: `weight`, `weight_scale`, ….
    pub suffix: &'static str,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
}

/// Scales of NF4 that share a scale of their own.
pub const NF4_NESTED_BLOCK: usize = 256;

pub(super) fn weight_parts(format: Format, rows: usize, columns: usize, dtype: DType) -> Vec<StoredPart> {
    let part = |suffix, dtype, shape| StoredPart { suffix, dtype, shape };
    let block = format.block().unwrap_or(1);
    let codes = |dtype| part("weight", dtype, vec![rows, columns]);
    let pairs = || part("weight", DType::U8, vec![rows, columns / 2]);
    let pairs_of_rows = || part("weight", DType::U8, vec![rows / 2, columns]);
    let scalar = |suffix| part(suffix, DType::F32, vec![]);
    let by_row = || part("weight_scale", DType::F32, vec![rows]);
    let by_block = |dtype| part("weight_scale", dtype, vec![rows, columns / block]);
    match format {
        Format::Fp8 => vec![codes(DType::F8E4M3), scalar("weight_scale")],
        Format::Fp8Channel | Format::Fp8Token => vec![codes(DType::F8E4M3), by_row()],
        Format::Fp8Block { block } => {
            let squares = |side: usize| side.div_ceil(block as usize);
            // ModelOpt squeezes a single square's scale to a scalar.
            let shape = match [squares(rows), squares(columns)] {
                [1, 1] => vec![],
                [down, across] => vec![down, 1, across, 1],
            };
            vec![codes(DType::F8E4M3), part("weight_scale", DType::F32, shape)]
        }
        Format::Int8 => vec![codes(DType::I8), scalar("weight_scale")],
        Format::Int8Channel => vec![codes(DType::I8), by_row()],
        Format::Int4 { .. } => vec![pairs_of_rows(), by_block(DType::F32)],
        Format::Int4Fp8 { .. } => vec![pairs_of_rows(), by_block(DType::F32), scalar("weight_scale_2")],
        Format::Nvfp4 { .. } => vec![pairs(), by_block(DType::F8E4M3), scalar("weight_scale_2")],
        Format::Mxfp4 => vec![pairs(), by_block(DType::U8)],
        Format::Mxfp8 => vec![codes(DType::F8E4M3), by_block(DType::U8)],
        // No engine loads these: a byte a code, for simulation.
        Format::Mxfp6 | Format::Mxint8 => vec![codes(DType::U8), by_block(DType::U8)],
        Format::Nf4 => nf4_parts(rows * columns, nf4_state_bytes(rows, columns, dtype)),
    }
}

fn nf4_parts(elements: usize, state: usize) -> Vec<StoredPart> {
    let part = |suffix, dtype, shape| StoredPart { suffix, dtype, shape };
    let blocks = elements.div_ceil(64);
    vec![
        part("weight", DType::U8, vec![elements.div_ceil(2), 1]),
        part("weight.absmax", DType::U8, vec![blocks]),
        part("weight.nested_absmax", DType::F32, vec![blocks.div_ceil(NF4_NESTED_BLOCK)]),
        part("weight.nested_quant_map", DType::F32, vec![256]),
        part("weight.quant_map", DType::F32, vec![16]),
        part("weight.quant_state.bitsandbytes__nf4", DType::U8, vec![state]),
    ]
}

/// What bitsandbytes keeps of an NF4 weight as JSON, filled up with blanks to a length that the offset does not change.
pub fn nf4_state(rows: usize, columns: usize, dtype: DType, offset: f64) -> Vec<u8> {
    let mut text = nf4_text(rows, columns, dtype, &format!("{offset:?}")).into_bytes();
    text.resize(nf4_state_bytes(rows, columns, dtype), b' ');
    text
}

fn nf4_state_bytes(rows: usize, columns: usize, dtype: DType) -> usize {
    // The longest decimal of an f64 that Rust writes in scientific or plain form stays below this.
    const LONGEST_NUMBER: usize = 32;
    nf4_text(rows, columns, dtype, "").len() + LONGEST_NUMBER
}

fn nf4_text(rows: usize, columns: usize, dtype: DType, offset: &str) -> String {
    let dtype = match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    };
    format!(
        "{{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"{dtype}\", \"shape\": [{rows}, {columns}], \
         \"nested_blocksize\": {NF4_NESTED_BLOCK}, \"nested_dtype\": \"float32\", \"nested_offset\": {offset}}}"
    )
}
