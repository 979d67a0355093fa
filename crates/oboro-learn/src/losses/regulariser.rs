//! What is asked of proxies beside the loss.

use super::settings::{at_least_one, finite, positive};
use crate::LearnError;
use crate::geometry::tensor::squares;
use burn::tensor::Tensor;
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
    let [local, classes, _] = proxies.dims();
    let device = proxies.device();
    if local < 2 {
        return Tensor::zeros([1], (&device, proxies.dtype()));
    }
    let grouped = proxies.swap_dims(0, 1);
    let gram = grouped.clone().matmul(grouped.clone().swap_dims(1, 2));
    // From products with themselves taken apart, so that the diagonal of the
    // Gram matrix, whose gradient is rounding, has no part in it.
    let lengths = (grouped.clone() * grouped)
        .sum_dim(2)
        .clamp_min(1e-12)
        .sqrt()
        .recip();
    let cosines = gram * lengths.clone() * lengths.swap_dims(1, 2);
    let keep: Vec<bool> = (0..local * local).map(|i| i / local < i % local).collect();
    let keep = Tensor::<1, burn::tensor::Bool>::from_data(
        burn::tensor::TensorData::new(keep, [local * local]),
        &device,
    )
    .reshape([1, local, local])
    .expand([classes, local, local]);
    // Proxies that have become one: their distance is the epsilon's.
    let least = epsilon.max(1e-30);
    let distances = cosines
        .mul_scalar(-2.0)
        .add_scalar(2.0 + epsilon)
        .clamp_min(least)
        .mask_fill(keep.clone().bool_not(), 1.0)
        .sqrt()
        .mask_fill(keep.bool_not(), 0.0);
    distances
        .sum()
        .mul_scalar(((classes * local * (local - 1)) as f64).recip())
}

/// The mean L1 norm of the directions of proxies `[local, classes,
/// dimensions]`.
#[must_use]
pub fn sparse(proxies: Tensor<3>) -> Tensor<1> {
    let [local, classes, length] = proxies.dims();
    let flat = proxies.reshape([local * classes, length]);
    let lengths = squares(&flat).clamp_min(1e-12).sqrt();
    (flat.abs().sum_dim(1) / lengths).mean()
}
