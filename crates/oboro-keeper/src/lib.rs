//! The keeper role: holds the decryption key and turns masked products into shares.
//!
//! A [`KeeperServer`] owns a CKKS secret key. A searcher registers the public masks of
//! its encrypted codebook once (`Prepare`) and then sends, for every query, products it
//! has re-randomized with a fresh encryption of zero (`Decrypt`). The keeper multiplies
//! with the key, adds a dither, drops the low bits and returns its additive share of the
//! distance table. The table itself, codes, codebook and ids never reach it.
//!
//! # Security
//! What arrives is pseudorandom even to who holds the key, as long as the searcher's
//! re-randomization is honest; [`KeeperView`] shows it. A searcher whose program is
//! altered could use the keeper as a decryption oracle: the certificate's role, the
//! optional appraisal of the searcher's evidence, rate limits and counts per searcher
//! stand against that, not the encryption.

mod admission;
mod config;
mod error;
mod gate;
mod metrics;
mod prepared;
mod rate;
mod server;
mod service;
mod view;

pub use config::{KeeperConfig, RateLimit};
pub use error::KeeperError;
pub use metrics::{MetricsSnapshot, PeerCount, Stage};
pub use oboro_telemetry::Durations;
pub use server::KeeperServer;
pub use view::KeeperView;
