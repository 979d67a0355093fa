//! The shape of an index that is built blindly.

use oboro_ckks::{BatchPacking, MaskedBatchCodebook, MaskedCodebook, ParameterSet};

use crate::shape::{Shape, Size};
use crate::{BuildOptions, OwnerError};

/// Most bytes of an encrypted codebook, which the roles send each other in one message.
const CODEBOOK_BYTES: usize = 63 << 20;

/// As in a local build, but that vectors of many values have more sub-quantizers where their
/// number is not said: as many as make a codebook that can be sent.
pub(super) fn shape(
    size: Size,
    set: ParameterSet,
    options: &BuildOptions,
) -> Result<Shape, OwnerError> {
    // Blind k-means starts from as many encrypted vectors as there are centroids.
    if size.rows < options.centroids {
        return Err(OwnerError::TooFewVectors {
            vectors: size.rows,
            centroids: options.centroids,
        });
    }
    let mut shape = Shape::of_size(size, set, options)?;
    if options.subquantizers.is_some() {
        return Ok(shape);
    }
    let mut options = options.clone();
    while codebook_bytes(&shape)? > CODEBOOK_BYTES {
        let subquantizers = shape.packing.subquantizers();
        if subquantizers == size.dimension {
            break;
        }
        options.subquantizers = Some((2 * subquantizers).min(size.dimension));
        shape = Shape::of_size(size, set, &options)?;
    }
    Ok(shape)
}

fn codebook_bytes(shape: &Shape) -> Result<usize, OwnerError> {
    let batches = BatchPacking::of(&shape.packing)?;
    Ok(MaskedBatchCodebook::encoded_len(&batches).max(MaskedCodebook::largest_len(&shape.packing)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::default_subquantizers;

    fn of(dimension: usize, options: &BuildOptions) -> Shape {
        let size = Size {
            rows: 1_000,
            dimension,
        };
        shape(size, ParameterSet::N2048Q50, options).unwrap()
    }

    #[test]
    fn fail_fewer_vectors_than_centroids() {
        let size = Size {
            rows: 255,
            dimension: 8,
        };
        let refused = shape(size, ParameterSet::N2048Q50, &BuildOptions::default());
        assert!(matches!(
            refused,
            Err(OwnerError::TooFewVectors {
                vectors: 255,
                centroids: 256
            })
        ));
    }

    #[test]
    fn codebooks_of_many_dimensions_can_be_sent() {
        let options = BuildOptions::default();
        for dimension in [1, 2, 97, 128, 960, 1_536, 2_048] {
            let subquantizers = of(dimension, &options).packing.subquantizers();
            assert_eq!(subquantizers, default_subquantizers(dimension));
        }
        for dimension in [2_400, 3_072, 4_096] {
            let shape = of(dimension, &options);
            assert!(shape.packing.subquantizers() > default_subquantizers(dimension));
            assert!(codebook_bytes(&shape).unwrap() <= CODEBOOK_BYTES);
        }
        // Who names a number gets it, or is told by the roles.
        let options = BuildOptions {
            subquantizers: Some(64),
            ..BuildOptions::default()
        };
        assert_eq!(of(4_096, &options).packing.subquantizers(), 64);
    }
}
