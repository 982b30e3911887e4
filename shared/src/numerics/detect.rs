//! Which format quantizer attributes describe (modelopt.md §6.3, "Format detection").

use super::{Axis, BlockSizes, Format, NumBits, Nvfp4Scales, QuantizerAttributes, Side};

const E4M3: NumBits = NumBits::Float(4, 3);
const E3M2: NumBits = NumBits::Float(3, 2);
const E2M1: NumBits = NumBits::Float(2, 1);
const E8M0: NumBits = NumBits::Float(8, 0);

impl Format {
    /// The format that a sequence of quantizers describes, `None` where there is no codec for it.
    pub fn of_sequence(sequence: &[QuantizerAttributes], side: Side) -> Option<Self> {
        match sequence {
            [one] => Self::of(one, side),
            [first, second] if side == Side::Weight => {
                match (Self::of(first, side)?, Self::of(second, side)?) {
                    (Self::Int4 { block }, Self::Fp8) => Some(Self::Int4Fp8 { block }),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// The format that quantizer attributes describe, `None` where there is no codec for it.
    pub fn of(attributes: &QuantizerAttributes, side: Side) -> Option<Self> {
        let is_odd = attributes.backend.value().is_some()
            || attributes.unsigned.unwrap_or(false)
            || attributes.narrow_range.unwrap_or(false);
        if is_odd {
            return None;
        }
        let bits = attributes.num_bits();
        let axis = attributes.axis.value();
        let format = match attributes.block_sizes.value() {
            None if attributes.is_dynamic() => None,
            None => of_tensor(&bits, axis, side),
            Some(_) if axis.is_some() => None,
            Some(blocks) if attributes.is_dynamic() => of_token(&bits, blocks, side),
            Some(blocks) => of_blocks(&bits, blocks, side),
        };
        format.filter(|format| format.is_for(side))
    }
}

fn of_tensor(bits: &NumBits, axis: Option<&Axis>, side: Side) -> Option<Format> {
    let by_row = match axis {
        None => false,
        Some(Axis::One(0)) if side == Side::Weight => true,
        Some(_) => return None,
    };
    match (bits, by_row) {
        (&E4M3, false) => Some(Format::Fp8),
        (&E4M3, true) => Some(Format::Fp8Channel),
        (NumBits::Integer(8), false) => Some(Format::Int8),
        (NumBits::Integer(8), true) => Some(Format::Int8Channel),
        _ => None,
    }
}

/// `type: dynamic` with one block over the whole last axis: each token's own scale.
fn of_token(bits: &NumBits, blocks: &BlockSizes, side: Side) -> Option<Format> {
    let whole_rows = blocks.axes.len() == 1 && blocks.axes.get(&-1) == Some(&None);
    (whole_rows && side == Side::Activation && *bits == E4M3).then_some(Format::Fp8Token)
}

fn of_blocks(bits: &NumBits, blocks: &BlockSizes, side: Side) -> Option<Format> {
    if let Some(block) = square(blocks) {
        let plain = blocks.scale_bits.is_none() && !blocks.is_dynamic() && side == Side::Weight;
        return (plain && *bits == E4M3).then_some(Format::Fp8Block { block });
    }
    let block = u32::try_from(blocks.along_last()?).ok()?;
    if let Some(nested) = &blocks.scale_block_sizes {
        let is_nf4 = block == 64
            && *bits == NumBits::Integer(4)
            && blocks.scale_bits == Some(NumBits::Integer(8))
            && nested.len() == 1
            && nested.get(&-1) == Some(&256);
        return is_nf4.then_some(Format::Nf4);
    }
    match (bits, blocks.scale_bits.as_ref()) {
        (NumBits::Integer(4), None) if !blocks.is_dynamic() => Some(Format::Int4 { block }),
        (&E2M1, Some(&E4M3)) if matches!(block, 16 | 32) => {
            let scales = match (blocks.is_dynamic(), blocks.is_four_over_six()) {
                (true, false) => Nvfp4Scales::Dynamic,
                (false, false) => Nvfp4Scales::Static,
                (false, true) => Nvfp4Scales::FourOverSix,
                (true, true) => return None,
            };
            Some(Format::Nvfp4 { block, scales })
        }
        (bits, Some(&E8M0)) if block == 32 && blocks.is_dynamic() => match bits {
            &E2M1 => Some(Format::Mxfp4),
            &E3M2 => Some(Format::Mxfp6),
            &E4M3 => Some(Format::Mxfp8),
            NumBits::Integer(8) => Some(Format::Mxint8),
            _ => None,
        },
        _ => None,
    }
}

fn square(blocks: &BlockSizes) -> Option<u32> {
    match (blocks.axes.get(&-1), blocks.axes.get(&-2), blocks.axes.len()) {
        (Some(&Some(across)), Some(&Some(down)), 2) if across == down && across > 0 => {
            u32::try_from(across).ok()
        }
        _ => None,
    }
}
