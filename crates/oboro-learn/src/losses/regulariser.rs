//! What is asked of proxies beside the loss.

use super::settings::{at_least_one, finite, positive};
use crate::LearnError;
use crate::geometry::tensor::inverse_norms;
use burn::tensor::{Bool, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// A term over the proxies alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Regulariser {
    /// SoftTriple's: the distances of a class's proxies from each other, so
    /// that as many fall together as the class does not need.
    Centres {
        /// What it is multiplied with: tau.
        weight: f64,
    },
    /// The mean L1 norm of the proxies' directions. SparseSoftTriple's,
    /// reconstructed from the cited building blocks.
    Sparse {
        /// What it is multiplied with.
        weight: f64,
    },
    /// HypHC's, over random triples of hyperbolic proxies; their similarity
    /// is that of the ball and of their class.
    Tree {
        /// What it is multiplied with.
        weight: f64,
        /// The temperature of the softmax over ancestors.
        temperature: f64,
        /// Triples drawn for each batch.
        triples: usize,
    },
}

impl Regulariser {
    pub(super) fn check(&self, per_class: usize, hyperbolic: bool) -> Result<(), LearnError> {
        match *self {
            Self::Centres { weight } => {
                finite("the weight tau of the centres", weight)?;
                if per_class < 2 {
                    return Err(LearnError::Setting {
                        what: "the number of proxies a class under the centres' regulariser",
                        actual: per_class.to_string(),
                        wanted: "give 2 or more, or leave the regulariser out",
                    });
                }
                if hyperbolic {
                    return Err(LearnError::Setting {
                        what: "the regulariser of hyperbolic proxies",
                        actual: "centres".to_owned(),
                        wanted: "it is one of directions: choose tree or none",
                    });
                }
                Ok(())
            }
            Self::Sparse { weight } => finite("the weight of the sparse regulariser", weight),
            Self::Tree {
                weight,
                temperature,
                triples,
            } => {
                finite("the weight of the tree", weight)?;
                positive("the temperature of the tree", temperature)?;
                at_least_one("the number of triples of the tree", triples)?;
                if !hyperbolic {
                    return Err(LearnError::Setting {
                        what: "the distance under the tree's regulariser",
                        actual: "Euclidean".to_owned(),
                        wanted: "choose poincare or leave the regulariser out",
                    });
                }
                Ok(())
            }
        }
    }
}

/// SoftTriple's regulariser of proxies `[local, classes, dimensions]`: the sum
/// of the distances `√(2 + epsilon - 2 w.v)` over the pairs of a class, over
/// `classes local (local - 1)`. Zero with one proxy a class.
#[must_use]
pub fn centres(proxies: Tensor<3>, epsilon: f64) -> Tensor<1> {
    let [local, classes, length] = proxies.dims();
    let device = proxies.device();
    if local < 2 {
        return Tensor::zeros([1], (&device, proxies.dtype()));
    }
    let lengths = inverse_norms(&proxies.clone().reshape([local * classes, length]))
        .reshape([local, classes, 1])
        .swap_dims(0, 1);
    // As in `squares`: recorded on one side of two, which suffices where what
    // follows treats both alike.
    let grouped = proxies.swap_dims(0, 1);
    let held = grouped.clone().inner().swap_dims(1, 2);
    let gram = grouped.matmul(held);
    let same = gram.clone().inner();
    let gram = gram.mul_scalar(2.0) - same;
    let cosines = gram * lengths.clone() * lengths.swap_dims(1, 2);
    // A proxy and itself: a constant, of which the gradient is rounding.
    let own: Vec<bool> = (0..local * local)
        .map(|at| at / local == at % local)
        .collect();
    let own = Tensor::<3, Bool>::from_data(TensorData::new(own, [1, local, local]), &device)
        .expand([classes, local, local]);
    // Proxies that have become one are at the epsilon's distance.
    let distances = cosines
        .mul_scalar(-2.0)
        .add_scalar(2.0 + epsilon)
        .clamp_min(epsilon.max(1e-30))
        .mask_fill(own.clone(), 1.0)
        .sqrt()
        .mask_fill(own, 0.0);
    // Each pair stands there twice.
    let pairs = classes * local * (local - 1);
    distances.sum().mul_scalar(0.5 / pairs as f64)
}

/// The mean L1 norm of the directions of proxies `[local, classes,
/// dimensions]`.
#[must_use]
pub fn sparse(proxies: Tensor<3>) -> Tensor<1> {
    let [local, classes, length] = proxies.dims();
    let flat = proxies.reshape([local * classes, length]);
    let lengths = inverse_norms(&flat);
    (flat.abs().sum_dim(1) * lengths).mean()
}
