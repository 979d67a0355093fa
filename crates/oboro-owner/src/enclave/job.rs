//! What the generator is told before the records come.

use oboro_ckks::PublicKey;
use oboro_index::{BuildKeys, RecordEncoding, RecordLayout};
use zeroize::Zeroizing;

use crate::prepare::LARGEST_NORM;
use crate::shape::{Shape, Size};
use crate::{BuildOptions, OwnerError};

/// Everything that a generator must know before the vectors.
///
/// Of the options it uses those that concern the index; threads, progress and
/// cancellation are its own.
pub struct Job {
    /// The keys of the new index, which name it.
    pub keys: BuildKeys,
    /// The keeper's public key, as the owner knows it.
    pub keeper: PublicKey,
    /// From which everything random in the build follows.
    pub seed: Zeroizing<[u8; 32]>,
    /// How to build.
    pub options: BuildOptions,
    /// Vectors that will come.
    pub vectors: usize,
    /// Values of a vector.
    pub dimension: usize,
    /// How originals are stored.
    pub originals: RecordEncoding,
    /// Bytes of each record for text id and payload.
    pub extra_bytes: u32,
    /// What stands for each tag.
    pub tags: Vec<[u8; 8]>,
    /// The largest Euclidean norm of a vector.
    pub largest_norm: f32,
    /// The rows of the trial queries, ascending.
    pub trial_rows: Vec<usize>,
    /// How vectors travel.
    pub form: Form,
}

/// How vectors travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A byte a value: all are whole numbers from 0 to 255.
    Bytes,
    /// Four bytes a value, in single precision.
    Single,
}

impl Form {
    /// Bytes of a value.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Bytes => 1,
            Self::Single => 4,
        }
    }

    /// Packs values.
    #[must_use]
    pub fn pack(self, values: &[f32]) -> Vec<u8> {
        match self {
            // Exact for what is packed so.
            Self::Bytes => values.iter().map(|&value| value as u8).collect(),
            Self::Single => {
                let mut bytes = vec![0; values.len() * 4];
                for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *bytes = value.to_le_bytes();
                }
                bytes
            }
        }
    }

    /// Unpacks values; `None` where they are not finite or no whole number of them.
    #[must_use]
    pub fn unpack(self, bytes: &[u8]) -> Option<Vec<f32>> {
        match self {
            Self::Bytes => Some(bytes.iter().map(|&byte| f32::from(byte)).collect()),
            Self::Single => {
                let (values, rest) = bytes.as_chunks::<4>();
                let values: Vec<f32> = values.iter().map(|&v| f32::from_le_bytes(v)).collect();
                // Without early exit, so that the compiler can vectorize it.
                let finite = values.iter().fold(true, |ok, value| ok & value.is_finite());
                (finite && rest.is_empty()).then_some(values)
            }
        }
    }
}

impl Job {
    pub(crate) const fn layout(&self) -> RecordLayout {
        RecordLayout {
            encoding: self.originals,
            dimension: self.dimension,
            extra_bytes: self.extra_bytes,
        }
    }

    pub(crate) fn shape(&self) -> Result<Shape, OwnerError> {
        let size = Size {
            rows: self.vectors,
            dimension: self.dimension,
        };
        Shape::of_size(size, self.keeper.parameter_set(), &self.options)
    }

    /// Vectors that come before the records: those to train on, then the trial queries.
    ///
    /// # Errors
    /// If the job cannot be done: the sizes, the options or the bounds are wrong.
    pub fn early_vectors(&self) -> Result<usize, OwnerError> {
        let wrong = |what: &str| Err(OwnerError::Generator(format!("the job {what}")));
        if !(self.largest_norm > 0.0 && self.largest_norm <= LARGEST_NORM) {
            return wrong("names a largest norm that no vectors have");
        }
        let ascending = self.trial_rows.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending
            || self
                .trial_rows
                .last()
                .is_some_and(|&row| row >= self.vectors)
        {
            return wrong("names trial queries that are no rows in order");
        }
        Ok(self.shape()?.sample + self.trial_rows.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_travel() {
        let whole = [0.0, 1.0, 255.0];
        assert_eq!(
            Form::Bytes.unpack(&Form::Bytes.pack(&whole)).unwrap(),
            whole
        );
        let values = [0.1, -3e20, f32::MIN_POSITIVE];
        assert_eq!(
            Form::Single.unpack(&Form::Single.pack(&values)).unwrap(),
            values
        );
    }

    #[test]
    fn fail_values_that_are_none() {
        assert!(Form::Single.unpack(&[0; 7]).is_none());
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(Form::Single.unpack(&value.to_le_bytes()).is_none());
        }
    }
}
