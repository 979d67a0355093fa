//! Losses of deep metric learning, Euclidean and hyperbolic.
//!
//! A loss over proxies is a distance x pooling x reducer x regularisers
//! ([`proxies::ProxySettings`]):
//!
//! | loss | distance | pooling | reducer | regularisers |
//! |---|---|---|---|---|
//! | Proxy Anchor | cosine | (one proxy) | anchor, class-wise twice | |
//! | Proxy-NCA++ | squared Euclidean | (one proxy) | softmax | |
//! | SoftTriple | cosine | soft-triple | softmax | centres |
//! | SparseSoftTriple | cosine | soft-triple | softmax | sparse |
//! | MPA family | cosine | soft-triple, log-sum-exp or max | anchor, {class, data} x {class, data} | centres, if wanted |
//! | hyperbolic SoftTriple | Poincaré | soft-triple | softmax | tree, if wanted |
//! | its flat control | tangent | soft-triple | softmax | |
//!
//! Beside them stand Multi-Similarity with its miner ([`pairs`]), a term in
//! the style of HIER ([`hier`]) and CHEST ([`chest`]). [`Settings`] names
//! them all and their weighted sums; [`AnyLoss`] is what it builds.
//!
//! The equations of the MPA family and of CHEST are reconstructed from the
//! cited building blocks: their papers' abstracts and the losses they cite.
//! So are the term in the style of HIER and SparseSoftTriple's regulariser.
//! Values and gradients of all of them are compared with fixtures computed
//! apart from this code (`scripts/oracles`).
//!
//! Embeddings come from the network: Euclidean ones of length 1, hyperbolic
//! ones as points of the Poincaré ball. Proxies are parameters of the loss, so
//! that the optimiser can give them a learning rate of their own.

pub mod chest;
pub mod hier;
mod initial;
mod labels;
pub mod pairs;
pub mod pooling;
pub mod proxies;
pub mod reducer;
pub mod regulariser;
mod settings;
pub mod similarity;
pub mod tree;

pub use settings::{Dimensions, Settings, Weighted};

use crate::LearnError;
use burn::module::Module;
use burn::tensor::Tensor;
use rand_core::Rng;
use settings::finite;

/// The embeddings of a batch.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// Vectors of length 1, `[batch, dimensions]`.
    pub euclidean: Tensor<2>,
    /// Points of the Poincaré ball, `[batch, dimensions]`, where the network
    /// makes them.
    pub hyperbolic: Option<Tensor<2>>,
}

impl Embeddings {
    /// Embeddings of a network with a Euclidean head alone.
    #[must_use]
    pub fn euclidean(vectors: Tensor<2>) -> Self {
        Self {
            euclidean: vectors,
            hyperbolic: None,
        }
    }

    /// The points of the ball.
    fn points(&self) -> Result<Tensor<2>, LearnError> {
        self.hyperbolic.clone().ok_or(LearnError::Setting {
            what: "the hyperbolic embedding",
            actual: "none".to_owned(),
            wanted: "give the network a hyperbolic head or choose a Euclidean loss",
        })
    }
}

/// A loss of a batch.
pub trait Loss: Module {
    /// The loss, one value. `rng` is drawn from by losses that sample
    /// (triples of a tree); others leave it alone.
    ///
    /// # Errors
    /// When the labels are not as many as the embeddings or name a class that
    /// the loss was not built with, when the embeddings do not have the length
    /// it was built for, or when a value is not finite.
    fn forward(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        rng: &mut impl Rng,
    ) -> Result<Tensor<1>, LearnError>;
}

/// One loss of a sum.
#[derive(Module, Debug)]
pub enum Term {
    /// Proxies.
    Proxies(proxies::ProxyLoss),
    /// Pairs of the batch.
    Pairs(pairs::PairLoss),
    /// Ancestors in the ball.
    Hier(hier::HierLoss),
    /// CHEST.
    Chest(chest::ChestLoss),
}

impl Loss for Term {
    fn forward(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        rng: &mut impl Rng,
    ) -> Result<Tensor<1>, LearnError> {
        match self {
            Self::Proxies(loss) => loss.forward(embeddings, labels, rng),
            Self::Pairs(loss) => loss.forward(embeddings, labels, rng),
            Self::Hier(loss) => loss.forward(embeddings, labels, rng),
            Self::Chest(loss) => loss.forward(embeddings, labels, rng),
        }
    }
}

/// Any loss that [`Settings`] names: a weighted sum of one or more.
#[derive(Module, Debug)]
pub struct AnyLoss {
    terms: Vec<Term>,
    #[module(skip)]
    weights: Vec<f64>,
}

impl AnyLoss {
    /// The sum of `terms`, each times its weight.
    ///
    /// # Errors
    /// When there is no term, a weight is missing or a weight is not finite.
    pub fn new(terms: Vec<Term>, weights: Vec<f64>) -> Result<Self, LearnError> {
        if terms.is_empty() {
            return Err(LearnError::Setting {
                what: "the number of losses in a sum",
                actual: "0".to_owned(),
                wanted: "name one or more",
            });
        }
        if weights.len() != terms.len() {
            return Err(LearnError::Length {
                what: "the weights of a sum of losses",
                actual: weights.len(),
                expected: terms.len(),
            });
        }
        for &weight in &weights {
            finite("the weight of a loss", weight)?;
        }
        Ok(Self { terms, weights })
    }

    /// The losses that are summed.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }
}

impl Loss for AnyLoss {
    fn forward(
        &self,
        embeddings: &Embeddings,
        labels: &[usize],
        rng: &mut impl Rng,
    ) -> Result<Tensor<1>, LearnError> {
        let mut sum: Option<Tensor<1>> = None;
        for (term, &weight) in self.terms.iter().zip(&self.weights) {
            let value = term.forward(embeddings, labels, rng)?.mul_scalar(weight);
            sum = Some(match sum {
                Some(sum) => sum + value,
                None => value,
            });
        }
        // The constructor refuses an empty sum.
        Ok(sum.unwrap_or_else(|| Tensor::zeros([1], &embeddings.euclidean.device())))
    }
}
