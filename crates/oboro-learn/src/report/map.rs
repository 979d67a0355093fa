//! A map of embeddings in two dimensions.

use super::drawing;
use super::marks::{MARKS, colour, legend, outline};
use super::markup::Markup;
use super::plane::Plane;
use crate::LearnError;
use oboro_vectors::Matrix;
use std::collections::BTreeMap;

const SIDE: f64 = 560.0;
const MARGIN: f64 = 14.0;
/// Items of a class that are shown.
pub(super) const ITEMS: usize = 120;

/// Embeddings seen along their two principal components.
#[derive(Clone, Debug)]
pub struct Map {
    /// Class and place of each shown item.
    items: Vec<(usize, [f64; 2])>,
    classes: Vec<String>,
    total_items: usize,
    total_classes: usize,
    share: f64,
}

impl Map {
    /// The map of some rows; at most 28 classes, and 120 items of each, evenly
    /// taken, are shown.
    ///
    /// # Errors
    /// When rows and labels differ in number, or a label has no class.
    pub fn of(rows: &Matrix<f32>, labels: &[u32], classes: &[String]) -> Result<Self, LearnError> {
        check(rows, labels, classes, "the labels of the map")?;
        let shown = chosen(labels, MARKS, ITEMS);
        let values: Vec<f32> = shown
            .iter()
            .flat_map(|&(_, row)| rows.row(row).iter().copied())
            .collect();
        let some = Matrix::new(rows.dimension(), values).map_err(|_| LearnError::Length {
            what: "the map",
            actual: 0,
            expected: 1,
        })?;
        let plane = Plane::of(&some, true);
        let mut names = Vec::new();
        let mut numbers: BTreeMap<u32, usize> = BTreeMap::new();
        let items = shown
            .iter()
            .map(|&(label, row)| {
                let number = *numbers.entry(label).or_insert_with(|| {
                    names.push(classes[label as usize].clone());
                    names.len() - 1
                });
                (number, plane.place(rows.row(row)))
            })
            .collect();
        Ok(Self {
            items,
            classes: names,
            total_items: labels.len(),
            total_classes: labels
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            share: plane.share,
        })
    }

    pub(super) fn draw(&self, markup: &mut Markup) {
        let xs = self.items.iter().map(|(_, [x, _])| *x);
        let ys = self.items.iter().map(|(_, [_, y])| *y);
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
                (l.min(v), h.max(v))
            })
        };
        let ((left, right), (low, high)) =
            (bounds(&mut xs.into_iter()), bounds(&mut ys.into_iter()));
        // One scale for both axes: distances are comparable.
        let span = (right - left).max(high - low).max(f64::MIN_POSITIVE);
        let scale = (SIDE - 2.0 * MARGIN) / span;
        let height = ((high - low) * scale + 2.0 * MARGIN)
            .clamp(120.0, SIDE)
            .ceil();
        drawing::begin(
            markup,
            "map",
            [SIDE, height],
            "Map of the embeddings",
            format_args!(
                "{} items of {} classes by their two principal components; items of one class share a colour and a shape.",
                self.items.len(),
                self.classes.len()
            ),
        );
        for (class, name) in self.classes.iter().enumerate() {
            let mut path = String::new();
            for (_, [x, y]) in self.items.iter().filter(|(of, _)| *of == class) {
                let place = [
                    SIDE / 2.0 + (x - (left + right) / 2.0) * scale,
                    height / 2.0 - (y - (low + high) / 2.0) * scale,
                ];
                outline(class, place, 3.2, &mut path);
            }
            markup.open(
                "path",
                &[
                    ("d", &path),
                    ("fill", &colour(class)),
                    ("fill-opacity", &0.75),
                ],
            );
            markup.element("title", &[], name);
            markup.close();
            markup.line();
        }
        markup.close();
        let names: Vec<(usize, &str)> = self
            .classes
            .iter()
            .enumerate()
            .map(|(number, name)| (number, name.as_str()))
            .collect();
        legend(markup, &names);
    }

    /// What the map shows, for the text below it.
    pub(super) fn words(&self) -> String {
        format!(
            "{} of {} items and {} of {} classes, by the two principal components, which hold {:.0} % of the variance. Classes that overlap here may still be apart in the other dimensions.",
            self.items.len(),
            self.total_items,
            self.classes.len(),
            self.total_classes,
            self.share * 100.0
        )
    }
}

pub(super) fn check(
    rows: &Matrix<f32>,
    labels: &[u32],
    classes: &[String],
    what: &'static str,
) -> Result<(), LearnError> {
    if rows.rows() != labels.len() {
        return Err(LearnError::Length {
            what,
            actual: labels.len(),
            expected: rows.rows(),
        });
    }
    match labels
        .iter()
        .find(|&&label| label as usize >= classes.len())
    {
        Some(label) => Err(LearnError::Setting {
            what: "a label",
            actual: label.to_string(),
            wanted: "give labels below the number of classes",
        }),
        None => Ok(()),
    }
}

/// Class and row of what is shown: the classes with the lowest labels, and
/// items of each spread evenly over the rows.
pub(super) fn chosen(labels: &[u32], classes: usize, items: usize) -> Vec<(u32, usize)> {
    let mut by_class: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, &label) in labels.iter().enumerate() {
        by_class.entry(label).or_default().push(row);
    }
    by_class
        .into_iter()
        .take(classes)
        .flat_map(|(label, rows)| {
            let count = rows.len().min(items);
            (0..count).map(move |at| (label, rows[at * rows.len() / count]))
        })
        .collect()
}
