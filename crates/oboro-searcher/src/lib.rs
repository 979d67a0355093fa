//! The searcher role: encrypted tables, oblivious scan, selection.
//!
//! A searcher holds the codes, the *encrypted* codebook and the sealed
//! originals of one index. For a query it evaluates the encrypted distance
//! table, asks the keeper for the other share of it, adds the shares, scans
//! all codes, and returns the sealed records of the nearest candidates. It
//! never holds a decryption key, and never sees a query, a centroid or an
//! original.
//!
//! [`SearcherServer`] is the whole of it; reading order: [`SearcherServer`],
//! `service` (who may ask what), `search` (the stages of a query), `engine`
//! (passes over the codes), `link` (the keeper), `pool` (work done ahead).
//!
//! # Security
//! The searcher does see each query's distance table and which candidates it
//! returns; see SECURITY.md for what that is worth to somebody who reads its
//! memory. Nothing of either is ever logged or counted.

mod engine;
mod error;
mod link;
mod merge;
mod metrics;
mod pool;
mod search;
mod served;
mod server;
mod service;
mod sessions;

pub use engine::MAX_BATCH;
pub use error::SearcherError;
pub use link::KeeperConfig;
pub use metrics::{Metrics, SearcherView, Stage};
pub use oboro_telemetry::{Durations, Histogram};
pub use server::{SearcherConfig, SearcherServer};
pub use sessions::SessionLimits;
