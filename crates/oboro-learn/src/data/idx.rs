//! The IDX files of MNIST and Fashion-MNIST.

use super::dataset::Stack;
use super::{Dataset, OnBad, Reason, Record, Refused, Source, Split, Testing};
use crate::LearnError;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The classes of Fashion-MNIST, in the order of its labels.
pub const GARMENTS: [&str; 10] = [
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// Most bytes of a file once unpacked; MNIST's largest has 47 million.
const MAX_BYTES: u64 = 1 << 30;

/// Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two
/// `t10k-` files, each plain or with `.gz`.
///
/// `classes` names the classes; a label beyond them is refused.
///
/// # Errors
/// When a file is missing, not an IDX file of bytes, truncated, or longer than
/// it says; under [`OnBad::Fail`] when a label is out of range.
pub fn idx(root: &Path, classes: &[&str], on_bad: OnBad) -> Result<Split, LearnError> {
    let part = |name: &str| part(root, name, classes, on_bad);
    Ok(Split {
        train: part("train")?,
        testing: Testing::Together(part("t10k")?),
    })
}

/// 300 images of each class of Fashion-MNIST, which this crate brings along;
/// `data/NOTICE.md` says where they come from and under which licence.
///
/// # Errors
/// Never, unless this crate was built from damaged files.
pub fn garments() -> Result<Dataset, LearnError> {
    let images: &[u8] = include_bytes!("../../data/garments-images-idx3-ubyte.gz");
    let labels: &[u8] = include_bytes!("../../data/garments-labels-idx1-ubyte.gz");
    let images_path = Path::new("garments-images-idx3-ubyte.gz");
    let labels_path = Path::new("garments-labels-idx1-ubyte.gz");
    assemble(
        parse(MultiGzDecoder::new(images), images_path)?,
        parse(MultiGzDecoder::new(labels), labels_path)?,
        labels_path,
        &GARMENTS,
    )?
    .settle(Refused::default(), OnBad::Fail, images_path)
}

fn part(root: &Path, name: &str, classes: &[&str], on_bad: OnBad) -> Result<Dataset, LearnError> {
    let path = file(root, &format!("{name}-images-idx3-ubyte"));
    let images = read::<3>(&path)?;
    let labels_path = file(root, &format!("{name}-labels-idx1-ubyte"));
    let labels = read::<1>(&labels_path)?;
    let mut set = assemble(images, labels, &labels_path, classes)?;
    let refused = std::mem::take(&mut set.refused);
    set.settle(refused, on_bad, root)
}

/// The set of images and labels; labels out of range are left out.
fn assemble(
    (sizes, data): ([u32; 3], Vec<u8>),
    ([label_count], labels): ([u32; 1], Vec<u8>),
    labels_path: &Path,
    classes: &[&str],
) -> Result<Dataset, LearnError> {
    let [count, height, width] = sizes;
    if count != label_count || width == 0 || height == 0 {
        return Err(LearnError::Malformed {
            path: labels_path.to_owned(),
            what: format!(
                "{label_count} labels do not fit {count} images of {width} x {height} pixels"
            ),
        });
    }
    let mut refused = Refused::default();
    let mut records = Vec::with_capacity(labels.len());
    for (number, &label) in (0u32..).zip(&labels) {
        if usize::from(label) >= classes.len() {
            refused.add(Reason::LabelOutOfRange, || {
                format!("label {label} of image {number}")
            });
            continue;
        }
        records.push(Record {
            source: Source::Memory(number),
            label: u32::from(label),
        });
    }
    Ok(Dataset {
        classes: classes.iter().map(|&c| c.to_owned()).collect(),
        records,
        stack: Some(Arc::new(Stack {
            width,
            height,
            channels: 1,
            data,
        })),
        refused,
    })
}

/// The plain file where there is one, else its compressed form.
fn file(root: &Path, name: &str) -> PathBuf {
    let plain = root.join(name);
    if plain.is_file() {
        plain
    } else {
        root.join(format!("{name}.gz"))
    }
}

fn read<const N: usize>(path: &Path) -> Result<([u32; N], Vec<u8>), LearnError> {
    let failed = |source| LearnError::Read {
        path: path.to_owned(),
        source,
    };
    let raw = BufReader::new(File::open(path).map_err(failed)?);
    if path.extension().is_some_and(|e| e == "gz") {
        parse(MultiGzDecoder::new(raw), path)
    } else {
        parse(raw, path)
    }
}

/// Header, sizes, and exactly as many bytes as they say.
fn parse<const N: usize>(
    mut reader: impl Read,
    path: &Path,
) -> Result<([u32; N], Vec<u8>), LearnError> {
    let wrong = |what: String| LearnError::Malformed {
        path: path.to_owned(),
        what,
    };
    let mut word = || -> Result<[u8; 4], LearnError> {
        let mut bytes = [0; 4];
        reader
            .read_exact(&mut bytes)
            .map_err(|e| wrong(format!("its header is cut short or does not unpack ({e})")))?;
        Ok(bytes)
    };
    let magic = word()?;
    if magic != [0, 0, 8, N as u8] {
        return Err(wrong(format!(
            "it is not an IDX file of bytes in {N} dimensions; name the folder of the four files of the set"
        )));
    }
    let mut sizes = [0u32; N];
    for size in &mut sizes {
        *size = u32::from_be_bytes(word()?);
    }
    let total = sizes
        .iter()
        .try_fold(1u64, |total, &size| total.checked_mul(u64::from(size)))
        .filter(|&total| total <= MAX_BYTES)
        .ok_or_else(|| wrong(format!("it claims more than {MAX_BYTES} bytes")))?;
    // Grows with what is there, not with what the header claims.
    let mut data = Vec::new();
    reader
        .take(total + 1)
        .read_to_end(&mut data)
        .map_err(|e| wrong(format!("it does not unpack ({e})")))?;
    if data.len() as u64 != total {
        return Err(wrong(format!(
            "it holds {} {total} bytes of values that its header claims",
            if (data.len() as u64) < total {
                "fewer than the"
            } else {
                "more than the"
            }
        )));
    }
    Ok((sizes, data))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_garments_of_this_crate_are_whole() {
        let set = garments().unwrap();
        assert_eq!((set.len(), set.classes().len()), (3000, 10));
        for label in 0..10 {
            assert_eq!(set.labels().iter().filter(|&&l| l == label).count(), 300);
        }
        // The test part of Fashion-MNIST begins with an ankle boot.
        assert_eq!(set.records()[0].label, 9);
        let image = set.image(0, &crate::data::ImageLimits::default()).unwrap();
        assert_eq!((image.width, image.height, image.channels), (28, 28, 1));
        assert!(image.data.iter().any(|&v| v > 200));
    }
}
