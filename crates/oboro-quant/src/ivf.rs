//! Inverted files: vectors in lists around coarse centroids, of which a search
//! looks at the nearest few only.
//!
//! Codes are of the vectors themselves, not of residuals, so that one table
//! serves all lists. All lists have the same number of places; fillers make
//! up what is missing, and masks leave them out.
//!
//! # Security
//! **Probing gives away what the full scan hides.** The numbers of the lists
//! that a query probes are the neighbourhood that it falls into. Who learns
//! them, for every query:
//! - the searcher, which is told;
//! - the host, which sees the addresses or pages that a scan touches, and
//!   could also tell that two queries are close, or follow how often which
//!   list is asked for;
//! - not the network: a request is as long for any lists.
//!
//! What stays hidden: within the probed lists, which vectors score well and
//! how; how many vectors a list really has (all are of equal length); and, as
//! long as always the same number of lists is probed, nothing in time or
//! length. A host that knows what lies in a list, because it may insert or
//! knows some vectors, learns what a query is about. Off unless chosen.

mod centroids;
mod choices;
mod lists;

use crate::QuantError;

pub use centroids::{CoarseCentroids, CoarseOptions};
pub use choices::Choices;
pub use lists::{IvfLists, Probed};

/// The most lists.
pub const MAX_LISTS: usize = 1 << 16;

fn check_lists(lists: usize) -> Result<(), QuantError> {
    if lists == 0 || lists > MAX_LISTS {
        return Err(QuantError::OutOfRange {
            what: "the number of lists",
            actual: lists,
            minimum: 1,
            maximum: MAX_LISTS,
        });
    }
    Ok(())
}

fn no_such_list(list: u32, lists: usize) -> QuantError {
    QuantError::OutOfRange {
        what: "a list",
        actual: list as usize,
        minimum: 0,
        maximum: lists - 1,
    }
}

#[cfg(test)]
mod tests;
