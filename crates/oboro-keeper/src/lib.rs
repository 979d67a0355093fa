//! The keeper role: holds the decryption keys and turns masked products into shares.
//!
//! A [`KeeperServer`] owns CKKS key pairs. A searcher registers the public masks of its
//! encrypted codebook once (`Prepare`) and then sends, for every query, products it has
//! re-randomized with a fresh encryption of zero (`Decrypt`). The keeper multiplies with
//! the key, adds a dither, drops the low bits and returns its additive share of the
//! distance table. The table itself, codes, codebook and ids never reach it.
//!
//! Beside that it remembers, in a [`KeeperState`] on disk: the newest state of every
//! index, so that an older copy or a fork is refused (`Release`, `Register`); its part of
//! the keys that open an index, which it gives to attested searchers for the newest state
//! only; and, while the owner rotates keys (`NewKey`, `RetireKey`), which codebook may be
//! re-encrypted, masked, from which key to which (`Reencrypt`).
//!
//! It takes part in making an index blindly, too: `generation`.
//!
//! # Security
//! What arrives is pseudorandom even to who holds the key, as long as the searcher's
//! re-randomization is honest; [`KeeperView`] shows it. A searcher whose program is
//! altered could use the keeper as a decryption oracle: the appraisal of the searcher's
//! evidence on every connection, rate limits and counts per searcher stand against that,
//! not the encryption.

mod config;
mod error;
mod gate;
mod generation;
mod lifecycle;
mod metrics;
mod prepared;
mod server;
mod service;
mod shared;
mod state;
mod tables;
#[doc(hidden)]
pub mod untrusted;
mod view;

pub use config::KeeperConfig;
pub use error::KeeperError;
pub use metrics::{MetricsSnapshot, PeerCount, Stage};
pub use oboro_channel::RateLimit;
pub use oboro_telemetry::Durations;
pub use server::KeeperServer;
pub use state::{Descent, IndexState, KeeperSecrets, KeeperState, StateKey};
pub use view::KeeperView;
