//! Data sets by name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oboro_learn::data::{self, Dataset, GARMENTS, ImageLimits, OnBad, Split, Testing};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};
use crate::or_failure::OrFailure;
use crate::progress::Progress;

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// The sets, and whether they have a folder.
const SETS: [(&str, bool); 11] = [
    ("garments", false),
    ("folders", true),
    ("cub", true),
    ("cars", true),
    ("sop", true),
    ("in-shop", true),
    ("fashion-mnist", true),
    ("mnist", true),
    ("omniglot", true),
    ("cifar", true),
    (PICTURES, true),
];
/// Images without classes: a folder or one file.
const PICTURES: &str = "pictures";

/// Before the classes that are not used at all.
const WITHOUT: &str = "without:";
/// Before the number of images of each class that are validated on.
const IMAGES: &str = "images:";

/// Which images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Images {
    /// `NAME:FOLDER`, or `garments`.
    pub(crate) set: String,
    /// Classes that are kept for testing, by name, or `last:N`; with `without:` before them,
    /// classes that are not used at all.
    #[serde(default)]
    pub(crate) hold_out: Vec<String>,
    /// What is set aside of the training part to validate on: classes by name, `last:N`, or
    /// `images:N` of every class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) validate: Vec<String>,
    /// Whether one bad record fails the whole set.
    #[serde(default)]
    pub(crate) strict: bool,
}

/// A part of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// What was trained on.
    Train,
    /// What was set aside of the training part, to choose on.
    Validation,
    /// What is tested on, each item against all others.
    Test,
    /// Queries, where they are apart from what they search.
    Query,
    /// What the queries search.
    Gallery,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Query => "query",
            Self::Gallery => "gallery",
        }
    }
}

/// The images of a set, in parts.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) train: Dataset,
    /// None where nothing is set aside of the training part.
    pub(crate) validation: Option<Dataset>,
    /// None where a set without a split holds no class out.
    pub(crate) testing: Option<Testing>,
}

impl Images {
    /// The name of the set.
    pub(crate) fn name(&self) -> &str {
        self.set.split(':').next().unwrap_or_default()
    }

    /// Whether its images have classes.
    pub(crate) fn has_classes(&self) -> bool {
        self.name() != PICTURES
    }

    /// The folder of the set's files.
    pub(crate) fn folder(&self) -> &Path {
        Path::new(self.set.split_once(':').map_or("", |(_, folder)| folder))
    }

    /// Loads the set and splits it.
    pub(crate) fn load(&self, progress: &Progress) -> Outcome<Parts> {
        let mut parts = self.split(progress)?;
        parts.train = with_records(&parts.train)?;
        if !self.validate.is_empty() {
            let (train, validation) = self.set_aside(&parts.train)?;
            parts.train = train;
            parts.validation = Some(validation);
        }
        Ok(parts)
    }

    /// The training part in two: what is trained on, and what is validated on.
    fn set_aside(&self, train: &Dataset) -> Outcome<(Dataset, Dataset)> {
        if let [word] = &self.validate[..]
            && let Some(each) = word.strip_prefix(IMAGES)
        {
            let each = each.parse().map_err(|_| {
                Failure::usage(format_args!(
                    "\"{word}\" names no number of images; write for instance images:5"
                ))
            })?;
            return train.set_aside(each).or_failure();
        }
        let (kept, aside) = self.chosen(&self.validate, train.classes())?;
        Ok((
            train.select_classes(&kept).or_failure()?,
            train.select_classes(&aside).or_failure()?,
        ))
    }

    /// Training and test part.
    fn split(&self, progress: &Progress) -> Outcome<Parts> {
        let on_bad = if self.strict {
            OnBad::Fail
        } else {
            OnBad::Skip
        };
        let (name, folder) = self.place()?;
        let official = match name {
            "garments" => return self.one(data::garments().or_failure()?, progress),
            "folders" => {
                let all = data::folders(&folder, on_bad).or_failure()?;
                return self.one(checked(all, on_bad, "all images", progress)?, progress);
            }
            PICTURES => {
                let all = data::pictures(&folder).or_failure()?;
                let all = checked(all, on_bad, "pictures", progress)?;
                // To embed; nothing can be learned without classes.
                return Ok(Parts {
                    train: all.clone(),
                    validation: None,
                    testing: Some(Testing::Together(all)),
                });
            }
            "cub" => data::cub(&folder, on_bad),
            "cars" => data::cars(&folder, on_bad),
            "sop" => data::sop(&folder, on_bad),
            "in-shop" => data::in_shop(&folder, on_bad),
            "fashion-mnist" => data::idx(&folder, &GARMENTS, on_bad),
            "mnist" => data::idx(&folder, &DIGITS, on_bad),
            "omniglot" => data::omniglot(&folder, on_bad),
            _ => data::cifar(&folder, on_bad),
        };
        let Split { train, testing } = official.or_failure()?;
        let train = checked(train, on_bad, "train", progress)?;
        if !self.hold_out.is_empty()
            && let Testing::Together(test) = &testing
            && test.classes() != train.classes()
        {
            // The test part has other classes anyway; what is held out of the training part is
            // for choosing settings without a look at the test.
            return self.one(train, progress);
        }
        let testing = match testing {
            Testing::Together(test) => Testing::Together(checked(test, on_bad, "test", progress)?),
            Testing::Apart { query, gallery } => Testing::Apart {
                query: checked(query, on_bad, "query", progress)?,
                gallery: checked(gallery, on_bad, "gallery", progress)?,
            },
        };
        if self.hold_out.is_empty() {
            return Ok(Parts {
                train: with_partners(train, on_bad, progress)?,
                validation: None,
                testing: Some(testing),
            });
        }
        let Testing::Together(test) = testing else {
            return Err(Failure::usage(format_args!(
                "the set {name} has queries apart from its gallery, and both already hold classes that are not trained on; leave --hold-out away"
            )));
        };
        let (kept, _) = self.classes(train.classes())?;
        let (_, held) = self.classes(test.classes())?;
        Ok(Parts {
            train: with_partners(train.select_classes(&kept).or_failure()?, on_bad, progress)?,
            validation: None,
            testing: Some(Testing::Together(with_partners(
                test.select_classes(&held).or_failure()?,
                on_bad,
                progress,
            )?)),
        })
    }

    /// A set without a split of its own.
    fn one(&self, all: Dataset, progress: &Progress) -> Outcome<Parts> {
        let on_bad = if self.strict {
            OnBad::Fail
        } else {
            OnBad::Skip
        };
        if self.hold_out.is_empty() {
            return Ok(Parts {
                train: with_partners(all, on_bad, progress)?,
                validation: None,
                testing: None,
            });
        }
        let (kept, held) = self.classes(all.classes())?;
        let part = |labels: &[u32]| {
            with_partners(all.select_classes(labels).or_failure()?, on_bad, progress)
        };
        Ok(Parts {
            train: part(&kept)?,
            validation: None,
            testing: Some(Testing::Together(part(&held)?)),
        })
    }

    /// Labels of the classes that are trained on, and of those held out.
    fn classes(&self, names: &[String]) -> Outcome<(Vec<u32>, Vec<u32>)> {
        self.chosen(&self.hold_out, names)
    }

    /// Labels of the classes that stay, and of those that are chosen.
    fn chosen(&self, words: &[String], names: &[String]) -> Outcome<(Vec<u32>, Vec<u32>)> {
        let mut used: Vec<u32> = (0..names.len() as u32).collect();
        let mut unused = BTreeSet::new();
        for wanted in words {
            if let Some(wanted) = wanted.strip_prefix(WITHOUT) {
                unused.extend(self.named(wanted, names, &used)?);
            }
        }
        used.retain(|at| !unused.contains(at));
        let mut held = BTreeSet::new();
        for wanted in words {
            if !wanted.starts_with(WITHOUT) {
                held.extend(self.named(wanted, names, &used)?);
            }
        }
        let count = used.len();
        let kept: Vec<u32> = used.into_iter().filter(|at| !held.contains(at)).collect();
        if kept.is_empty() || held.is_empty() {
            return Err(Failure::usage(format_args!(
                "of {count} classes {} are held out; keep one or more on both sides",
                held.len()
            )));
        }
        Ok((kept, held.into_iter().collect()))
    }

    /// The labels that a word of `--hold-out` means among those that are used.
    fn named(&self, wanted: &str, names: &[String], used: &[u32]) -> Outcome<Vec<u32>> {
        if let Some(count) = wanted.strip_prefix("last:") {
            let count: usize = count.parse().map_err(|_| {
                Failure::usage(format_args!(
                    "\"{wanted}\" names no number of classes; write for instance last:5"
                ))
            })?;
            return Ok(used[used.len().saturating_sub(count)..].to_vec());
        }
        let at = used.iter().find(|&&at| names[at as usize] == wanted);
        at.map(|&at| vec![at]).ok_or_else(|| {
            let some: Vec<&str> = used
                .iter()
                .take(12)
                .map(|&at| names[at as usize].as_str())
                .collect();
            Failure::usage(format_args!(
                "there is no class \"{wanted}\" to hold out among the {} of {}; they begin with {}",
                used.len(),
                self.name(),
                some.join(", ")
            ))
        })
    }

    /// The set's name and folder.
    fn place(&self) -> Outcome<(&'static str, PathBuf)> {
        let (name, folder) = match self.set.split_once(':') {
            Some((name, folder)) => (name, Some(folder)),
            None => (self.set.as_str(), None),
        };
        let Some(&(known, has_folder)) = SETS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = SETS.iter().map(|(name, _)| *name).collect();
            return Err(Failure::usage(format_args!(
                "there is no data set \"{name}\"; choose one of {} and write NAME:FOLDER",
                names.join(", ")
            )));
        };
        match (has_folder, folder) {
            (true, Some(folder)) if !folder.is_empty() => Ok((known, Path::new(folder).into())),
            (true, _) => Err(Failure::usage(format_args!(
                "the data set {known} needs its folder; write {known}:FOLDER"
            ))),
            (false, None) => Ok((known, PathBuf::new())),
            (false, Some(_)) => Err(Failure::usage(format_args!(
                "the data set {known} has no folder, this program brings it along; write {known}"
            ))),
        }
    }
}

impl Parts {
    /// One of the parts.
    pub(crate) fn part(self, part: Part) -> Outcome<Dataset> {
        let found = match (part, self.testing) {
            (Part::Train, _) => Some(self.train),
            (Part::Validation, _) => self.validation,
            (Part::Test, Some(Testing::Together(test))) => Some(test),
            (Part::Query, Some(Testing::Apart { query, .. })) => Some(query),
            (Part::Gallery, Some(Testing::Apart { gallery, .. })) => Some(gallery),
            _ => None,
        };
        found.ok_or_else(|| {
            Failure::usage(format_args!(
                "this set has no part {}; sets with a split of their own have train and test, In-Shop has train, query and gallery, others hold classes out with --hold-out; a run with --validate has validation",
                part.name()
            ))
        })
    }
}

/// Decodes every image once, so that no training ends at the first bad one.
fn checked(set: Dataset, on_bad: OnBad, part: &str, progress: &Progress) -> Outcome<Dataset> {
    let before = set.len();
    let bar = progress.bar(&format!("reading images ({part})"), None);
    let set = set.verify(&ImageLimits::default(), on_bad).or_failure()?;
    bar.finish_and_clear();
    if set.refused().total() > 0 {
        progress.remark(format_args!("{part}, {before} records: {}", set.refused()));
    }
    Ok(set)
}

/// Leaves out classes without records, which no batch could take and no proxy should stand for.
fn with_records(set: &Dataset) -> Outcome<Dataset> {
    let labels: BTreeSet<u32> = set.labels().into_iter().collect();
    let labels: Vec<u32> = labels.into_iter().collect();
    set.select_classes(&labels).or_failure()
}

/// Leaves out items that are alone in their class.
fn with_partners(set: Dataset, on_bad: OnBad, progress: &Progress) -> Outcome<Dataset> {
    let before = set.len();
    let set = set.without_single_items(on_bad).or_failure()?;
    if set.len() < before {
        progress.remark(format_args!(
            "{} items are alone in their class and left out",
            before - set.len()
        ));
    }
    Ok(set)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn split(hold_out: &str) -> Outcome<(Vec<u32>, Vec<u32>)> {
        let images = Images {
            set: "folders:somewhere".to_owned(),
            hold_out: hold_out.split(',').map(str::to_owned).collect(),
            validate: Vec::new(),
            strict: false,
        };
        let names = ["ant", "bee", "cat", "dog", "eel"].map(str::to_owned);
        images.classes(&names)
    }

    #[test]
    fn classes_are_kept_held_out_or_not_used() {
        assert_eq!(split("bee").unwrap(), (vec![0, 2, 3, 4], vec![1]));
        assert_eq!(split("last:2").unwrap(), (vec![0, 1, 2], vec![3, 4]));
        assert_eq!(
            split("last:1,without:bee").unwrap(),
            (vec![0, 2, 3], vec![4])
        );
        // What is not used is not among the last ones.
        assert_eq!(
            split("without:last:2,last:1,ant").unwrap(),
            (vec![1], vec![0, 2])
        );
    }

    #[test]
    fn fail_classes_that_cannot_be_held_out() {
        for hold_out in [
            "fox",
            "without:fox,bee",
            "without:bee,bee",
            "without:bee",
            "last:5",
            "last:0",
            "last:many",
            "without:last:4,last:1",
        ] {
            assert!(split(hold_out).is_err(), "{hold_out}");
        }
    }
}
