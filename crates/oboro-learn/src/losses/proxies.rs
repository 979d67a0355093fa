//! Losses over proxies: distance x pooling x reducer x regularisers.

use super::initial::gaussian;
use super::labels::{Labels, euclidean, hyperbolic};
use super::pooling::Pooling;
use super::reducer::Reducer;
use super::regulariser::{Regulariser, centres, sparse};
use super::settings::{Dimensions, VALUES, at_least_one, sized};
use super::similarity::Distance;
use super::tree::{own_similarities, sample_triples, tree};
use super::{Embeddings, Loss};
use crate::LearnError;
use crate::backend::parameter;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// The epsilon under the root of SoftTriple's regulariser.
pub(super) const CENTRES_EPSILON: f64 = 1e-5;

/// A loss over proxies. The default is SoftTriple.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxySettings {
    /// Between items and proxies.
    pub distance: Distance,
    /// Proxies of each class.
    pub per_class: usize,
    /// Over the proxies of a class.
    pub pooling: Pooling,
    /// Over items and classes.
    pub reducer: Reducer,
    /// Over the proxies alone.
    pub regularisers: Vec<Regulariser>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            distance: Distance::Cosine,
            per_class: 10,
            pooling: Pooling::SoftTriple { gamma: 0.1 },
            reducer: Reducer::Softmax {
                scale: 20.0,
                margin: 0.01,
            },
            regularisers: vec![Regulariser::Centres { weight: 0.2 }],
        }
    }
}

impl ProxySettings {
    fn check(&self) -> Result<(), LearnError> {
        self.distance.check()?;
        self.pooling.check()?;
        self.reducer.check()?;
        at_least_one("the number of proxies a class", self.per_class)?;
        let hyperbolic = matches!(self.distance, Distance::Poincare { .. });
        for regulariser in &self.regularisers {
            regulariser.check(self.per_class, hyperbolic)?;
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
    ) -> Result<ProxyLoss, LearnError> {
        self.check()?;
        at_least_one("the number of classes", classes)?;
        let length = if self.distance.is_hyperbolic() {
            dimensions.hyperbolic()?
        } else {
            dimensions.euclidean
        };
        at_least_one("the length of the embedding", length)?;
        let shape = [self.per_class, classes, length];
        sized(VALUES, shape)?;
        Ok(ProxyLoss {
            proxies: gaussian(shape, device, rng),
            settings: self.clone(),
        })
    }
}

/// A loss over proxies, which are its parameters.
#[derive(Module, Debug)]
pub struct ProxyLoss {
    proxies: Param<Tensor<3>>,
    #[module(skip)]
    settings: ProxySettings,
}

impl ProxyLoss {
    /// The loss with given proxies, `[per class, classes, dimensions]`.
    ///
    /// # Errors
    /// When a setting is outside its range or the number of proxies a class is
    /// another one.
    pub fn with_proxies(
        settings: ProxySettings,
        proxies: Tensor<3>,
        rng: &mut impl Rng,
    ) -> Result<Self, LearnError> {
        settings.check()?;
        let [local, classes, _] = proxies.dims();
        at_least_one("the number of classes", classes)?;
        if local != settings.per_class {
            return Err(LearnError::Length {
                what: "the proxies of a class",
                actual: local,
                expected: settings.per_class,
            });
        }
        Ok(Self {
            proxies: parameter(proxies, rng),
            settings,
        })
    }

    /// The proxies, `[per class, classes, dimensions]`.
    #[must_use]
    pub fn proxies(&self) -> Tensor<3> {
        self.proxies.val()
    }

    /// The similarities `[classes, batch]` of classes and items, pooled over
    /// the proxies of a class.
    ///
    /// # Errors
    /// As [`Loss::forward`].
    pub fn similarities(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
    ) -> Result<Tensor<2>, LearnError> {
        let length = self.proxies.dims()[2];
        let x = if self.settings.distance.is_hyperbolic() {
            hyperbolic(embeddings, labels, length)?
        } else {
            euclidean(embeddings, labels, Some(length))?
        };
        let similar = self.settings.distance.similarities(self.proxies(), x);
        Ok(self.settings.pooling.pool(similar))
    }
}

impl Loss for ProxyLoss {
    fn forward(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        rng: &mut impl Rng,
    ) -> Result<Tensor<1>, LearnError> {
        let [local, classes, length] = self.proxies.dims();
        let checked = Labels::new(labels, classes)?;
        let pooled = self.similarities(embeddings, labels)?;
        let mut loss = self.settings.reducer.reduce(pooled, &checked);
        for regulariser in &self.settings.regularisers {
            let term = match *regulariser {
                Regulariser::Centres { weight } => {
                    centres(self.proxies(), CENTRES_EPSILON).mul_scalar(weight)
                }
                Regulariser::Sparse { weight } => sparse(self.proxies()).mul_scalar(weight),
                Regulariser::Tree {
                    weight,
                    temperature,
                    triples,
                } => {
                    let Some((c, r)) = self.settings.distance.curvature() else {
                        continue;
                    };
                    let Some(triples) = sample_triples(triples, local * classes, rng) else {
                        continue;
                    };
                    let tangents = self.proxies().reshape([local * classes, length]);
                    let similar = own_similarities(tangents.clone(), c, r, classes, &triples);
                    tree(tangents, c, r, &triples, similar, temperature).mul_scalar(weight)
                }
            };
            loss = loss + term;
        }
        Ok(loss)
    }
}
