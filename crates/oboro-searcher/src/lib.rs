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
//! `start` (from a folder and half a key to an index that is served), `gate`
//! (who may ask what), `service`, `search` (the stages of a query), `engine`
//! and `pass` (passes over the codes of a `snapshot`), `keeper` and `link` (the
//! keeper), `epoch`, `shelf` and `rotation` (another decryption key while
//! clients search), `changes`, `stages`, `folder` and `compaction` (other
//! vectors while clients search), `pool` (work done ahead).
//!
//! # Security
//! The searcher does see each query's distance table and which candidates it
//! returns; see SECURITY.md for what that is worth to somebody who reads its
//! memory. Nothing of either is ever logged or counted.

mod changes;
mod compaction;
mod config;
mod engine;
mod epoch;
mod error;
mod folder;
mod gate;
mod generation;
mod keeper;
mod link;
mod merge;
mod metrics;
mod open_files;
mod pass;
mod pool;
mod rotation;
mod search;
mod searcher;
mod server;
mod service;
mod sessions;
mod shelf;
mod snapshot;
mod stages;
mod start;
mod takeover;
#[doc(hidden)]
pub mod untrusted;

pub use config::{CompactionConfig, KeeperConfig, SearcherConfig};
pub use engine::MAX_BATCH;
pub use error::SearcherError;
pub use generation::{Generated, GeneratorServer};
pub use metrics::{Metrics, SearcherView, Stage};
pub use oboro_channel::RateLimit;
pub use oboro_telemetry::{Durations, Histogram};
pub use server::SearcherServer;
pub use sessions::SessionLimits;
