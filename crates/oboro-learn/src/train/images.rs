//! Batches of images for training.

use crate::LearnError;
use crate::data::{Augmentation, Dataset, ImageLimits, Input};
use burn::tensor::{Device, Tensor, TensorData};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use rayon::prelude::*;

/// Where a batch comes from.
pub(super) struct Images<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) input: &'a Input,
    pub(super) augmentation: Augmentation,
    pub(super) limits: ImageLimits,
    pub(super) seed: [u8; 32],
}

impl Images<'_> {
    /// Reads and augments a batch. Each image draws from a stream of its own,
    /// `first` and those after it, so threads may take them in any order.
    pub(super) fn batch(
        &self,
        indices: &[usize],
        first: u64,
        device: &Device,
    ) -> Result<Tensor<4>, LearnError> {
        let values = indices
            .par_iter()
            .enumerate()
            .map(|(row, &index)| {
                let image = self.dataset.image(index, &self.limits)?;
                let mut rng = ChaCha20Rng::from_seed(self.seed);
                rng.set_stream(first.wrapping_add(row as u64));
                Ok(self.augmentation.prepare(self.input, image, &mut rng))
            })
            .collect::<Result<Vec<_>, LearnError>>()?
            .concat();
        let Input { channels, side, .. } = *self.input;
        let shape = [indices.len(), channels, side, side];
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }
}
