//! Batches of P classes with K items each.

use crate::LearnError;
use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// Draws batches of `classes * items` records: that many items of each of
/// that many classes.
///
/// Every class comes equally often: an epoch goes through a shuffled list of
/// the classes, and through another when it ends. A class with fewer items
/// than a batch wants of it gives all of them before any comes twice. Batches
/// depend on the seed, the epoch and the labels alone, so training resumes in
/// the middle of an epoch by skipping batches.
///
/// ```
/// # fn main() -> Result<(), oboro_learn::LearnError> {
/// let labels = [0, 0, 0, 1, 1, 2, 2, 2, 2];
/// let sampler = oboro_learn::data::ClassBalanced::new(&labels, 2, 2, [7; 32])?;
/// for batch in sampler.epoch(0) {
///     assert_eq!(batch.len(), 4);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClassBalanced {
    /// The records of each class, classes ascending.
    members: Vec<Vec<usize>>,
    classes: usize,
    items: usize,
    batches: usize,
    seed: [u8; 32],
}

impl ClassBalanced {
    /// A sampler over records with these labels. An epoch has as many batches
    /// as it takes to draw as many records as there are, at least one.
    ///
    /// # Errors
    /// When `classes` or `items` is zero, or there are fewer classes than a
    /// batch needs.
    pub fn new(
        labels: &[u32],
        classes: usize,
        items: usize,
        seed: [u8; 32],
    ) -> Result<Self, LearnError> {
        let mut by_class: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (index, &label) in labels.iter().enumerate() {
            by_class.entry(label).or_default().push(index);
        }
        if classes == 0 || classes > by_class.len() {
            return Err(LearnError::Setting {
                what: "the number of classes in a batch",
                actual: classes.to_string(),
                wanted: "choose between 1 and the number of classes with records",
            });
        }
        if items == 0 {
            return Err(LearnError::Setting {
                what: "the number of items of a class in a batch",
                actual: "0".to_owned(),
                wanted: "choose 1 or more; losses over pairs need 2",
            });
        }
        Ok(Self {
            members: by_class.into_values().collect(),
            classes,
            items,
            batches: (labels.len() / (classes * items)).max(1),
            seed,
        })
    }

    /// Batches of an epoch.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches
    }

    /// The batches of an epoch, each a list of record numbers, class after
    /// class.
    pub fn epoch(&self, epoch: u64) -> impl Iterator<Item = Vec<usize>> + '_ {
        let mut rng = ChaCha20Rng::from_seed(self.seed);
        rng.set_stream(epoch);
        let mut waiting: Vec<usize> = Vec::new();
        // What is left of each class's shuffled items.
        let mut left: Vec<Vec<usize>> = vec![Vec::new(); self.members.len()];
        (0..self.batches).map(move |_| {
            let mut chosen: Vec<usize> = Vec::with_capacity(self.classes);
            while chosen.len() < self.classes {
                // The end of one list and the start of the next may name a
                // class twice; the second waits for the next batch.
                if let Some(at) = waiting.iter().rposition(|c| !chosen.contains(c)) {
                    chosen.push(waiting.remove(at));
                } else {
                    let mut next: Vec<usize> = (0..self.members.len()).collect();
                    shuffle(&mut rng, &mut next);
                    next.append(&mut waiting);
                    waiting = next;
                }
            }
            let mut batch = Vec::with_capacity(self.classes * self.items);
            for class in chosen {
                let start = batch.len();
                while batch.len() < start + self.items {
                    let left = &mut left[class];
                    if left.is_empty() {
                        left.clone_from(&self.members[class]);
                        shuffle(&mut rng, left);
                        // What this batch has of the class already comes
                        // last: they are taken from the end.
                        left.sort_by_key(|item| !batch[start..].contains(item));
                    }
                    batch.extend(left.pop());
                }
            }
            batch
        })
    }
}

/// Fisher and Yates.
fn shuffle(rng: &mut impl Rng, items: &mut [usize]) {
    for i in (1..items.len()).rev() {
        items.swap(i, below(rng, i + 1));
    }
}

/// A number below `bound`, each equally likely.
pub(crate) fn below(rng: &mut impl Rng, bound: usize) -> usize {
    let bound = bound.max(1) as u64;
    // The last, incomplete run of `bound` numbers would favour the low ones.
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let value = rng.next_u64();
        if value < limit {
            return (value % bound) as usize;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn classes_come_equally_often_and_all_items_come() {
        let labels: Vec<u32> = (0..120).map(|i| i % 10).collect();
        let sampler = ClassBalanced::new(&labels, 5, 4, [1; 32]).unwrap();
        assert_eq!(sampler.batches(), 6);
        let drawn: Vec<usize> = sampler.epoch(3).flatten().collect();
        assert_eq!(drawn.iter().collect::<HashSet<_>>().len(), 120);
        assert_ne!(drawn, sampler.epoch(4).flatten().collect::<Vec<_>>());
        // Resuming in the middle.
        let rest: Vec<usize> = sampler.epoch(3).skip(2).flatten().collect();
        assert_eq!(rest, drawn[40..]);
    }

    #[test]
    fn the_order_is_pinned() {
        // A checkpoint of one version resumes under the next.
        let labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, 7];
        let sampler = ClassBalanced::new(&labels, 3, 2, [9; 32]).unwrap();
        let first: Vec<usize> = sampler.epoch(0).flatten().collect();
        assert_eq!(first, [5, 2, 9, 9, 4, 7]);
    }

    #[test]
    fn fail_batches_that_cannot_be() {
        assert!(ClassBalanced::new(&[0, 0, 1], 3, 1, [0; 32]).is_err());
        assert!(ClassBalanced::new(&[0, 0, 1], 0, 1, [0; 32]).is_err());
        assert!(ClassBalanced::new(&[0, 0, 1], 1, 0, [0; 32]).is_err());
        assert!(ClassBalanced::new(&[], 1, 1, [0; 32]).is_err());
    }

    proptest! {
        #[test]
        fn batches_are_balanced(
            labels in proptest::collection::vec(0u32..9, 1..80),
            classes in 1usize..9,
            items in 1usize..6,
            seed: [u8; 32],
        ) {
            let known: HashSet<u32> = labels.iter().copied().collect();
            prop_assume!(classes <= known.len());
            let sampler = ClassBalanced::new(&labels, classes, items, seed).unwrap();
            let mut count = 0;
            for batch in sampler.epoch(1) {
                count += 1;
                prop_assert_eq!(batch.len(), classes * items);
                let mut seen = HashSet::new();
                for group in batch.chunks(items) {
                    let label = labels[group[0]];
                    prop_assert!(seen.insert(label));
                    prop_assert!(group.iter().all(|&i| labels[i] == label));
                    let size = labels.iter().filter(|&&l| l == label).count();
                    let distinct = group.iter().collect::<HashSet<_>>().len();
                    prop_assert_eq!(distinct, items.min(size));
                }
            }
            prop_assert_eq!(count, sampler.batches());
        }
    }
}
