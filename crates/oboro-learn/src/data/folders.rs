//! Trees with one folder a class.

use super::{Dataset, OnBad, Reason, Record, Refused, Source, Split, Testing};
use crate::LearnError;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders within folders that are followed.
const MAX_DEPTH: usize = 16;
/// The class of images without one.
const PICTURES: &str = "pictures";

/// Every folder below `root` that holds images is a class, named by its path.
///
/// Images are files named `.png`, `.jpg` or `.jpeg`, in any case; hidden files
/// and links to folders are passed over. Classes and files come in the order
/// of their names.
///
/// # Errors
/// When a folder cannot be read or there is no image; under [`OnBad::Fail`]
/// when there is an image outside a class folder.
pub fn folders(root: &Path, on_bad: OnBad) -> Result<Dataset, LearnError> {
    let mut found = BTreeMap::new();
    let mut refused = Refused::default();
    walk(root, "", 0, &mut found, &mut refused)?;
    let mut classes = Vec::new();
    let mut records = Vec::new();
    for (name, mut files) in found {
        files.sort();
        let label = classes.len() as u32;
        records.extend(files.into_iter().map(|file| Record {
            source: Source::File(file),
            label,
        }));
        classes.push(name);
    }
    Dataset {
        classes,
        records,
        stack: None,
        refused: Refused::default(),
    }
    .settle(refused, on_bad, root)
}

/// Images without classes, to embed: one file, or every image in a folder and
/// below, in the order of their paths. All are of one class, `pictures`.
///
/// # Errors
/// When a folder cannot be read or there is no image.
pub fn pictures(path: &Path) -> Result<Dataset, LearnError> {
    let mut files = Vec::new();
    if path.is_file() {
        files.push(path.to_owned());
    } else {
        let mut found = BTreeMap::new();
        // Under a name, so that the folder itself is one of those that hold images.
        walk(path, PICTURES, 0, &mut found, &mut Refused::default())?;
        files.extend(found.into_values().flatten());
        files.sort();
    }
    let records = files.into_iter().map(|file| Record {
        source: Source::File(file),
        label: 0,
    });
    Dataset {
        classes: vec![PICTURES.to_owned()],
        records: records.collect(),
        stack: None,
        refused: Refused::default(),
    }
    .settle(Refused::default(), OnBad::Skip, path)
}

/// Omniglot: a character of an alphabet is a class.
///
/// Background alphabets are for training, the evaluation ones for testing. A
/// tree with `images_background_small1` and `images_background_small2` alone
/// trains on the first and tests on the second; they share two alphabets, and
/// alphabets that were trained on are left out of the test.
///
/// # Errors
/// As [`folders`]; when no alphabet is left to test on.
pub fn omniglot(root: &Path, on_bad: OnBad) -> Result<Split, LearnError> {
    let whole = ["images_background", "images_evaluation"];
    let small = ["images_background_small1", "images_background_small2"];
    let names = if root.join(whole[0]).is_dir() {
        whole
    } else {
        small
    };
    let train = folders(&root.join(names[0]), on_bad)?;
    let test_root = root.join(names[1]);
    let test = folders(&test_root, on_bad)?;
    let alphabet = |class: &str| class.split('/').next().unwrap_or_default().to_owned();
    let known: HashSet<String> = train.classes.iter().map(|c| alphabet(c)).collect();
    let unseen: Vec<u32> = (0..)
        .zip(&test.classes)
        .filter(|(_, class)| !known.contains(&alphabet(class)))
        .map(|(label, _)| label)
        .collect();
    let test = test.select_classes(&unseen)?;
    Ok(Split {
        train,
        testing: Testing::Together(test.settle(Refused::default(), on_bad, &test_root)?),
    })
}

/// CIFAR as folders: `train/<class>/` and `test/<class>/`.
///
/// Both parts have the same classes; to test on unseen ones, hold some out
/// with [`Dataset::select_classes`].
///
/// # Errors
/// As [`folders`].
pub fn cifar_folders(root: &Path, on_bad: OnBad) -> Result<Split, LearnError> {
    Ok(Split {
        train: folders(&root.join("train"), on_bad)?,
        testing: Testing::Together(folders(&root.join("test"), on_bad)?),
    })
}

fn walk(
    folder: &Path,
    class: &str,
    depth: usize,
    found: &mut BTreeMap<String, Vec<PathBuf>>,
    refused: &mut Refused,
) -> Result<(), LearnError> {
    let failed = |source| LearnError::Read {
        path: folder.to_owned(),
        source,
    };
    if depth > MAX_DEPTH {
        return Err(LearnError::Malformed {
            path: folder.to_owned(),
            what: format!(
                "folders are nested deeper than {MAX_DEPTH}; name the folder of the classes"
            ),
        });
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        // Not through links: they may lead round in circles.
        if entry.file_type().map_err(failed)?.is_dir() {
            let below = if class.is_empty() {
                name
            } else {
                format!("{class}/{name}")
            };
            walk(&path, &below, depth + 1, found, refused)?;
        } else if is_image(&path) {
            if class.is_empty() {
                refused.add(Reason::LabelOutOfRange, || {
                    format!("{name}, which is in no class folder")
                });
            } else {
                found.entry(class.to_owned()).or_default().push(path);
            }
        }
    }
    Ok(())
}

fn is_image(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| {
        ["png", "jpg", "jpeg"]
            .iter()
            .any(|k| e.eq_ignore_ascii_case(k))
    })
}
