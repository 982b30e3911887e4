//! A GPU, or the emulated one, makes the same bytes of weights as the codecs of the CPU, decodes them to the same bits, and
//! rounds activations alike.

use qlaunch_shared::numerics::{Format, Nvfp4Scales};

use super::codec::integer::Range;
use super::property_tests::FORMATS;
use super::{
    decode_weight, magnitudes, quantize_weight, quantize_weight_on, round_activation, stored_weight,
};
use crate::ops::coding::{Coder, Cut, Decoding, Mx, Rounding, Stored};
use crate::ops::cuda::emulated::places;
use crate::ops::{Backend, CudaBackend};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;

const DTYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

fn gpu() -> CudaBackend {
    CudaBackend::open(0, 1, &places()).unwrap()
}

/// Numbers of many sizes: noise, columns that stand out, a stretch of zeros, the smallest and the largest.
fn weight(dtype: DType, shape: [usize; 2], seed: u64) -> HostTensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let count = shape[0] * shape[1];
    let value = |at: usize| match at % 97 {
        5 => 40.0 * noise(),
        6 => noise() * 1e-6,
        7 => -0.0,
        _ if (count / 2..count / 2 + 200).contains(&at) => 0.0,
        _ => noise() * 0.1,
    };
    let values: Vec<f32> = (0..count).map(value).collect();
    HostTensor::new(shape, values).unwrap().view().cast(dtype).unwrap()
}

/// The values that the GPU makes of a stored weight.
fn decoded(gpu: &CudaBackend, stored: &Stored<'_>) -> HostTensor {
    let made = gpu.bring_stored(stored).unwrap().unwrap();
    gpu.wait_for(&gpu.brought().unwrap()).unwrap();
    gpu.download(&made).unwrap()
}

#[test]
fn weights_get_the_bytes_of_the_cpu_and_are_decoded_to_its_bits() {
    let gpu = gpu();
    for format in FORMATS {
        for (seed, shape) in [[2, 64], [6, 384], [34, 96], [130, 256], [2, 1030]].into_iter().enumerate() {
            if format.misfit(shape[0], shape[1]).is_some() {
                continue;
            }
            for dtype in DTYPES {
                let weight = weight(dtype, shape, seed as u64);
                let found = magnitudes(weight.view(), format).unwrap();
                let expected = quantize_weight(weight.view(), format, &found).unwrap();
                let parts = quantize_weight_on(&gpu, weight.view(), format, &found).unwrap();
                for ((suffix, own), (other, bytes)) in parts.iter().zip(&expected) {
                    assert_eq!(suffix, other, "{format}");
                    let at = own.iter().zip(bytes).position(|(own, bytes)| own != bytes);
                    assert!(
                        own == bytes,
                        "{format} {dtype} {shape:?}: `{suffix}` differs from byte {at:?} on"
                    );
                }
                assert_eq!(parts.len(), expected.len(), "{format}");
                let part = |name: &str| {
                    Ok(expected.iter().find(|(suffix, _)| *suffix == name).unwrap().1.as_slice())
                };
                let values = decode_weight(format, shape, &part, dtype).unwrap();
                match stored_weight(format, shape, &part, dtype).unwrap() {
                    Some(stored) => assert_eq!(decoded(&gpu, &stored), values, "{format} {dtype} {shape:?}"),
                    None => assert!(matches!(format, Format::Int4Fp8 { .. }), "{format}"),
                }
            }
        }
    }
}

#[test]
fn quantiles_are_decoded_to_the_bits_of_the_cpu() {
    let gpu = gpu();
    for (dtype, shape) in DTYPES.into_iter().zip([[3usize, 64], [2, 33], [5, 100]]) {
        let codes: Vec<u8> = (0..(shape[0] * shape[1]).div_ceil(2)).map(|at| (at * 37) as u8).collect();
        let map: [f32; 16] = std::array::from_fn(|code| code as f32 / 7.0 - 1.0);
        let blocks = (shape[0] * shape[1]).div_ceil(64);
        let magnitudes: Vec<f32> = (0..blocks).map(|block| 0.3 + block as f32).collect();
        let decoding = Decoding::Nf4 { map, magnitudes: magnitudes.as_slice().into() };
        let found = decoded(&gpu, &Stored { codes: &codes, decoding, dtype, shape }).to_f32();
        for (at, found) in found.iter().enumerate() {
            let code = codes[at / 2] >> (4 * (1 - at % 2)) & 15;
            let exact = HostTensor::new([1], vec![map[usize::from(code)] * magnitudes[at / 64]]).unwrap();
            assert_eq!(*found, exact.view().cast(dtype).unwrap().to_f32()[0], "{dtype} at {at}");
        }
    }
}

#[test]
fn activations_are_rounded_to_the_bits_of_the_cpu() {
    let (gpu, cpu) =
        (gpu(), crate::ops::CpuBackend::new(1, qlaunch_shared::protocol::NumericPath::Portable).unwrap());
    let formats = [
        Format::Fp8,
        Format::Fp8Token,
        Format::Int8,
        Format::NVFP4,
        Format::Nvfp4 { block: 32, scales: Nvfp4Scales::Dynamic },
        Format::Mxfp4,
        Format::Mxfp6,
        Format::Mxfp8,
        Format::Mxint8,
    ];
    for format in formats {
        for (seed, shape) in [[1, 1], [3, 40], [7, 256], [12, 24], [2, 1000]].into_iter().enumerate() {
            for (dtype, amax) in DTYPES.into_iter().zip([40.0, 3.0, 0.0]) {
                let x = weight(dtype, shape, 50 + seed as u64);
                let (mut on_gpu, mut on_cpu) = (gpu.upload(x.view()).unwrap(), x);
                round_activation(&gpu, &mut on_gpu, shape[1], (format, amax)).unwrap();
                round_activation(&cpu, &mut on_cpu, shape[1], (format, amax)).unwrap();
                assert_eq!(
                    bits(&gpu.download(&on_gpu).unwrap()),
                    bits(&on_cpu),
                    "{format} {dtype} {shape:?}"
                );
            }
        }
    }
    let factors: Vec<f32> = (0..24).map(|channel| 0.3 + channel as f32).collect();
    let x = weight(DType::BF16, [5, 24], 3);
    let (mut scaled, mut expected) = (gpu.upload(x.view()).unwrap(), x);
    assert!(gpu.round(&mut scaled, 24, Rounding::Factors(&factors)).unwrap());
    cpu.edit(&mut expected, &mut |tensor| {
        crate::tensor::host::for_each_dtype!(Storage, tensor.storage_mut(), values => super::scale_channels(values, &factors));
        Ok(())
    })
    .unwrap();
    assert_eq!(bits(&gpu.download(&scaled).unwrap()), bits(&expected));
}

/// Every element by its bits: zeros have signs.
fn bits(tensor: &HostTensor) -> Vec<u32> {
    tensor.to_f32().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn sizes_that_do_not_go_together_are_refused() {
    let gpu = gpu();
    let x = weight(DType::BF16, [4, 40], 1);
    let cut = Cut { shape: [4, 40], width: 40, height: 1 };
    use crate::ops::Coding;
    for coding in [
        Coding::Fp8Runs(cut, &[1.0; 3]),
        Coding::Int8Runs(Cut { shape: [4, 41], ..cut }, &[1.0; 4]),
        Coding::Mx(Mx::Fp4),
        Coding::Nvfp4 { block: 24, tensor: 1.0, sixfold: Range::INT4.largest() },
        Coding::Nvfp4Fixed { block: 16, amax: 1.0, ceiling: 448.0, tensor: 1.0, magnitudes: &[1.0] },
    ] {
        let coded = match coding {
            Coding::Mx(_) => gpu.encode(weight(DType::BF16, [3, 40], 1).view(), coding),
            _ => gpu.encode(x.view(), coding),
        };
        assert!(coded.is_err(), "{coding:?}");
    }
    let mut x = gpu.upload(x.view()).unwrap();
    assert!(gpu.round(&mut x, 7, Rounding::Fp8Rows).is_err());
    assert!(gpu.round(&mut x, 40, Rounding::Factors(&[1.0])).is_err());
}
