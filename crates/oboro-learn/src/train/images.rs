//! Batches of images for training.

use crate::LearnError;
use crate::data::{Augmentation, Dataset, ImageLimits, Input};
use burn::tensor::TensorData;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use rayon::prelude::*;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;

/// Where a batch comes from.
pub(super) struct Images<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) input: &'a Input,
    pub(super) augmentation: Augmentation,
    pub(super) limits: ImageLimits,
    pub(super) seed: [u8; 32],
}

/// A batch in main memory.
pub(super) struct Batch {
    /// Its records.
    pub(super) order: Vec<usize>,
    /// Its images, `[batch, channels, side, side]`.
    pub(super) pixels: TensorData,
}

impl Images<'_> {
    /// Prepares batches of the records that `orders` name and gives them to
    /// `work`, one after the other, until it breaks off; tells whether it did.
    ///
    /// Each image draws from a stream of its own, `first` and those after it,
    /// so threads may take them in any order. With `ahead` above 0 so many
    /// batches are prepared on other threads while `work` is busy, for a
    /// device that leaves them idle.
    pub(super) fn each(
        &self,
        orders: impl Iterator<Item = Vec<usize>> + Send,
        first: u64,
        ahead: usize,
        mut work: impl FnMut(Batch) -> Result<ControlFlow<()>, LearnError>,
    ) -> Result<ControlFlow<()>, LearnError> {
        let mut stream = first;
        let mut batches = orders.map(|order| {
            let batch = self.batch(order, stream);
            stream = stream.wrapping_add(batch.as_ref().map_or(0, |b| b.order.len() as u64));
            batch
        });
        let mut all = |batches: &mut dyn Iterator<Item = Result<Batch, LearnError>>| {
            for batch in batches {
                if work(batch?)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        if ahead == 0 {
            return all(&mut batches);
        }
        let (sender, receiver) = mpsc::sync_channel(ahead);
        thread::scope(|scope| {
            scope.spawn(move || {
                for batch in batches {
                    // Nobody listens once the work has broken off.
                    if sender.send(batch).is_err() {
                        break;
                    }
                }
            });
            all(&mut receiver.into_iter())
        })
    }

    /// Reads and augments a batch.
    fn batch(&self, order: Vec<usize>, first: u64) -> Result<Batch, LearnError> {
        let values = order
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
        let shape = [order.len(), channels, side, side];
        Ok(Batch {
            pixels: TensorData::new(values, shape),
            order,
        })
    }
}
