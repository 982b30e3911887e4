//! Which experts each token goes through, and the tokens of one expert.

use qlaunch_shared::model::Weighting;

/// How a router's scores choose experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Experts that a token goes through.
    pub per_token: usize,
    /// How their probabilities become factors on their outputs.
    pub weighting: Weighting,
}

/// The experts that were chosen for some tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Experts of each token.
    pub per_token: usize,
    /// Experts, those of a token next to each other and the most probable one first: `[tokens · per_token]`.
    pub experts: Vec<u32>,
    /// The factor on each one's output, `[tokens · per_token]`.
    pub weights: Vec<f32>,
}

/// The tokens that one expert gets, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Share {
    /// Rows of the activation; each at most once, ascending.
    pub tokens: Vec<u32>,
    /// The factor on the expert's output for each of them.
    pub weights: Vec<f32>,
}

impl Routes {
    /// The routes of all tokens from those of some after those of others.
    pub fn concatenated(per_token: usize, parts: Vec<Self>) -> Self {
        let mut all = Self { per_token, experts: Vec::new(), weights: Vec::new() };
        for part in parts {
            all.experts.extend(part.experts);
            all.weights.extend(part.weights);
        }
        all
    }

    /// The share of each of `count` experts.
    pub fn shares(&self, count: usize) -> Vec<Share> {
        let mut sizes = vec![0; count];
        for &expert in &self.experts {
            sizes[expert as usize] += 1;
        }
        let with_room =
            |size: usize| Share { tokens: Vec::with_capacity(size), weights: Vec::with_capacity(size) };
        let mut shares: Vec<Share> = sizes.into_iter().map(with_room).collect();
        for (index, (&expert, &weight)) in self.experts.iter().zip(&self.weights).enumerate() {
            let share = &mut shares[expert as usize];
            share.tokens.push((index / self.per_token) as u32);
            share.weights.push(weight);
        }
        shares
    }
}
