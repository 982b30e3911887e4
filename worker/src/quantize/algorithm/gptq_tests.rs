//! GPTQ against its definition: an inverse by elimination, and the whole matrix rounded for every column.

use half::bf16;
use qlaunch_shared::checkpoint::DType;

use super::super::specimen::{FORMATS, linear, numbers, random};
use super::*;
use crate::calibrate::InputStatistics;
use crate::quantize::{decode_weight, simulate_weight};

/// `XᵀX` of inputs whose channels go together.
fn gram(columns: usize, tokens: usize) -> Gram {
    let noise = numbers(tokens * columns, 77);
    let common = numbers(tokens, 78);
    let mut sums = vec![0f64; columns * columns];
    for (token, common) in noise.chunks(columns).zip(common) {
        let value = |i: usize| f64::from(token[i] + 2.0 * common * (i % 5) as f32);
        for i in 0..columns {
            (0..columns).for_each(|j| sums[i * columns + j] += value(i) * value(j));
        }
    }
    Gram { columns, sums: sums.iter().map(|sum| *sum as f32).collect(), tokens: tokens as u64 }
}

fn statistics(gram: Option<Gram>) -> Statistics {
    let seen = InputStatistics { rounded_gram: gram.map(Arc::new), ..InputStatistics::default() };
    Statistics { inputs: [(0, seen)].into(), ..Statistics::default() }
}

/// The inverse by Gauss and Jordan, without pivots: the matrix is positive definite.
fn inverse(mut matrix: Vec<f64>, n: usize) -> Vec<f64> {
    let mut inverse: Vec<f64> = (0..n * n).map(|at| f64::from(u8::from(at / n == at % n))).collect();
    for pivot in 0..n {
        let by = matrix[pivot * n + pivot];
        for column in 0..n {
            matrix[pivot * n + column] /= by;
            inverse[pivot * n + column] /= by;
        }
        for row in (0..n).filter(|row| *row != pivot) {
            let factor = matrix[row * n + pivot];
            for column in 0..n {
                matrix[row * n + column] -= factor * matrix[pivot * n + column];
                inverse[row * n + column] -= factor * inverse[pivot * n + column];
            }
        }
    }
    inverse
}

/// `U` with `UᵀU` the matrix.
fn upper(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut upper = vec![0f64; n * n];
    for i in 0..n {
        for j in i..n {
            let known: f64 = (0..i).map(|k| upper[k * n + i] * upper[k * n + j]).sum();
            let rest = matrix[i * n + j] - known;
            upper[i * n + j] = if i == j { rest.sqrt() } else { rest / upper[i * n + i] };
        }
    }
    upper
}

/// ModelOpt's own loops, block by block and column by column.
fn defined(linear: &LinearWork, gram: &Gram, options: &Gptq) -> Vec<f32> {
    let shape @ [rows, n] = linear.shape();
    let mut weight = linear.weight.to_f32();
    let mut hessian: Vec<f64> =
        gram.sums.iter().map(|sum| f64::from(*sum) * 2.0 / gram.tokens as f64).collect();
    for column in 0..n {
        if (0..rows).all(|row| weight[row * n + column] == 0.0) {
            for other in 0..n {
                hessian[column * n + other] = 0.0;
                hessian[other * n + column] = 0.0;
            }
            hessian[column * n + column] = 1.0;
        }
    }
    let damp = options.perc_damp * (0..n).map(|at| hessian[at * n + at]).sum::<f64>() / n as f64;
    (0..n).for_each(|at| hessian[at * n + at] += damp);
    let upper = upper(&inverse(hessian, n), n);
    for begin in (0..n).step_by(options.block_size) {
        let end = usize::min(begin + options.block_size, n);
        let mut block = weight.clone();
        let mut errors = vec![0f64; rows * (end - begin)];
        for i in begin..end {
            let mut rounded = block.clone();
            simulate_weight(&mut rounded, shape, linear.numerics.weight, &linear.magnitudes).unwrap();
            for row in 0..rows {
                let value = rounded[row * n + i];
                weight[row * n + i] = value;
                let error = f64::from(block[row * n + i] - value) / upper[i * n + i];
                for j in i..end {
                    let changed = f64::from(block[row * n + j]) - error * upper[i * n + j];
                    block[row * n + j] = changed as f32;
                }
                errors[row * (end - begin) + i - begin] = error;
            }
        }
        for row in 0..rows {
            for j in end..n {
                let errors = (begin..end).map(|i| errors[row * (end - begin) + i - begin] * upper[i * n + j]);
                weight[row * n + j] = (f64::from(weight[row * n + j]) - errors.sum::<f64>()) as f32;
            }
        }
    }
    weight
}

/// `tr(E·G·Eᵀ)` of the difference to the source.
fn output_error(source: &[f32], changed: &[f32], gram: &Gram) -> f64 {
    let n = gram.columns;
    let mut total = 0f64;
    for (source, changed) in source.chunks(n).zip(changed.chunks(n)) {
        let error: Vec<f64> = source.iter().zip(changed).map(|(a, b)| f64::from(a - b)).collect();
        for (i, left) in error.iter().enumerate() {
            let row = &gram.sums[i * n..][..n];
            total += left * error.iter().zip(row).map(|(right, sum)| right * f64::from(*sum)).sum::<f64>();
        }
    }
    total
}

/// All formats, MX among them.
fn formats() -> Vec<Format> {
    FORMATS.into_iter().chain([Format::Mxfp4, Format::Mxfp8, Format::Mxint8]).collect()
}

#[test]
fn weights_are_those_of_the_definition_and_outputs_err_less_than_rounded_ones() {
    for format in formats() {
        for (shape, block_size) in [([20, 64], 128), ([36, 96], 40)] {
            let options = Gptq { block_size, ..Gptq::default() };
            let before = random(format, shape, 11);
            let gram = gram(shape[1], 200);
            let mut after = before.clone();
            gptq(std::slice::from_mut(&mut after), &options, &statistics(Some(gram.clone()))).unwrap();
            assert_eq!(after.magnitudes, before.magnitudes, "{format}: scales stay");
            let source = before.weight.to_f32();
            let in_bf16 = |values: Vec<f32>| -> Vec<f32> {
                values.into_iter().map(|value| bf16::from_f32(value).to_f32()).collect()
            };
            let expected = in_bf16(defined(&before, &gram, &options));
            let found = after.weight.to_f32();
            // A value in the middle between two codes may go to the other one, and all that follow in its row with it.
            let rows = expected.chunks(shape[1]).zip(found.chunks(shape[1]));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.005 * a.abs();
            let same = rows.filter(|(a, b)| a.iter().zip(*b).all(close)).count();
            assert!(
                same * 10 >= shape[0] * 8,
                "{format}: {same} of {} rows are those of the definition",
                shape[0]
            );
            let mut nearest = source.clone();
            simulate_weight(&mut nearest, shape, format, &before.magnitudes).unwrap();
            let [own, defined, nearest] =
                [&found, &expected, &in_bf16(nearest)].map(|changed| output_error(&source, changed, &gram));
            assert!((own / defined - 1.0).abs() < 0.05, "{format}: {own}, by the definition {defined}");
            // Of 8-bit codes, what bf16 loses in the end is a large part of the error.
            let share = if format.bits() == 4 { 0.9 } else { 1.0 };
            assert!(own < share * nearest, "{format}: {own}, rounded to nearest {nearest}");
            let zeros = found.iter().skip(3).step_by(shape[1]).filter(|value| **value != 0.0).count();
            assert_eq!(zeros, 0, "{format}: a column of zeros stays one");
        }
    }
}

#[test]
fn what_is_stored_decodes_to_what_was_found() {
    let keeps_scales = |format: &Format| matches!(columnwise(*format), Some(Columnwise::Alone(_)));
    // INT8 per tensor is of activations alone; INT4 in FP8 is rounded to FP8 anew, wherever its INT4 values then stand.
    let is_stored = |format: &Format| !matches!(format, Format::Int8 | Format::Int4Fp8 { .. });
    for format in FORMATS.into_iter().filter(keeps_scales).filter(is_stored) {
        let shape = [32, 64];
        let mut linear = random(format, shape, 12);
        let statistics = statistics(Some(gram(64, 200)));
        gptq(std::slice::from_mut(&mut linear), &Gptq::default(), &statistics).unwrap();
        let stored = linear.store(None).unwrap();
        let parts = |suffix: &str| Ok(&stored.iter().find(|part| part.0 == suffix).unwrap().1[..]);
        let decoded = decode_weight(format, shape, &parts, DType::BF16).unwrap().to_f32();
        for (at, (found, decoded)) in linear.weight.to_f32().iter().zip(&decoded).enumerate() {
            // Scales are multiplied in another order: one step of bf16. Another code would be off by more.
            let [found_bits, bits] =
                [found, decoded].map(|value| i32::from(bf16::from_f32(*value).to_bits()));
            let close = (found_bits - bits).abs() <= 1;
            assert!(close || found == decoded, "{format} {at}: {found}, stored {decoded}");
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut linear = random(Format::Int4 { block: 32 }, [50, 160], 13);
        let statistics = statistics(Some(gram(160, 300)));
        pool.install(|| gptq(std::slice::from_mut(&mut linear), &Gptq::default(), &statistics)).unwrap();
        linear.weight
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn without_a_usable_hessian_the_weight_stays_and_the_report_says_why() {
    let zeros = Gram { columns: 64, sums: vec![0.0; 64 * 64], tokens: 9 };
    for (gram, what, why) in
        [(None, "no_tokens", "to nearest"), (Some(zeros), "fallback", "not positive definite")]
    {
        // Without a column of zeros, which would stand for itself.
        let mut after = linear(Format::Fp8, [4, 64], &numbers(256, 15));
        let source = after.weight.clone();
        gptq(std::slice::from_mut(&mut after), &Gptq::default(), &statistics(gram)).unwrap();
        assert_eq!(after.weight, source);
        assert!(after.remarks.iter().any(|remark| remark.what == what && remark.value.contains(why)));
    }
}
