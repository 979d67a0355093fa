//! Embeddings by deep metric learning, Euclidean and hyperbolic.
//!
//! | module | what |
//! |---|---|
//! | [`backend`] | the devices of burn, and parameters whose identity is drawn from the given generator |
//! | [`geometry`] | the Poincaré ball: maps, distance and its gradient, the lift to the hyperboloid that a private index ranks by |
//! | [`data`] | labelled images: loaders with the official splits, decoding within limits, the class-balanced sampler |
//! | [`evaluation`] | exact retrieval metrics of embeddings: R@k, R-precision, MAP@R, nDCG@k, NMI |
//! | [`report`] | what came out, as text, JSON and one HTML page: curves, maps, the Poincaré disk and its tree, neighbours as images |
//! | [`losses`] | losses over proxies, pairs and trees, composed of distance, pooling, reducer and regularisers |
//! | [`model`] | backbones with a Euclidean and a hyperbolic head, pretrained weights, saved networks |
//! | [`embed`] | the embeddings of a whole data set |
//! | [`train`] | training: batches, gradients on several threads, AdamW, checkpoints and exact resumption, metrics |
//!
//! Everything here is deterministic: the same input and seed give the same
//! bits on one thread and on many.
//!
//! # Security
//! This crate runs where images and embeddings are known in the clear, on the
//! owner's machine. Nothing in it is data-oblivious.

pub mod backend;
pub mod data;
pub mod embed;
mod error;
pub mod evaluation;
mod fused;
pub mod geometry;
pub mod losses;
pub mod model;
pub mod report;
pub mod train;

pub use error::LearnError;
