//! What follows from sizes and options alone.

use oboro_ckks::{Packing, ParameterSet};
use oboro_quant::Subspaces;

use crate::{BuildOptions, OwnerError, VectorSource, default_subquantizers, lists};

/// Everything that follows from sizes and options.
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) dimension: usize,
    pub(crate) subspaces: Subspaces,
    pub(crate) packing: Packing,
    pub(crate) sample: usize,
    pub(crate) candidates_max: usize,
    /// Most lists that one search looks at; 0 without lists.
    pub(crate) probes_max: u32,
}

/// How many vectors of how many values.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) dimension: usize,
}

impl Shape {
    pub(crate) fn of(
        source: &dyn VectorSource,
        set: ParameterSet,
        options: &BuildOptions,
    ) -> Result<Self, OwnerError> {
        let size = Size {
            rows: source.rows(),
            dimension: source.dimension(),
        };
        Self::of_size(size, set, options)
    }

    pub(crate) fn of_size(
        size: Size,
        set: ParameterSet,
        options: &BuildOptions,
    ) -> Result<Self, OwnerError> {
        let Size { rows, dimension } = size;
        let subquantizers = options
            .subquantizers
            .unwrap_or_else(|| default_subquantizers(dimension));
        if subquantizers > dimension {
            return Err(OwnerError::TooManySubquantizers {
                subquantizers,
                dimension,
            });
        }
        let maximum = u32::MAX as usize;
        if rows > maximum {
            return Err(OwnerError::TooManyVectors {
                vectors: rows,
                maximum,
            });
        }
        let subspaces = Subspaces::new(dimension, subquantizers)?;
        let width = subspaces.width();
        let centroids = options.centroids;
        let packing = match options.split {
            None => Packing::balanced(set, subquantizers, width, centroids)?,
            Some(split) => {
                Packing::new(set, subquantizers, width, centroids, split).or_else(|error| {
                    // A small split may not fit wide sub-spaces; one that does
                    // exists unless something else is wrong.
                    match Packing::compact_query(set, subquantizers, width, centroids) {
                        Ok(packing) if packing.split() > split => Ok(packing),
                        _ => Err(error),
                    }
                })?
            }
        };
        Ok(Self {
            rows,
            dimension,
            subspaces,
            packing,
            sample: options
                .sample
                .unwrap_or((256 * options.centroids).max(lists::SAMPLED * options.lists))
                .max(options.centroids)
                .min(rows),
            // Not bounded by the rows: the index may grow.
            candidates_max: options.candidates_max.clamp(1, oboro_quant::MAX_CANDIDATES),
            probes_max: lists::probes_max(rows, options)?,
        })
    }
}
