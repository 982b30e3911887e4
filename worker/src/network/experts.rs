//! Mixtures of experts: each token goes through some of a layer's experts, and their outputs are weighted and added.
//!
//! Rounding points and order are those of transformers' eager path: an expert's output times its weight is rounded to the
//! model's type, then added to what lower experts left, and the sum is rounded. A token's result depends on no other token.

use qlaunch_shared::Result;
use qlaunch_shared::model::Experts;

use super::decoder::{Pass, Tap};
use super::layer::Mixture;
use crate::ops::{Backend, Routing, Share};
use crate::tensor::host::HostTensor;

impl<B: Backend> Pass<'_, B> {
    /// Sends `x` `[tokens, hidden_size]` through the experts of `layer`; none where nobody reads what comes out.
    pub(super) fn mixture(
        &self,
        mixture: &Mixture<B::Tensor>,
        (layer, experts): (usize, &Experts),
        x: &B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<Option<B::Tensor>> {
        let [scores] = self.project([&mixture.router], x, tap)?;
        let shares = |per_token| -> Result<Vec<Share>> {
            let routing = Routing { per_token, weighting: experts.weighting };
            Ok(self.backend.route(&scores, routing)?.shares(experts.count))
        };
        let widened = self.experts_ratio.map_or(experts.per_token, |ratio| experts.widened(ratio));
        if widened > experts.per_token {
            let shares = shares(widened)?;
            tap.widened(layer, &counts(&shares))?;
            self.show(mixture, &shares, x, tap)?;
        }
        let shares = shares(experts.per_token)?;
        tap.routed(layer, &counts(&shares))?;
        if self.unread == Some(layer) {
            self.show(mixture, &shares, x, tap)?;
            return Ok(None);
        }
        let shape = self.backend.shape(x).to_vec();
        let mut sum = self.backend.adopt(HostTensor::zeros(self.backend.dtype(x), shape)?)?;
        for (expert, share) in mixture.experts.iter().zip(&shares) {
            if !share.tokens.is_empty() {
                let own = self.backend.gather(x, &share.tokens)?;
                let output = self.gated(expert, &own, tap)?;
                self.backend.scatter_add(&mut sum, &output, share)?;
            }
        }
        Ok(Some(sum))
    }

    /// Shows the inputs of experts' linears to the tap, and computes nothing that nobody sees.
    fn show(
        &self,
        mixture: &Mixture<B::Tensor>,
        shares: &[Share],
        x: &B::Tensor,
        tap: &mut dyn Tap<B>,
    ) -> Result<()> {
        for (expert, share) in mixture.experts.iter().zip(shares) {
            if !share.tokens.is_empty() {
                self.show_gated(expert, &self.backend.gather(x, &share.tokens)?, tap)?;
            }
        }
        Ok(())
    }
}

/// Tokens of each share.
fn counts(shares: &[Share]) -> Vec<u64> {
    shares.iter().map(|share| share.tokens.len() as u64).collect()
}
