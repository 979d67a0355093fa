//! CIFAR-10 and CIFAR-100: the official binary files, or folders of images.

use super::dataset::Stack;
use super::{Dataset, OnBad, Reason, Record, Refused, Source, Split, Testing, cifar_folders};
use crate::LearnError;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Pixels of a side.
const SIDE: usize = 32;
/// Bytes of an image: red, green and blue, one after the other.
const IMAGE: usize = 3 * SIDE * SIDE;
/// Most bytes of a file; the largest official one has 154 million.
const MAX_BYTES: u64 = 1 << 28;

/// One of the two sets as its archive holds it.
struct Form {
    train: &'static [&'static str],
    test: &'static str,
    /// A line a class.
    names: &'static str,
    classes: usize,
    /// Bytes before an image; the last of them is its class.
    labels: usize,
}

const TEN: Form = Form {
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: "test_batch.bin",
    names: "batches.meta.txt",
    classes: 10,
    labels: 1,
};

/// Its twenty coarse classes, the first byte, are not read.
const HUNDRED: Form = Form {
    train: &["train.bin"],
    test: "test.bin",
    names: "fine_label_names.txt",
    classes: 100,
    labels: 2,
};

/// CIFAR-10 from `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`,
/// CIFAR-100 from `train.bin` and `test.bin` (its fine classes), or either as
/// [`cifar_folders`]. Classes have the names of the archive's list, and their
/// numbers where there is none.
///
/// # Errors
/// When the folder holds none of these, or a file cannot be read or ends within
/// an image; under [`OnBad::Fail`] when a label is out of range.
pub fn cifar(root: &Path, on_bad: OnBad) -> Result<Split, LearnError> {
    if root.join("train").is_dir() {
        return cifar_folders(root, on_bad);
    }
    let found = [TEN, HUNDRED]
        .into_iter()
        .find(|form| root.join(form.train[0]).is_file());
    let Some(form) = found else {
        return Err(LearnError::Malformed {
            path: root.to_owned(),
            what: "it holds neither train/ and test/ with a folder a class, nor data_batch_1.bin of CIFAR-10, nor train.bin of CIFAR-100; name the folder that holds them".to_owned(),
        });
    };
    let names = form.names(root)?;
    Ok(Split {
        train: form.part(root, form.train, &names, on_bad)?,
        testing: Testing::Together(form.part(root, &[form.test], &names, on_bad)?),
    })
}

impl Form {
    fn names(&self, root: &Path) -> Result<Vec<String>, LearnError> {
        let path = root.join(self.names);
        if !path.is_file() {
            return Ok((0..self.classes).map(|number| number.to_string()).collect());
        }
        let text = String::from_utf8_lossy(&read(&path)?).into_owned();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let names: Vec<String> = lines.map(str::to_owned).collect();
        if names.len() != self.classes {
            return Err(LearnError::Malformed {
                path,
                what: format!("it names {} classes and not {}", names.len(), self.classes),
            });
        }
        Ok(names)
    }

    fn part(
        &self,
        root: &Path,
        files: &[&str],
        names: &[String],
        on_bad: OnBad,
    ) -> Result<Dataset, LearnError> {
        let mut refused = Refused::default();
        let mut records = Vec::new();
        let mut data = Vec::new();
        let mut number = 0;
        for file in files {
            let path = root.join(file);
            let bytes = read(&path)?;
            let each = self.labels + IMAGE;
            if bytes.is_empty() || bytes.len() % each != 0 {
                return Err(LearnError::Malformed {
                    path,
                    what: format!(
                        "its {} bytes are no whole number of images of {each}",
                        bytes.len()
                    ),
                });
            }
            data.reserve(bytes.len() / each * IMAGE);
            for image in bytes.chunks_exact(each) {
                let (labels, planes) = image.split_at(self.labels);
                // Colours beside each other, as decoded images have them.
                let (red, others) = planes.split_at(SIDE * SIDE);
                let (green, blue) = others.split_at(SIDE * SIDE);
                for ((&red, &green), &blue) in red.iter().zip(green).zip(blue) {
                    data.extend([red, green, blue]);
                }
                let label = labels[self.labels - 1];
                if usize::from(label) < names.len() {
                    records.push(Record {
                        source: Source::Memory(number),
                        label: u32::from(label),
                    });
                } else {
                    refused.add(Reason::LabelOutOfRange, || {
                        format!("label {label} of image {number}")
                    });
                }
                number += 1;
            }
        }
        let set = Dataset {
            classes: names.to_vec(),
            records,
            stack: Some(Arc::new(Stack {
                width: SIDE as u32,
                height: SIDE as u32,
                channels: 3,
                data,
            })),
            refused: Refused::default(),
        };
        set.settle(refused, on_bad, root)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LearnError> {
    let failed = |source| LearnError::Read {
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_BYTES {
        return Err(LearnError::Malformed {
            path: path.to_owned(),
            what: format!("it has {length} bytes, more than the {MAX_BYTES} of any file of CIFAR"),
        });
    }
    fs::read(path).map_err(failed)
}
