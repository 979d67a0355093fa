//! What the servers count, as text for a scraper on the same machine.
//!
//! - [`Histogram`]: durations in fixed buckets, recorded without a lock;
//! - [`Exposition`]: counters and histograms in the Prometheus text format;
//! - [`bind`] and [`serve`]: that text as the answer to `GET /metrics`.
//!
//! Which figures there are is each role's own business; here is only their form.
//!
//! # Security
//! Number and timing of queries concern nobody but the operator, and the text is
//! neither encrypted nor authenticated: [`bind`] refuses every address that another
//! machine can reach. Types here hold counts and durations and so cannot show content.

mod error;
mod exposition;
mod histogram;
mod listener;

pub use error::TelemetryError;
pub use exposition::{Counter, Exposition};
pub use histogram::{BUCKETS_US, Durations, Histogram};
pub use listener::{bind, serve};
