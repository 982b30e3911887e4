//! Fake quantization: values rounded in place to what a format keeps of them (modelopt.md §3.3-3.6).

use qlaunch_shared::numerics::{Format, Nvfp4Scales};
use qlaunch_shared::{Error, Result};
use rayon::prelude::*;

use super::Magnitudes;
use super::codec::integer::Range;
use super::codec::{Runs, Source, fp8, integer, mx, nf4, nvfp4};

/// Values that one task of the thread pool rounds, in whole rows.
const CHUNK: usize = 1 << 15;

/// Rounds a weight of `[rows, columns]` in place, in f32, to what its format keeps of it: ModelOpt's fake quantization
/// before the cast back to the weight's type. Runs on the caller's thread pool.
///
/// # Errors
/// The magnitudes do not go with the shape.
pub fn simulate_weight(
    weight: &mut [f32],
    [rows, columns]: [usize; 2],
    format: Format,
    magnitudes: &Magnitudes,
) -> Result<()> {
    let expected = fine_count(format, [rows, columns]);
    if weight.len() != rows * columns || magnitudes.fine.len() != expected {
        return Err(Error::bug(format!(
            "{} values and {} magnitudes of {format} are no weight of [{rows}, {columns}]",
            weight.len(),
            magnitudes.fine.len()
        )));
    }
    if format == Format::Nf4 {
        // Blocks run over the flat weight, and all their magnitudes share an offset.
        nf4::simulate_nested(weight);
        return Ok(());
    }
    let height = row_step(format);
    let band = (CHUNK / columns.max(1)).max(1).next_multiple_of(height);
    let tensor = magnitudes.tensor;
    let bands = weight.par_chunks_mut((band * columns).max(1));
    match expected {
        0 | 1 => bands.for_each(|rows| simulate_rows(rows, columns, format, &magnitudes.fine, tensor)),
        _ => {
            let fine = fine_count(format, [band, columns]);
            bands
                .zip(magnitudes.fine.par_chunks(fine.max(1)))
                .for_each(|(rows, fine)| simulate_rows(rows, columns, format, fine, tensor));
        }
    }
    Ok(())
}

/// Rounds some rows of a weight in place, as [`simulate_weight`] does all of it: `fine` are the magnitudes of these rows in
/// the order of the scales (of a per-tensor format the one), `tensor` the one on top. Blocks fill the columns; of a format
/// with squares the rows begin with a square; NF4's magnitudes are left as they are. Single-threaded, without allocation.
pub fn simulate_rows(rows: &mut [f32], columns: usize, format: Format, fine: &[f32], tensor: f32) {
    match format {
        Format::Fp8 => fp8::simulate_scaled(rows, Runs::rows(rows.len()), fine),
        Format::Fp8Channel => fp8::simulate_scaled(rows, Runs::rows(columns), fine),
        Format::Fp8Token => fp8::simulate_tokens(rows, columns),
        Format::Fp8Block { block } => {
            fp8::simulate_scaled(rows, Runs::squares(columns, block as usize), fine);
        }
        Format::Int8 => integer::simulate(rows, rows.len(), fine, Range::INT8),
        Format::Int8Channel => integer::simulate(rows, columns, fine, Range::INT8),
        Format::Int4 { block } => integer::simulate(rows, block as usize, fine, Range::INT4),
        Format::Int4Fp8 { block } => {
            integer::simulate(rows, block as usize, fine, Range::INT4);
            fp8::simulate_scaled(rows, Runs::rows(rows.len()), &[tensor]);
        }
        Format::Nvfp4 { block, scales } => {
            simulate_nvfp4(rows, columns, (block as usize, scales), fine, tensor)
        }
        Format::Mxfp4 => mx::simulate::<_, mx::E2M1>(rows, columns),
        Format::Mxfp6 => mx::simulate::<_, mx::E3M2>(rows, columns),
        Format::Mxfp8 => mx::simulate::<_, mx::E4M3>(rows, columns),
        Format::Mxint8 => mx::simulate::<_, mx::Int8>(rows, columns),
        Format::Nf4 => nf4::simulate(rows),
    }
}

fn simulate_nvfp4(
    rows: &mut [f32],
    columns: usize,
    (block, scales): (usize, Nvfp4Scales),
    fine: &[f32],
    tensor: f32,
) {
    match fixed_scales(scales, tensor, block) {
        Some(fixed) => nvfp4::simulate_fixed(rows, fixed, fine),
        None => {
            let reach = super::weight::reach(Format::Nvfp4 { block: block as u32, scales });
            nvfp4::simulate_alone(rows, columns, nvfp4::Scales::new(tensor, reach, block));
        }
    }
}

/// The scales of NVFP4 under given block magnitudes; `None` where they come from the values at hand.
pub(super) fn fixed_scales(scales: Nvfp4Scales, tensor: f32, block: usize) -> Option<nvfp4::FixedScales> {
    match scales {
        Nvfp4Scales::Static => Some(nvfp4::FixedScales::new(tensor, 448.0, block)),
        Nvfp4Scales::FourOverSix => Some(nvfp4::FixedScales::new(tensor, 256.0, block)),
        Nvfp4Scales::Dynamic | Nvfp4Scales::UnderFp8 => None,
    }
}

/// How many magnitudes [`Magnitudes::fine`] holds for a weight of `[rows, columns]`.
pub fn fine_count(format: Format, [rows, columns]: [usize; 2]) -> usize {
    match format {
        Format::Fp8 | Format::Int8 => 1,
        Format::Fp8Channel | Format::Int8Channel => rows,
        Format::Fp8Block { block } => rows.div_ceil(block as usize) * columns.div_ceil(block as usize),
        Format::Int4 { block }
        | Format::Int4Fp8 { block }
        | Format::Nvfp4 { block, scales: Nvfp4Scales::Static | Nvfp4Scales::FourOverSix } => {
            rows * columns.div_ceil(block as usize)
        }
        Format::Fp8Token
        | Format::Nvfp4 { scales: Nvfp4Scales::Dynamic | Nvfp4Scales::UnderFp8, .. }
        | Format::Mxfp4
        | Format::Mxfp6
        | Format::Mxfp8
        | Format::Mxint8
        | Format::Nf4 => 0,
    }
}

/// Rows that must stay together.
fn row_step(format: Format) -> usize {
    match format {
        Format::Fp8Block { block } => (block as usize).max(1),
        _ => 1,
    }
}

/// Rounds rows of `columns` activations in place as an engine would, under the largest magnitude `amax` that the stored scale
/// stands for; formats that are scaled by the values at hand do not look at it. Runs on the caller's thread pool.
///
/// # Errors
/// The format is one of weights alone.
pub fn simulate_activation<E: Source>(
    values: &mut [E],
    columns: usize,
    format: Format,
    amax: f32,
) -> Result<()> {
    let rows = (CHUNK / columns.max(1)).max(1);
    let mut run = |simulate: &(dyn Fn(&mut [E]) + Sync)| {
        values.par_chunks_mut((rows * columns).max(1)).for_each(simulate);
    };
    match format {
        Format::Fp8 => fp8::simulate(values, amax),
        Format::Nvfp4 { block, scales: Nvfp4Scales::Dynamic } => {
            nvfp4::simulate(values, columns, amax, block as usize);
        }
        Format::Fp8Token => run(&|rows| fp8::simulate_tokens(rows, columns)),
        Format::Int8 => run(&|rows| integer::simulate(rows, rows.len(), &[amax], Range::INT8)),
        Format::Mxfp4 => run(&|rows| mx::simulate::<_, mx::E2M1>(rows, columns)),
        Format::Mxfp6 => run(&|rows| mx::simulate::<_, mx::E3M2>(rows, columns)),
        Format::Mxfp8 => run(&|rows| mx::simulate::<_, mx::E4M3>(rows, columns)),
        Format::Mxint8 => run(&|rows| mx::simulate::<_, mx::Int8>(rows, columns)),
        other => return Err(Error::bug(format!("{other} is a format of weights, not of activations"))),
    }
    Ok(())
}
