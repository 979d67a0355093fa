//! A term in the style of HIER (CVPR 2023): learned ancestors in the ball.
//!
//! Reconstructed from the cited building blocks. Ancestors are hyperbolic
//! proxies without a class. Of a triple (i, j, k), where i and j are neighbours
//! and k is not, i and j are to be nearer to the ancestor of the two than to
//! that of all three, and k the other way round. The ancestor of a set is the
//! proxy whose largest distance to it is least; the paper chooses with noise,
//! here the choice is without. A triple whose two ancestors are one says
//! nothing. Triples are of the batch and, if wanted, of the ancestors too, as
//! the paper has it: then ancestors have ancestors, up to a root.

use super::initial::{below, gaussian};
use super::labels::hyperbolic;
use super::settings::{Dimensions, at_least_one, ball, finite, sized};
use super::{Embeddings, Loss};
use crate::LearnError;
use crate::geometry::tensor::{distances, exp0_clipped};
use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// The term in the style of HIER.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HierSettings {
    /// The curvature's magnitude.
    pub c: f64,
    /// Where tangent vectors are clipped.
    pub r: f64,
    /// Ancestors to learn.
    pub ancestors: usize,
    /// By how much the right ancestor has to be nearer.
    pub margin: f64,
    /// Neighbours of an item among which its partner is drawn, at most half
    /// the batch; the partner has to have the item among its own.
    pub neighbours: usize,
    /// Whether triples of ancestors are drawn as well, one for each.
    pub over_ancestors: bool,
}

impl Default for HierSettings {
    fn default() -> Self {
        Self {
            c: 0.1,
            r: 2.3,
            ancestors: 512,
            margin: 0.1,
            neighbours: 20,
            over_ancestors: false,
        }
    }
}

impl HierSettings {
    /// The term with ancestors drawn from `rng`.
    ///
    /// # Errors
    /// As [`super::Settings::build`].
    pub fn build(
        &self,
        dimensions: Dimensions,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<HierLoss, LearnError> {
        ball(self.c, self.r)?;
        finite("the margin of ancestors", self.margin)?;
        at_least_one("the number of ancestors", self.ancestors)?;
        at_least_one("the number of neighbours", self.neighbours)?;
        let length = dimensions.hyperbolic()?;
        at_least_one("the length of the embedding", length)?;
        sized("the values of the ancestors", [self.ancestors, length])?;
        Ok(HierLoss {
            ancestors: gaussian([self.ancestors, length], device, rng),
            settings: *self,
        })
    }
}

/// The term; its parameters are the ancestors, tangent vectors at the origin.
#[derive(Module, Debug)]
pub struct HierLoss {
    ancestors: Param<Tensor<2>>,
    #[module(skip)]
    settings: HierSettings,
}

impl HierLoss {
    /// The ancestors, points of the ball.
    #[must_use]
    pub fn ancestors(&self) -> Tensor<2> {
        exp0_clipped(self.ancestors.val(), self.settings.c, self.settings.r)
    }
}

impl Loss for HierLoss {
    fn forward(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        rng: &mut impl Rng,
    ) -> Result<Tensor<1>, LearnError> {
        let z = hyperbolic(embeddings, labels, self.ancestors.dims()[1])?;
        let HierSettings {
            c,
            margin,
            neighbours,
            over_ancestors,
            ..
        } = self.settings;
        let ancestors = self.ancestors();
        let triples = sample(&z, c, neighbours, rng);
        let of_items = hier(z, ancestors.clone(), &triples, c, margin);
        if !over_ancestors {
            return Ok(of_items);
        }
        let triples = sample(&ancestors, c, neighbours, rng);
        Ok(of_items + hier(ancestors.clone(), ancestors, &triples, c, margin))
    }
}

/// The mean over triples (i, j, k) of items `z` of the three hinges on their
/// distances from the nearer and the farther ancestor among `ancestors`, all
/// points of the ball of curvature `-c`. Zero where both are the same one, and
/// without triples. Items may be the ancestors themselves.
#[must_use]
pub fn hier(
    z: Tensor<2>,
    ancestors: Tensor<2>,
    triples: &[[usize; 3]],
    c: f64,
    margin: f64,
) -> Tensor<1> {
    if triples.is_empty() {
        // Not a constant: a loss of its own has to have gradients.
        return z.mul_scalar(0.0).sum();
    }
    let device = z.device();
    let from_all = distances(ancestors, z, c);
    let [i, j, k] = [0, 1, 2].map(|n| {
        let chosen: Vec<i64> = triples.iter().map(|t| t[n] as i64).collect();
        let chosen = TensorData::new(chosen, [triples.len()]);
        from_all
            .clone()
            .select(1, Tensor::<1, Int>::from_data(chosen, &device))
    });
    let pair = i.clone().inner().max_pair(j.clone().inner());
    let all = pair.clone().max_pair(k.clone().inner());
    let (near, far) = (pair.argmin(0), all.argmin(0));
    let nearer_by = |d: Tensor<2>, right: &Tensor<2, Int>, wrong: &Tensor<2, Int>| {
        let gap = d.clone().gather(0, right.clone()) - d.gather(0, wrong.clone());
        relu(gap.add_scalar(margin))
    };
    let same = near.clone().equal(far.clone());
    let hinges = nearer_by(i, &near, &far) + nearer_by(j, &near, &far) + nearer_by(k, &far, &near);
    hinges.mask_fill(same, 0.0).mean()
}

/// One triple for each item that has a partner and a stranger.
fn sample(z: &Tensor<2>, c: f64, neighbours: usize, rng: &mut impl Rng) -> Vec<[usize; 3]> {
    let held = z.clone().inner();
    let count = held.dims()[0];
    let Ok(apart) = distances(held.clone(), held, c).try_into_vec_as::<f64>() else {
        return Vec::new();
    };
    let nearest: Vec<Vec<usize>> = apart
        .chunks_exact(count)
        .enumerate()
        .map(|(item, row)| {
            let mut others: Vec<usize> = (0..count).filter(|&o| o != item).collect();
            others.sort_by(|&a, &b| row[a].total_cmp(&row[b]).then(a.cmp(&b)));
            others.truncate(neighbours.min(count.saturating_sub(1) / 2));
            others
        })
        .collect();
    let mut triples = Vec::with_capacity(count);
    for (i, own) in nearest.iter().enumerate() {
        let partners: Vec<usize> = own
            .iter()
            .copied()
            .filter(|&o| nearest[o].contains(&i))
            .collect();
        let strangers: Vec<usize> = (0..count)
            .filter(|&o| o != i && !own.contains(&o))
            .collect();
        if partners.is_empty() || strangers.is_empty() {
            continue;
        }
        let j = partners[below(partners.len(), rng)];
        triples.push([i, j, strangers[below(strangers.len(), rng)]]);
    }
    triples
}
