//! Product quantization: codebooks, codes, distance tables, the oblivious
//! scan with its selection, and exact search to measure them against.
//!
//! The way of a vector: [`Codebook::train`] learns centroids per sub-space,
//! [`Codebook::encode`] turns vectors into rows of codes, [`BlockedCodes`]
//! lays rows out for the scan. The way of a query: its similarities to all
//! centroids (from the encrypted table, or [`Codebook::similarities`] in the
//! clear) become a [`QuantizedTable`], by [`Scanner::quantize`] with a scale
//! that suits the query; [`Scanner::search`] sums entries over all codes and selects the best by a [`SelectionPlan`].
//!
//! # Security
//! Scan, selection and table quantization are data-oblivious: which
//! instructions run and which addresses they touch depends on sizes only.
//! Training, encoding and exact search are not; they run where the vectors
//! are known anyway.

mod codebook;
mod codes;
mod error;
pub mod exact;
pub mod filter;
pub mod ivf;
mod kmeans;
mod linear;
mod metric;
mod opq;
mod plan;
mod reach;
pub mod recall;
mod scanner;
mod subspace;
mod table;
mod terms;
mod train;

pub use codebook::Codebook;
pub use codes::{BlockedCodes, code_bits};
pub use error::QuantError;
pub use filter::Filter;
pub use metric::Metric;
pub use opq::{OpqOptions, OpqTransform, TrainedOpq};
pub use plan::{MAX_CANDIDATES, SelectionPlan};
pub use scanner::{Candidate, Scanner};
pub use subspace::Subspaces;
pub use table::QuantizedTable;
pub use terms::TableTerms;
pub use train::{Progress, TrainOptions};

/// Fragments of the names of this crate's data-oblivious functions; see
/// [`oboro_simd::OBLIVIOUS_FUNCTIONS`].
pub const OBLIVIOUS_FUNCTIONS: &[&str] = &[
    "oblivious_quantize",
    "oblivious_reach",
    "oblivious_widen_keys",
    "oblivious_candidates",
    "oblivious_places",
];
