//! Causal attention: scores and weighted values by cuBLASLt, what lies between them by our kernels.
//!
//! The scores of one sequence are in memory at a time: heads · tokens² of them.

use qlaunch_shared::Result;

use super::device::{Argument, Device, THREADS};
use super::product::{Matrix, Places, Product};
use super::tensor::CudaTensor;
use crate::ops::backend::AttentionShape;
use crate::tensor::DType;

/// Attention of some sequences: the operands, and where it goes.
pub(super) struct Attention<'a> {
    pub(super) device: &'a Device,
    pub(super) q: &'a CudaTensor,
    pub(super) k: &'a CudaTensor,
    pub(super) v: &'a CudaTensor,
    pub(super) out: &'a CudaTensor,
    pub(super) shape: AttentionShape,
}

impl Attention<'_> {
    /// Queues all of it.
    pub(super) fn run(&self) -> Result<()> {
        let AttentionShape { batch, seq, heads, head_dim, .. } = self.shape;
        let dtype = self.q.dtype;
        let scores = self.device.room(DType::F32, [heads, seq, seq])?;
        let weights = self.device.room(dtype, [heads, seq, seq])?;
        let sums = self.device.room(DType::F32, [heads, seq])?;
        let values = self.device.room(DType::F32, [heads, seq, head_dim])?;
        for sequence in 0..batch {
            self.scores(sequence, &scores)?;
            self.device.launch(
                ("attention_weights", dtype),
                ((heads * seq, 1), THREADS),
                &[
                    self.device.address(&scores),
                    self.device.address(&weights),
                    self.device.address(&sums),
                    Argument::U32(seq as u32),
                    Argument::U32(self.shape.window.unwrap_or(0).min(seq) as u32),
                    Argument::F32(self.shape.scale),
                ],
            )?;
            self.values(sequence, &weights, &values)?;
            let out = self.device.place_of(&self.out.data)
                + (sequence * seq * heads * head_dim * dtype.size()) as u64;
            self.device.launch(
                ("attention_quotients", dtype),
                ((heads * seq, 1), THREADS.min(head_dim.next_multiple_of(32) as u32)),
                &[
                    self.device.address(&values),
                    self.device.address(&sums),
                    Argument::Address(out),
                    Argument::U32(seq as u32),
                    Argument::U32(heads as u32),
                    Argument::U32(head_dim as u32),
                ],
            )?;
        }
        Ok(())
    }

    /// `q · kᵀ` of every head: the heads that share keys one after the other, all key heads at once.
    fn scores(&self, sequence: usize, scores: &CudaTensor) -> Result<()> {
        let AttentionShape { seq, heads, kv_heads, head_dim, .. } = self.shape;
        let dtype = self.q.dtype;
        let group = self.shape.group();
        let product = Product {
            rows: seq,
            columns: seq,
            depth: head_dim,
            x: Matrix { dtype, stride: heads * head_dim, distance: group * head_dim },
            x_exchanged: false,
            w: Matrix { dtype, stride: kv_heads * head_dim, distance: head_dim },
            w_exchanged: true,
            out: Matrix { dtype: DType::F32, stride: seq, distance: group * seq * seq },
            batch: kv_heads,
            biased: false,
        };
        for member in 0..group {
            let places = Places {
                x: self.within(self.q, sequence * seq * heads * head_dim + member * head_dim),
                w: self.within(self.k, sequence * seq * kv_heads * head_dim),
                bias: None,
                out: self.within(scores, member * seq * seq),
            };
            // SAFETY: the operands were checked to have these sizes, and scores are `[heads, seq, seq]`.
            unsafe { self.device.blas.multiply(product, places) }?;
        }
        Ok(())
    }

    /// `weights · v` of every head.
    fn values(&self, sequence: usize, weights: &CudaTensor, values: &CudaTensor) -> Result<()> {
        let AttentionShape { seq, kv_heads, head_dim, .. } = self.shape;
        let dtype = self.q.dtype;
        let group = self.shape.group();
        let product = Product {
            rows: seq,
            columns: head_dim,
            depth: seq,
            x: Matrix { dtype, stride: seq, distance: group * seq * seq },
            x_exchanged: false,
            w: Matrix { dtype, stride: kv_heads * head_dim, distance: head_dim },
            w_exchanged: false,
            out: Matrix { dtype: DType::F32, stride: head_dim, distance: group * seq * head_dim },
            batch: kv_heads,
            biased: false,
        };
        for member in 0..group {
            let places = Places {
                x: self.within(weights, member * seq * seq),
                w: self.within(self.v, sequence * seq * kv_heads * head_dim),
                bias: None,
                out: self.within(values, member * seq * head_dim),
            };
            // SAFETY: the operands were checked to have these sizes, and values are `[heads, seq, head_dim]`.
            unsafe { self.device.blas.multiply(product, places) }?;
        }
        Ok(())
    }

    /// The address of an element.
    fn within(&self, tensor: &CudaTensor, element: usize) -> u64 {
        self.device.place_of(&tensor.data) + (element * tensor.dtype.size()) as u64
    }
}
