//! What comes and goes beside a GPU's computing is what it would be without that. On the emulated GPU streams stand still and run
//! ahead as they like wherever no event orders them, and memory that nobody has written, or everybody has left, is noise: each of
//! these tests fails without one of the events.

use super::CudaBackend;
use super::emulated::places;
use crate::ops::{Backend, CpuBackend, CpuPath, Linear};
use crate::tensor::DType;
use crate::tensor::host::HostTensor;
use qlaunch_shared::protocol::NumericPath;

/// Weights of a layer, more of them than there are pieces of pinned memory.
const WEIGHTS: usize = 5;
const LAYERS: usize = 60;
const SIDE: usize = 48;

/// Whole numbers, so that sums are exact in any order.
fn whole(shape: [usize; 2], seed: usize) -> HostTensor {
    let values = (0..shape[0] * shape[1]).map(|at| ((at * 31 + seed * 17) % 13) as f32 - 6.0);
    HostTensor::new(shape, values.collect::<Vec<f32>>()).unwrap()
}

fn layer(number: usize) -> Vec<HostTensor> {
    (0..WEIGHTS).map(|weight| whole([SIDE, SIDE], number * WEIGHTS + weight)).collect()
}

fn gpu() -> CudaBackend {
    CudaBackend::open(0, 2, &places()).unwrap()
}

/// The sum of what all weights of all layers make of an input, each layer brought before or behind what computes with the last.
fn through<B: Backend>(backend: &B) -> HostTensor {
    let input = backend.upload(whole([3, SIDE], 7).view()).unwrap();
    let mut sum = backend.upload(HostTensor::zeros(DType::F32, [3, SIDE]).unwrap().view()).unwrap();
    let bring = |number: usize| {
        let weights: Vec<B::Tensor> =
            layer(number).into_iter().map(|weight| backend.bring(weight).unwrap()).collect();
        (weights, backend.brought().unwrap())
    };
    let mut next = bring(0);
    for number in 1..=LAYERS {
        let early = number.is_multiple_of(2).then(|| bring(number));
        let (weights, moment) = next;
        backend.wait_for(&moment).unwrap();
        for weight in weights {
            let made = backend.linear(&input, Linear { weight: &weight, bias: None }).unwrap();
            backend.add(&mut sum, &made).unwrap();
        }
        next = early.unwrap_or_else(|| bring(number));
    }
    backend.download(&sum).unwrap()
}

#[test]
fn layers_that_come_while_others_are_computed_are_whole_when_they_are_used() {
    let cpu = CpuBackend::new(1, NumericPath::detect()).unwrap();
    assert_eq!(through(&gpu()), through(&cpu));
}

#[test]
fn what_leaves_is_what_was_computed_until_then() {
    let gpu = gpu();
    let cpu = CpuBackend::new(1, NumericPath::detect()).unwrap();
    let (input, on_gpu) = (whole([3, SIDE], 7), gpu.upload(whole([3, SIDE], 7).view()).unwrap());
    for number in 0..LAYERS {
        let weight = whole([SIDE, SIDE], number);
        let expected = cpu.linear(&input, Linear { weight: &weight, bias: None }).unwrap();
        let weight = gpu.upload(weight.view()).unwrap();
        let mut made = gpu.linear(&on_gpu, Linear { weight: &weight, bias: None }).unwrap();
        let (leaving, since) = (made.clone(), gpu.computed().unwrap());
        // What goes on with it does not change what leaves.
        gpu.add(&mut made, &leaving).unwrap();
        gpu.take(&leaving, &since, &mut |view| {
            assert_eq!(view, expected.view(), "{number}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn what_is_larger_than_pinned_memory_goes_through_it_in_pieces() {
    let (gpu, large) = (gpu(), whole([2500, 4000], 1));
    assert!(large.view().bytes().len() > 2 * super::lanes::PIECE);
    let there = gpu.bring(large.clone()).unwrap();
    gpu.wait_for(&gpu.brought().unwrap()).unwrap();
    assert_eq!(gpu.download(&there).unwrap(), large);
    let since = gpu.computed().unwrap();
    gpu.take(&there, &since, &mut |view| {
        assert_eq!(view, large.view());
        Ok(())
    })
    .unwrap();
}
