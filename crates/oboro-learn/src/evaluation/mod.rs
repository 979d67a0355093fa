//! Exact retrieval metrics of embeddings.
//!
//! Every query is compared with every item of the gallery; nothing is
//! sampled and nothing approximated. Fast single-precision products only
//! *reject* items, by a bound on their rounding error; whatever might be
//! among the nearest is compared in double precision, in one fixed order of
//! operations. So ranks, and with them all figures, are the same on every
//! machine, on one thread and on many. Items at equal distance rank by their
//! row.
//!
//! A query is left out of its own list. Queries that have nothing to find
//! (classes with one item) count for no metric; the report says how many
//! there were. Their items stay in the gallery.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use oboro_learn::evaluation::{Items, Options, Score, evaluate};
//! let rows = oboro_vectors::Matrix::new(2, vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9])?;
//! let items = Items::euclidean(&rows, &[0, 0, 1, 1])?;
//! let report = evaluate(&items, None, &Score::Cosine, &Options::default())?;
//! assert_eq!(report.recall[0].value, 1.0);
//! println!("{report}");
//! # Ok(())
//! # }
//! ```

mod clusters;
mod items;
mod ranking;
mod relevance;
mod report;
mod score;

pub use clusters::{Clusters, normalized_mutual_information};
pub use items::Items;
pub use ranking::{Neighbour, nearest};
pub use relevance::{average_precision_at_r, hit_at, ndcg_at, precision_at};
pub use report::{AtK, Options, Report, evaluate};
pub use score::Score;
