//! Sets whose records and splits stand in lists.

use super::mat::{self, Value};
use super::{Dataset, OnBad, Reason, Record, Refused, Source, Split, Testing};
use crate::LearnError;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Longest list that is read.
const MAX_LIST: u64 = 256 << 20;

/// CUB-200-2011: the first 100 classes are for training, the rest for testing,
/// as metric learning splits it (not as `train_test_split.txt` does).
///
/// # Errors
/// When a list is missing or no record is usable; under [`OnBad::Fail`] when
/// a line does not parse or a label is out of range.
pub fn cub(root: &Path, on_bad: OnBad) -> Result<Split, LearnError> {
    let mut refused = Refused::default();
    let names = pairs(root, "classes.txt", &mut refused)?;
    let labels: HashMap<String, String> = pairs(root, "image_class_labels.txt", &mut refused)?
        .into_iter()
        .collect();
    let mut rows = Vec::new();
    for (id, path) in pairs(root, "images.txt", &mut refused)? {
        let Some(class) = labels.get(&id).and_then(|class| class.parse().ok()) else {
            refused.add(Reason::BadLine, || format!("image {id} of images.txt"));
            continue;
        };
        rows.push((format!("images/{path}"), class));
    }
    let names = names.into_iter().map(|(_, name)| name).collect();
    halves(root, names, rows, refused, on_bad)
}

/// Cars-196: the first 98 classes are for training, the rest for testing.
///
/// Reads `cars_annos.mat` as published; where there is none, `cars_annos.csv`
/// with lines of `path,class` (classes from 1), without a heading or with one.
///
/// # Errors
/// As [`cub`].
pub fn cars(root: &Path, on_bad: OnBad) -> Result<Split, LearnError> {
    let mut refused = Refused::default();
    let annotations = root.join("cars_annos.mat");
    let (names, rows) = if annotations.is_file() {
        cars_from_mat(&annotations, &mut refused)?
    } else {
        cars_from_csv(root, &mut refused)?
    };
    halves(root, names, rows, refused, on_bad)
}

/// Names of classes, and records of a path and a class counted from 1.
type Rows = (Vec<String>, Vec<(String, usize)>);

fn cars_from_mat(path: &Path, refused: &mut Refused) -> Result<Rows, LearnError> {
    let wrong = |what: String| LearnError::Malformed {
        path: path.to_owned(),
        what,
    };
    let arrays = mat::parse(&bytes(path)?).map_err(wrong)?;
    let array = |name: &str| arrays.iter().find(|(n, _)| n == name).map(|(_, v)| v);
    let Some(Value::Structures { fields, values }) = array("annotations") else {
        return Err(wrong("it holds no structures named annotations".to_owned()));
    };
    let field = |name: &str| {
        let at = fields.iter().position(|f| f == name);
        at.ok_or_else(|| wrong(format!("its annotations have no field {name}")))
    };
    let (file, class) = (field("relative_im_path")?, field("class")?);
    let mut rows = Vec::new();
    for (number, element) in values.chunks_exact(fields.len()).enumerate() {
        match (element[file].text(), element[class].number()) {
            (Some(file), Some(class)) => rows.push((file.to_owned(), class.max(0.0) as usize)),
            _ => refused.add(Reason::BadLine, || format!("annotation {}", number + 1)),
        }
    }
    let names = match array("class_names") {
        Some(Value::Cells(names)) => names
            .iter()
            .map(|name| name.text().unwrap_or_default().to_owned())
            .collect(),
        _ => numbered(196),
    };
    Ok((names, rows))
}

fn cars_from_csv(root: &Path, refused: &mut Refused) -> Result<Rows, LearnError> {
    let mut rows = Vec::new();
    let text = text(&root.join("cars_annos.csv"))?;
    for (number, line) in lines(&text) {
        match line
            .rsplit_once(',')
            .map(|(path, class)| (path.trim(), class.trim().parse()))
        {
            Some((path, Ok(class))) => rows.push((path.to_owned(), class)),
            _ if number == 1 => {}
            _ => refused.add(Reason::BadLine, || {
                format!("line {number} of cars_annos.csv")
            }),
        }
    }
    Ok((numbered(196), rows))
}

fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("class {n}")).collect()
}

/// Stanford Online Products: `Ebay_train.txt` and `Ebay_test.txt` with lines
/// of `image_id class_id super_class_id path`.
///
/// # Errors
/// As [`cub`].
pub fn sop(root: &Path, on_bad: OnBad) -> Result<Split, LearnError> {
    let part = |list: &str| {
        let mut refused = Refused::default();
        let mut rows = Vec::new();
        for (number, line) in lines(&text(&root.join(list))?) {
            // The first line names the columns.
            if number == 1 && line.starts_with("image_id") {
                continue;
            }
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                [_, class, _, path] if class.parse::<u32>().is_ok() => {
                    rows.push((path.to_owned(), class.to_owned()));
                }
                _ => refused.add(Reason::BadLine, || format!("line {number} of {list}")),
            }
        }
        by_name(root, &[rows], refused, on_bad).map(|mut parts| parts.remove(0))
    };
    Ok(Split {
        train: part("Ebay_train.txt")?,
        testing: Testing::Together(part("Ebay_test.txt")?),
    })
}

/// In-Shop Clothes Retrieval: `list_eval_partition.txt`, in the folder or in
/// its `Eval`, with lines of `image_name item_id evaluation_status`.
///
/// # Errors
/// As [`cub`].
pub fn in_shop(root: &Path, on_bad: OnBad) -> Result<Split, LearnError> {
    const LIST: &str = "list_eval_partition.txt";
    let nested = root.join("Eval").join(LIST);
    let list = if nested.is_file() {
        nested
    } else {
        root.join(LIST)
    };
    let mut refused = Refused::default();
    let mut parts: [Vec<(String, String)>; 3] = Default::default();
    for (number, line) in lines(&text(&list)?) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let part = match fields[..] {
            [_, _, "train"] => 0,
            [_, _, "query"] => 1,
            [_, _, "gallery"] => 2,
            // The first two lines are the number of records and a heading.
            _ if number <= 2 => continue,
            _ => {
                refused.add(Reason::BadLine, || format!("line {number} of {LIST}"));
                continue;
            }
        };
        parts[part].push((fields[0].to_owned(), fields[1].to_owned()));
    }
    let [train, query, gallery] = parts;
    let mut train = by_name(root, &[train], refused, on_bad)?;
    let mut apart = by_name(root, &[query, gallery], Refused::default(), on_bad)?;
    let gallery = apart.remove(1);
    Ok(Split {
        train: train.remove(0),
        testing: Testing::Apart {
            query: apart.remove(0),
            gallery,
        },
    })
}

/// Splits records with classes from 1 at the middle class; test labels start
/// at 0 again.
fn halves(
    root: &Path,
    names: Vec<String>,
    rows: Vec<(String, usize)>,
    mut refused: Refused,
    on_bad: OnBad,
) -> Result<Split, LearnError> {
    let middle = names.len() / 2;
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (file, class) in rows {
        if class == 0 || class > names.len() {
            refused.add(Reason::LabelOutOfRange, || {
                format!("class {class} of {file}")
            });
            continue;
        }
        let Some(path) = inside(root, &file) else {
            refused.add(Reason::BadLine, || file);
            continue;
        };
        let (part, label) = if class <= middle {
            (&mut train, class - 1)
        } else {
            (&mut test, class - 1 - middle)
        };
        part.push(Record {
            source: Source::File(path),
            label: label as u32,
        });
    }
    let part = |classes: &[String], records, refused| {
        Dataset {
            classes: classes.to_vec(),
            records,
            stack: None,
            refused: Refused::default(),
        }
        .settle(refused, on_bad, root)
    };
    Ok(Split {
        // The lists are one for both parts; so is the count.
        train: part(&names[..middle], train, refused)?,
        testing: Testing::Together(part(&names[middle..], test, Refused::default())?),
    })
}

/// Parts that share classes, named by the lists and numbered by name.
fn by_name(
    root: &Path,
    parts: &[Vec<(String, String)>],
    mut refused: Refused,
    on_bad: OnBad,
) -> Result<Vec<Dataset>, LearnError> {
    let mut labels: BTreeMap<&str, u32> = BTreeMap::new();
    for (_, class) in parts.iter().flatten() {
        labels.insert(class, 0);
    }
    for (number, label) in (0..).zip(labels.values_mut()) {
        *label = number;
    }
    let classes: Vec<String> = labels.keys().map(|&name| name.to_owned()).collect();
    let mut sets = Vec::new();
    for part in parts {
        let mut records = Vec::new();
        for (file, class) in part {
            let Some(path) = inside(root, file) else {
                refused.add(Reason::BadLine, || file.clone());
                continue;
            };
            records.push(Record {
                source: Source::File(path),
                label: labels[class.as_str()],
            });
        }
        let set = Dataset {
            classes: classes.clone(),
            records,
            stack: None,
            refused: Refused::default(),
        };
        sets.push(set.settle(std::mem::take(&mut refused), on_bad, root)?);
    }
    Ok(sets)
}

/// The path of a listed file; `None` when it would leave the set's folder.
fn inside(root: &Path, file: &str) -> Option<PathBuf> {
    let path = Path::new(file);
    path.components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then(|| root.join(path))
}

/// Lines of an id and the rest.
fn pairs(
    root: &Path,
    list: &str,
    refused: &mut Refused,
) -> Result<Vec<(String, String)>, LearnError> {
    let mut found = Vec::new();
    for (number, line) in lines(&text(&root.join(list))?) {
        match line.split_once(char::is_whitespace) {
            Some((id, rest)) => found.push((id.to_owned(), rest.trim().to_owned())),
            None => refused.add(Reason::BadLine, || format!("line {number} of {list}")),
        }
    }
    Ok(found)
}

/// Lines that are not blank, counted from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty())
}

fn text(path: &Path) -> Result<String, LearnError> {
    String::from_utf8(bytes(path)?).map_err(|_| LearnError::Malformed {
        path: path.to_owned(),
        what: "it is not UTF-8 text".to_owned(),
    })
}

fn bytes(path: &Path) -> Result<Vec<u8>, LearnError> {
    let failed = |source| LearnError::Read {
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_LIST {
        return Err(LearnError::Malformed {
            path: path.to_owned(),
            what: format!("it has {length} bytes, more than the {MAX_LIST} of any such list"),
        });
    }
    fs::read(path).map_err(failed)
}
