//! Putting vectors into lists, of which a search looks at a few only.

use std::sync::Arc;

use oboro_index::MAX_PROBES;
use oboro_quant::ivf::{CoarseCentroids, CoarseOptions, MAX_LISTS};
use oboro_quant::{Metric, QuantError};

use crate::shape::Shape;
use crate::{BuildOptions, OwnerError, Stage};

/// How much longer than the mean a list may be when an index is built; all lists are as
/// long as the longest.
pub(crate) const SLACK: f64 = 1.25;

/// Vectors of the sample for each list, where no other number is given.
pub(crate) const SAMPLED: usize = 32;

/// Of how many lists a search looks at one where nothing else is said.
const SHARE: usize = 16;

/// Lists of an index and how many of them a search looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListsReport {
    /// Lists.
    pub lists: usize,
    /// Most lists that one search looks at, and the usual number.
    pub probes_max: u32,
    /// Vectors of each list, fillers included; 0 where so few vectors are there that
    /// every search looks at all of them.
    pub places: usize,
    /// 10-recall@10 of the trial queries after re-ranking, looking at as many lists; `None`
    /// where they had nothing to find.
    pub recall_10_at_10: Option<f64>,
}

/// Checks what was asked for; how many lists a search looks at.
pub(crate) fn probes_max(rows: usize, options: &BuildOptions) -> Result<u32, OwnerError> {
    let lists = options.lists;
    if options.metric == Metric::Lorentz && (options.opq.is_some() || lists > 0) {
        return Err(OwnerError::LorentzModel);
    }
    if lists == 0 {
        return match options.probes_max {
            None => Ok(0),
            Some(_) => Err(OwnerError::ProbesWithoutLists),
        };
    }
    let most = MAX_LISTS.min(rows);
    if lists > most {
        return Err(OwnerError::TooManyLists {
            lists,
            maximum: most,
        });
    }
    let limit = lists.min(MAX_PROBES as usize);
    let probes = options
        .probes_max
        .unwrap_or((lists / SHARE).clamp(1, limit));
    if !(1..=limit).contains(&probes) {
        return Err(OwnerError::Probes {
            probes,
            lists,
            maximum: limit,
        });
    }
    Ok(probes as u32)
}

/// Learns the centres of the lists from vectors to which all else was applied.
pub(crate) fn learn(
    sample: &[f32],
    shape: &Shape,
    options: &BuildOptions,
) -> Result<CoarseCentroids, OwnerError> {
    let learning = CoarseOptions {
        cancel: Arc::clone(&options.cancel),
        progress: options.progress.clone().map(|progress| {
            Arc::new(move |done, total| progress(Stage::Lists, done, total))
                as oboro_quant::Progress
        }),
        ..CoarseOptions::new(options.lists, options.seed)
    };
    match CoarseCentroids::train(sample, shape.dimension, &learning) {
        Err(QuantError::Cancelled) => Err(OwnerError::Cancelled),
        result => Ok(result?),
    }
}
