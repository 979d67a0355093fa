//! Multi-Similarity (CVPR 2019): pairs within the batch, with its miner.

use super::labels::euclidean;
use super::reducer::log1p_sum_exp;
use super::settings::{finite, positive};
use super::{Embeddings, Loss};
use crate::LearnError;
use burn::module::Module;
use burn::tensor::{Bool, Tensor, TensorData};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// Multi-Similarity with its published values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairSettings {
    /// What similarities of positives are multiplied with.
    pub alpha: f64,
    /// What similarities of negatives are multiplied with.
    pub beta: f64,
    /// The similarity from which both are counted: lambda.
    pub base: f64,
    /// Pairs are kept that come within this of the hardest pair of the other
    /// kind; all are when it is negative.
    pub mining: f64,
}

impl Default for PairSettings {
    fn default() -> Self {
        Self {
            alpha: 2.0,
            beta: 50.0,
            base: 0.5,
            mining: 0.1,
        }
    }
}

impl PairSettings {
    /// The loss.
    ///
    /// # Errors
    /// When a setting is outside its range.
    pub fn build(&self) -> Result<PairLoss, LearnError> {
        positive("alpha", self.alpha)?;
        positive("beta", self.beta)?;
        finite("the base", self.base)?;
        finite("the margin of the miner", self.mining)?;
        Ok(PairLoss { settings: *self })
    }
}

/// The loss over pairs; it has no parameters.
#[derive(Module, Debug)]
pub struct PairLoss {
    #[module(skip)]
    settings: PairSettings,
}

impl PairLoss {
    /// The pairs left by the miner: masks, true where a pair does not count.
    fn without(&self, similar: &Tensor<2>, labels: &[usize]) -> (Tensor<2, Bool>, Tensor<2, Bool>) {
        let batch = labels.len();
        let device = similar.device();
        let mask = |keep: &dyn Fn(usize, usize) -> bool| {
            let values: Vec<bool> = (0..batch * batch)
                .map(|at| !keep(at / batch, at % batch))
                .collect();
            Tensor::<2, Bool>::from_data(TensorData::new(values, [batch, batch]), &device)
        };
        let no_positive = mask(&|i, j| i != j && labels[i] == labels[j]);
        let no_negative = mask(&|i, j| labels[i] != labels[j]);
        if self.settings.mining < 0.0 {
            return (no_positive, no_negative);
        }
        let held = similar.clone().inner();
        // Where there is no pair of the other kind none is near it.
        let hardest_negative = held
            .clone()
            .mask_fill(no_negative.clone(), -1e30)
            .max_dim(1);
        let hardest_positive = held.clone().mask_fill(no_positive.clone(), 1e30).min_dim(1);
        let easy_positive = held
            .clone()
            .sub_scalar(self.settings.mining)
            .greater_equal(hardest_negative);
        let easy_negative = held
            .add_scalar(self.settings.mining)
            .lower_equal(hardest_positive);
        (
            no_positive.bool_or(easy_positive),
            no_negative.bool_or(easy_negative),
        )
    }
}

impl Loss for PairLoss {
    fn forward(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        _rng: &mut impl Rng,
    ) -> Result<Tensor<1>, LearnError> {
        let x = euclidean(embeddings, labels, None)?;
        let similar = x.clone().matmul(x.transpose());
        let (no_positive, no_negative) = self.without(&similar, labels);
        let PairSettings {
            alpha, beta, base, ..
        } = self.settings;
        let above = similar.sub_scalar(base);
        let pull = log1p_sum_exp(above.clone().mul_scalar(-alpha), Some(no_positive), 1);
        let push = log1p_sum_exp(above.mul_scalar(beta), Some(no_negative), 1);
        Ok((pull.mul_scalar(alpha.recip()) + push.mul_scalar(beta.recip())).mean())
    }
}
