//! CHEST: Euclidean and hyperbolic proxies side by side, with a tree over the
//! hyperbolic ones.
//!
//! Reconstructed from the cited building blocks: SoftTriple's cross-entropy
//! `L_E` over cosines, the same `L_H` over distances of the Poincaré ball,
//! HypHC's term `L_HC` over triples of hyperbolic proxies, SoftTriple's
//! regulariser `R` of the Euclidean ones, and
//! `L = L_E + mu_H L_H + mu_HC L_HC + tau R`. A part of weight 0 is left out.

use super::initial::gaussian;
use super::labels::{Labels, euclidean, hyperbolic};
use super::pooling::Pooling;
use super::proxies::CENTRES_EPSILON;
use super::reducer::Reducer;
use super::regulariser::centres;
use super::settings::{Dimensions, VALUES, at_least_one, ball, finite, positive, sized};
use super::similarity::Distance;
use super::tree::{cross_similarities, own_similarities, sample_triples, tree};
use super::{Embeddings, Loss};
use crate::LearnError;
use crate::backend::parameter;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// One of the two cross-entropies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Branch {
    /// What it is multiplied with; 0 leaves it out.
    pub weight: f64,
    /// What similarities are multiplied with.
    pub scale: f64,
    /// The pooling's temperature.
    pub gamma: f64,
    /// By how much the item's own class has to be ahead.
    pub margin: f64,
}

impl Branch {
    fn loss(
        &self,
        distance: Distance,
        proxies: Tensor<3>,
        x: Tensor<2>,
        y: &Labels<'_>,
    ) -> Tensor<1> {
        let pooling = Pooling::SoftTriple { gamma: self.gamma };
        let reducer = Reducer::Softmax {
            scale: self.scale,
            margin: self.margin,
        };
        let pooled = pooling.pool(distance.similarities(proxies, x));
        reducer.reduce(pooled, y).mul_scalar(self.weight)
    }

    fn check(&self) -> Result<(), LearnError> {
        finite("the weight of a branch", self.weight)?;
        positive("the scale of a branch", self.scale)?;
        positive("the temperature gamma of a branch", self.gamma)?;
        finite("the margin of a branch", self.margin)
    }
}

/// The tree over hyperbolic proxies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// What it is multiplied with; 0 leaves it out.
    pub weight: f64,
    /// The temperature of the softmax over ancestors.
    pub temperature: f64,
    /// Triples drawn for each batch.
    pub triples: usize,
    /// What says which proxies belong together.
    pub similarity: Similarity,
}

/// What says which hyperbolic proxies belong together; no gradient goes
/// through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// The cosines of the Euclidean proxies of the same classes.
    Cross,
    /// `exp(-d)` of the hyperbolic proxies themselves and one more within a
    /// class.
    Own,
}

/// CHEST with the values to start from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChestSettings {
    /// Proxies of each class in each space.
    pub per_class: usize,
    /// The curvature's magnitude.
    pub c: f64,
    /// Where tangent vectors are clipped.
    pub r: f64,
    /// The Euclidean branch.
    pub euclidean: Branch,
    /// The hyperbolic branch; its scale, gamma and margin are matched to the
    /// range of distances, `4 r`.
    pub hyperbolic: Branch,
    /// The tree.
    pub tree: Tree,
    /// The weight of the Euclidean proxies' regulariser; 0 leaves it out.
    pub tau: f64,
}

impl Default for ChestSettings {
    fn default() -> Self {
        Self {
            per_class: 10,
            c: 0.1,
            r: 2.3,
            euclidean: Branch {
                weight: 1.0,
                scale: 20.0,
                gamma: 0.1,
                margin: 0.01,
            },
            hyperbolic: Branch {
                weight: 1.0,
                scale: 4.35,
                gamma: 0.46,
                margin: 0.046,
            },
            tree: Tree {
                weight: 0.5,
                temperature: 0.05,
                triples: 1024,
                similarity: Similarity::Cross,
            },
            tau: 0.2,
        }
    }
}

impl ChestSettings {
    /// Without the Euclidean branch. Nothing trains Euclidean proxies then, so
    /// the tree follows the hyperbolic ones.
    #[must_use]
    pub fn without_euclidean() -> Self {
        let mut settings = Self::default();
        settings.euclidean.weight = 0.0;
        settings.tree.similarity = Similarity::Own;
        settings.tau = 0.0;
        settings
    }

    /// Without the hyperbolic branch: the tree alone moves hyperbolic proxies,
    /// and nothing reads a hyperbolic embedding.
    #[must_use]
    pub fn without_hyperbolic() -> Self {
        let mut settings = Self::default();
        settings.hyperbolic.weight = 0.0;
        settings
    }

    /// Without the tree.
    #[must_use]
    pub fn without_tree() -> Self {
        let mut settings = Self::default();
        settings.tree.weight = 0.0;
        settings
    }

    /// Whether the hyperbolic embedding is read.
    #[must_use]
    pub fn needs_hyperbolic(&self) -> bool {
        self.hyperbolic.weight != 0.0
    }

    fn has_tree(&self) -> bool {
        self.tree.weight != 0.0
    }

    fn has_cross(&self) -> bool {
        self.has_tree() && self.tree.similarity == Similarity::Cross
    }

    fn check(&self) -> Result<(), LearnError> {
        ball(self.c, self.r)?;
        self.euclidean.check()?;
        self.hyperbolic.check()?;
        finite("the weight of the tree", self.tree.weight)?;
        positive("the temperature of the tree", self.tree.temperature)?;
        at_least_one("the number of triples of the tree", self.tree.triples)?;
        sized("the number of triples of the tree", [self.tree.triples])?;
        finite("the weight tau of the centres", self.tau)?;
        at_least_one("the number of proxies a class", self.per_class)?;
        if self.euclidean.weight == 0.0 && self.hyperbolic.weight == 0.0 {
            return Err(LearnError::Setting {
                what: "the weight of both branches of CHEST",
                actual: "0".to_owned(),
                wanted: "keep one of them: the rest does not read the embeddings",
            });
        }
        Ok(())
    }

    /// The loss with proxies drawn from `rng`.
    ///
    /// # Errors
    /// As [`super::Settings::build`].
    pub fn build(
        &self,
        classes: usize,
        dimensions: Dimensions,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<ChestLoss, LearnError> {
        self.check()?;
        at_least_one("the number of classes", classes)?;
        at_least_one("the length of the embedding", dimensions.euclidean)?;
        let shape = [self.per_class, classes, dimensions.euclidean];
        sized(VALUES, shape)?;
        let euclidean = gaussian(shape, device, rng);
        // The tree without the branch needs no embedding: any length will do.
        let length = match self.needs_hyperbolic() {
            true => dimensions.hyperbolic()?,
            false => dimensions.hyperbolic.unwrap_or(dimensions.euclidean),
        };
        at_least_one("the length of the hyperbolic embedding", length)?;
        let shape = [self.per_class, classes, length];
        sized(VALUES, shape)?;
        let hyperbolic = gaussian(shape, device, rng);
        Ok(ChestLoss {
            euclidean: (self.euclidean.weight != 0.0 || self.has_cross() || self.tau != 0.0)
                .then_some(euclidean),
            hyperbolic: (self.needs_hyperbolic() || self.has_tree()).then_some(hyperbolic),
            classes,
            settings: self.clone(),
        })
    }
}

/// CHEST; its parameters are the proxies of both spaces that a part uses.
#[derive(Module, Debug)]
pub struct ChestLoss {
    euclidean: Option<Param<Tensor<3>>>,
    hyperbolic: Option<Param<Tensor<3>>>,
    #[module(skip)]
    classes: usize,
    #[module(skip)]
    settings: ChestSettings,
}

impl ChestLoss {
    /// The loss with given proxies, `[per class, classes, dimensions]`: free
    /// vectors and tangent ones.
    ///
    /// # Errors
    /// When a setting is outside its range or the proxies are of other
    /// numbers.
    pub fn with_proxies(
        settings: ChestSettings,
        euclidean: Tensor<3>,
        hyperbolic: Tensor<3>,
        rng: &mut impl Rng,
    ) -> Result<Self, LearnError> {
        settings.check()?;
        let [local, classes, _] = euclidean.dims();
        at_least_one("the number of classes", classes)?;
        let [other_local, other_classes, _] = hyperbolic.dims();
        for (what, actual, expected) in [
            ("the proxies of a class", local, settings.per_class),
            ("the hyperbolic proxies of a class", other_local, local),
            ("the classes of hyperbolic proxies", other_classes, classes),
        ] {
            if actual != expected {
                return Err(LearnError::Length {
                    what,
                    actual,
                    expected,
                });
            }
        }
        Ok(Self {
            euclidean: Some(parameter(euclidean, rng)),
            hyperbolic: Some(parameter(hyperbolic, rng)),
            classes,
            settings,
        })
    }

    /// The Euclidean proxies, free vectors `[per class, classes, dimensions]`.
    #[must_use]
    pub fn euclidean(&self) -> Option<Tensor<3>> {
        self.euclidean.as_ref().map(Param::val)
    }

    /// The hyperbolic proxies, tangent vectors `[per class, classes,
    /// dimensions]`.
    #[must_use]
    pub fn hyperbolic(&self) -> Option<Tensor<3>> {
        self.hyperbolic.as_ref().map(Param::val)
    }

    /// [`Loss::forward`] with given triples; proxy `k` of class `c` has the
    /// number `k * classes + c`.
    ///
    /// # Errors
    /// As [`Loss::forward`].
    pub fn forward_with(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        triples: &[[usize; 3]],
    ) -> Result<Tensor<1>, LearnError> {
        let settings = &self.settings;
        let y = Labels::new(labels, self.classes)?;
        let mut parts: Vec<Tensor<1>> = Vec::new();
        if let Some(proxies) = self.euclidean() {
            let x = euclidean(embeddings, labels, Some(proxies.dims()[2]))?;
            if settings.euclidean.weight != 0.0 {
                let branch = &settings.euclidean;
                parts.push(branch.loss(Distance::Cosine, proxies.clone(), x, &y));
            }
            if settings.tau != 0.0 {
                parts.push(centres(proxies, CENTRES_EPSILON).mul_scalar(settings.tau));
            }
        }
        if let Some(proxies) = self.hyperbolic() {
            let (c, r) = (settings.c, settings.r);
            if self.settings.needs_hyperbolic() {
                let z = hyperbolic(embeddings, labels, proxies.dims()[2])?;
                let distance = Distance::Poincare { c, r };
                parts.push(settings.hyperbolic.loss(distance, proxies.clone(), z, &y));
            }
            if settings.has_tree() && !triples.is_empty() {
                parts.push(self.tree(proxies, triples));
            }
        }
        // One branch at least reads the embeddings.
        let zero = Tensor::zeros([1], &embeddings.euclidean.device());
        Ok(parts.into_iter().reduce(|a, b| a + b).unwrap_or(zero))
    }

    fn tree(&self, proxies: Tensor<3>, triples: &[[usize; 3]]) -> Tensor<1> {
        let (c, r) = (self.settings.c, self.settings.r);
        let tangents = flat(proxies);
        let similar = match (self.settings.tree.similarity, self.euclidean()) {
            (Similarity::Cross, Some(euclidean)) => cross_similarities(flat(euclidean), triples),
            _ => own_similarities(tangents.clone(), c, r, self.classes, triples),
        };
        tree(
            tangents,
            c,
            r,
            triples,
            similar,
            self.settings.tree.temperature,
        )
        .mul_scalar(self.settings.tree.weight)
    }
}

/// `[local * classes, dimensions]`.
fn flat(proxies: Tensor<3>) -> Tensor<2> {
    let [local, classes, length] = proxies.dims();
    proxies.reshape([local * classes, length])
}

impl Loss for ChestLoss {
    fn forward(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        rng: &mut impl Rng,
    ) -> Result<Tensor<1>, LearnError> {
        let count = self.settings.per_class * self.classes;
        let triples = if self.settings.has_tree() {
            sample_triples(self.settings.tree.triples, count, rng)
        } else {
            None
        };
        self.forward_with(embeddings, labels, &triples.unwrap_or_default())
    }
}
