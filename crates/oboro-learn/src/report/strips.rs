//! Queries beside what they found, as pictures.

use super::markup::Markup;
use crate::LearnError;
use crate::data::{Dataset, ImageLimits, Pixels};
use crate::evaluation::{Neighbour, Report};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use std::io::Cursor;

/// Longest side of a picture.
const SIDE: u32 = 96;

/// A query and its neighbours, nearest first.
#[derive(Clone, Debug)]
pub struct Strip {
    query: Picture,
    found: Vec<(Picture, bool)>,
    note: String,
}

#[derive(Clone, Debug)]
struct Picture {
    class: String,
    record: usize,
    /// A `data:` address of a PNG file; none where the image cannot be read.
    address: Option<String>,
}

impl Strip {
    /// The pictures of a query of `queries` and of its neighbours, records of
    /// `gallery`; `note` says why the query is shown. Classes are told apart by
    /// name, so the two sets may number them differently.
    ///
    /// # Panics
    /// If there is no such query or neighbour.
    #[must_use]
    pub fn of(
        queries: &Dataset,
        query: usize,
        gallery: &Dataset,
        neighbours: &[Neighbour],
        note: impl Into<String>,
    ) -> Self {
        let query = Picture::of(queries, query);
        let found = neighbours
            .iter()
            .map(|n| {
                let picture = Picture::of(gallery, n.item as usize);
                let right = picture.class == query.class;
                (picture, right)
            })
            .collect();
        Self {
            query,
            found,
            note: note.into(),
        }
    }

    /// The query's record and class, and those of what it found.
    pub(super) fn records(&self) -> serde_json::Value {
        serde_json::json!({
            "query": self.query.record,
            "class": self.query.class,
            "found": self.found.iter().map(|(p, right)| serde_json::json!({
                "item": p.record, "class": p.class, "right": right,
            })).collect::<Vec<_>>(),
            "note": self.note,
        })
    }

    pub(super) fn draw(&self, markup: &mut Markup) {
        markup.open("div", &[("class", &"strip")]);
        self.query.draw(markup, "query", "query");
        markup.open("div", &[("class", &"found")]);
        for (picture, right) in &self.found {
            let (kind, word) = if *right {
                ("right", "✓")
            } else {
                ("wrong", "✗")
            };
            picture.draw(markup, kind, word);
        }
        markup.close();
        if !self.note.is_empty() {
            markup.element("p", &[("class", &"note")], &self.note);
        }
        markup.close();
        markup.line();
    }
}

impl Picture {
    fn of(set: &Dataset, record: usize) -> Self {
        let image = set.image(record, &ImageLimits::default());
        Self {
            class: set.classes()[set.records()[record].label as usize].clone(),
            record,
            address: image.and_then(address).ok(),
        }
    }

    fn draw(&self, markup: &mut Markup, kind: &'static str, word: &str) {
        markup.open("figure", &[("class", &kind)]);
        match &self.address {
            Some(address) => markup.empty(
                "img",
                &[
                    ("src", address),
                    (
                        "alt",
                        &format_args!("{} (record {})", self.class, self.record),
                    ),
                    ("width", &72),
                    ("height", &72),
                    ("loading", &"lazy"),
                ],
            ),
            None => markup.element("span", &[("class", &"missing")], "no image"),
        }
        markup.element("figcaption", &[], format_args!("{word} {}", self.class));
        markup.close();
    }
}

/// The queries with the lowest MAP@R, the worst first; equal ones in the order
/// of their rows.
#[must_use]
pub fn worst(report: &Report, count: usize) -> Vec<(usize, f64)> {
    let mut all: Vec<(usize, f64)> = report
        .per_query
        .iter()
        .enumerate()
        .filter_map(|(row, value)| Some((row, (*value)?)))
        .collect();
    all.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    all.truncate(count);
    all
}

fn address(pixels: Pixels) -> Result<String, LearnError> {
    let wrong = || LearnError::Setting {
        what: "an image",
        actual: "a picture without pixels".to_owned(),
        wanted: "load the data set again",
    };
    let Pixels {
        width,
        height,
        channels,
        data,
    } = pixels;
    let image = if channels == 1 {
        GrayImage::from_raw(width, height, data).map(DynamicImage::ImageLuma8)
    } else {
        RgbImage::from_raw(width, height, data).map(DynamicImage::ImageRgb8)
    };
    let mut image = image.ok_or_else(wrong)?;
    if width > SIDE || height > SIDE {
        image = image.thumbnail(SIDE, SIDE);
    }
    let mut png = Cursor::new(Vec::new());
    image
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|_| wrong())?;
    Ok(format!(
        "data:image/png;base64,{}",
        STANDARD.encode(png.into_inner())
    ))
}
