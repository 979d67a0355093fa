use super::{ImageLimits, OnBad, Pixels, Reason, Refused, decode};
use crate::LearnError;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a record's image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A PNG or JPEG file.
    File(PathBuf),
    /// The image of this number in the set's memory.
    Memory(u32),
}

/// One labelled image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its image.
    pub source: Source,
    /// Its class, an index into [`Dataset::classes`].
    pub label: u32,
}

/// Images of one size, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stack {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) channels: u8,
    pub(super) data: Vec<u8>,
}

/// Labelled images of one part of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    pub(super) classes: Vec<String>,
    pub(super) records: Vec<Record>,
    pub(super) stack: Option<Arc<Stack>>,
    pub(super) refused: Refused,
}

/// A data set with its official split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// What to learn from.
    pub train: Dataset,
    /// What to evaluate on.
    pub testing: Testing,
}

/// How the test part is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Testing {
    /// Every item is a query against all others.
    Together(Dataset),
    /// Queries against a gallery; both have the same classes.
    Apart {
        /// The queries.
        query: Dataset,
        /// What they search.
        gallery: Dataset,
    },
}

impl Dataset {
    /// The names of the classes; a label is an index into them.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The records, in the order of the list or of the sorted names.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The label of each record.
    #[must_use]
    pub fn labels(&self) -> Vec<u32> {
        self.records.iter().map(|r| r.label).collect()
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What was left out so far.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// Where the image of each record is: its path, below `root` where it is
    /// there, or `#` and its number among the set's images.
    #[must_use]
    pub fn places(&self, root: &Path) -> Vec<String> {
        let place = |record: &Record| match &record.source {
            Source::File(path) => path
                .strip_prefix(root)
                .unwrap_or(path)
                .display()
                .to_string(),
            Source::Memory(number) => format!("#{number}"),
        };
        self.records.iter().map(place).collect()
    }

    /// Decodes the image of a record.
    ///
    /// # Errors
    /// When it cannot be read.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn image(&self, index: usize, limits: &ImageLimits) -> Result<Pixels, LearnError> {
        match (&self.records[index].source, &self.stack) {
            (Source::File(path), _) => decode(path, limits),
            (Source::Memory(number), Some(stack)) => {
                let pixels = stack.width as usize * stack.height as usize;
                let size = pixels * usize::from(stack.channels);
                Ok(Pixels {
                    width: stack.width,
                    height: stack.height,
                    channels: stack.channels,
                    data: stack.data[*number as usize * size..][..size].to_vec(),
                })
            }
            (Source::Memory(number), None) => Err(LearnError::Setting {
                what: "an image in memory",
                actual: number.to_string(),
                wanted: "load the data set again",
            }),
        }
    }

    /// Decodes every image once and refuses those that fail; takes as long as
    /// a pass over the data.
    ///
    /// # Errors
    /// Under [`OnBad::Fail`] when any was refused; when none is left.
    pub fn verify(mut self, limits: &ImageLimits, on_bad: OnBad) -> Result<Self, LearnError> {
        let failures: Vec<Option<String>> = (0..self.records.len())
            .into_par_iter()
            .map(|index| self.image(index, limits).err().map(|e| e.to_string()))
            .collect();
        let mut refused = Refused::default();
        for failure in failures.iter().flatten() {
            refused.add(Reason::UnreadableImage, || failure.clone());
        }
        let mut bad = failures.iter();
        self.records
            .retain(|_| bad.next().is_none_or(Option::is_none));
        self.settle(refused, on_bad, Path::new("the data set"))
    }

    /// Refuses items that are alone in their class: there is nothing to pull
    /// them to, and nothing that they could find.
    ///
    /// # Errors
    /// Under [`OnBad::Fail`] when any was refused; when none is left.
    pub fn without_single_items(mut self, on_bad: OnBad) -> Result<Self, LearnError> {
        let mut sizes: HashMap<u32, usize> = HashMap::new();
        for record in &self.records {
            *sizes.entry(record.label).or_insert(0) += 1;
        }
        let mut refused = Refused::default();
        let classes = &self.classes;
        self.records.retain(|record| {
            let alone = sizes[&record.label] == 1;
            if alone {
                refused.add(Reason::OneItemClass, || {
                    classes[record.label as usize].clone()
                });
            }
            !alone
        });
        self.settle(refused, on_bad, Path::new("the data set"))
    }

    /// The records of these classes alone, renumbered in the order given: to
    /// hold classes out.
    ///
    /// # Errors
    /// When a label is out of range.
    pub fn select_classes(&self, labels: &[u32]) -> Result<Self, LearnError> {
        let mut renumbered = HashMap::new();
        let mut classes = Vec::new();
        for &label in labels {
            let name = self
                .classes
                .get(label as usize)
                .ok_or_else(|| LearnError::Setting {
                    what: "a class to select",
                    actual: label.to_string(),
                    wanted: "give labels below the number of classes",
                })?;
            renumbered.entry(label).or_insert_with(|| {
                classes.push(name.clone());
                classes.len() as u32 - 1
            });
        }
        let records = self.records.iter().filter_map(|record| {
            renumbered.get(&record.label).map(|&label| Record {
                source: record.source.clone(),
                label,
            })
        });
        Ok(Self {
            records: records.collect(),
            classes,
            stack: self.stack.clone(),
            refused: self.refused.clone(),
        })
    }

    /// The data set in two: what is kept, and `each` images of every class,
    /// taken evenly from its order, to validate on classes that are trained on.
    /// Classes that would keep fewer than two images give none.
    ///
    /// # Errors
    /// When `each` is less than two, or no class has two images more than that.
    pub fn set_aside(&self, each: usize) -> Result<(Self, Self), LearnError> {
        let mut sizes = vec![0; self.classes.len()];
        for record in &self.records {
            sizes[record.label as usize] += 1;
        }
        let most = sizes.iter().copied().max().unwrap_or(0);
        if each < 2 || most < each.saturating_add(2) {
            return Err(LearnError::Setting {
                what: "the images of each class to set aside",
                actual: format!("{each} where the largest class has {most}"),
                wanted: "set two or more aside and keep two or more",
            });
        }
        let mut seen = vec![0; self.classes.len()];
        let (mut kept, mut aside) = (Vec::new(), Vec::new());
        for record in &self.records {
            let (size, at) = (
                sizes[record.label as usize],
                &mut seen[record.label as usize],
            );
            // Of `size` images in a row, those where another `each`-th begins.
            let taken = size >= each + 2 && (*at + 1) * each / size > *at * each / size;
            *at += 1;
            if taken { &mut aside } else { &mut kept }.push(record.clone());
        }
        let with = |records| Self {
            records,
            classes: self.classes.clone(),
            stack: self.stack.clone(),
            refused: self.refused.clone(),
        };
        Ok((with(kept), with(aside)))
    }

    /// Adds what was refused to the count and fails where that is demanded.
    pub(super) fn settle(
        mut self,
        refused: Refused,
        on_bad: OnBad,
        path: &Path,
    ) -> Result<Self, LearnError> {
        if on_bad == OnBad::Fail && refused.total() > 0 {
            return Err(LearnError::Refused { refused });
        }
        self.refused.merge(refused);
        if self.records.is_empty() {
            return Err(LearnError::Empty {
                path: path.to_owned(),
                refused: self.refused,
            });
        }
        Ok(self)
    }
}
