//! Which part of a decoder a module belongs to, which projection of it a linear is, and where ModelOpt hangs quantizers.

use super::Module;

/// A part of a decoder: what reports group modules by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The table of token embeddings.
    Embedding,
    /// Self-attention: its projections, head norms and cache.
    Attention,
    /// The feed-forward part of a dense layer.
    Mlp,
    /// What chooses experts for a token.
    Router,
    /// What weighs or chooses experts and is a plain linear in memory: gates of shared experts, routers of models that
    /// bring code of their own.
    Gate,
    /// One routed expert, counted from zero.
    Expert(u32),
    /// The expert that every token goes through.
    SharedExpert,
    /// A norm of the residual stream.
    Norm,
    /// The output head.
    Head,
    /// The encoder of pictures, and what brings its output into the decoder.
    Vision,
    /// Anything else.
    Other,
}

/// Which projection of its part a linear is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// q_proj.
    Query,
    /// k_proj.
    Key,
    /// v_proj.
    Value,
    /// o_proj.
    Output,
    /// gate_proj; Mixtral's w1.
    Gate,
    /// up_proj; Mixtral's w3.
    Up,
    /// down_proj; Mixtral's w2.
    Down,
}

/// Where ModelOpt hangs the quantizers of a linear (modelopt.md §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantizerHome<'a> {
    /// On the linear itself: `NAME.input_quantizer`, `NAME.weight_quantizer`, `NAME.output_quantizer`.
    Linear,
    /// On the module that holds all experts of a layer in two fused tensors, as transformers 5 has them: one input quantizer
    /// for all experts, `CONTAINER.TENSOR_input_quantizer`, and one weight quantizer for each,
    /// `CONTAINER.TENSOR_weight_quantizers.EXPERT`. The gate and the up projection of an expert share both. There is no
    /// output quantizer.
    Experts {
        /// Name of that module in memory, as in `model.layers.0.mlp.experts`; for Mixtral this is not a part of the name
        /// that the linear has on disk.
        container: &'a str,
        /// Which of its tensors: `gate_up_proj` or `down_proj`.
        tensor: &'static str,
        /// Which expert, counted from zero.
        expert: u32,
    },
    /// Nowhere: routers are no linears in transformers 5.
    Nowhere,
}

impl Module {
    /// Where ModelOpt hangs the quantizers of this module, were it a linear.
    pub fn quantizer_home(&self) -> QuantizerHome<'_> {
        match (self.part, &self.container) {
            (Part::Router, _) => QuantizerHome::Nowhere,
            (Part::Expert(expert), Some(container)) => QuantizerHome::Experts {
                container,
                tensor: if self.projection == Some(Projection::Down) { "down_proj" } else { "gate_up_proj" },
                expert,
            },
            _ => QuantizerHome::Linear,
        }
    }

    /// Which routed expert it belongs to.
    pub const fn expert(&self) -> Option<u32> {
        match self.part {
            Part::Expert(expert) => Some(expert),
            _ => None,
        }
    }
}
