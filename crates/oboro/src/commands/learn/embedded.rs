//! A folder of embeddings: vectors, labels, and what they are of.

use std::path::{Path, PathBuf};

use oboro_learn::data::Dataset;
use oboro_learn::embed::Format;
use oboro_learn::evaluation::{Items, Score};
use oboro_vectors::Matrix;
use serde::{Deserialize, Serialize};

use super::recipe::Which;
use super::sets::{Images, Part};
use crate::durable;
use crate::failure::{Failure, Named, Outcome};
use crate::or_failure::OrFailure;
use crate::progress::Progress;

/// The file that says what a folder holds.
const ABOUT: &str = "embeddings.json";
/// The file that says which image a row is of, a line a row.
const IMAGES: &str = "images.txt";
const FORMAT: &str = "oboro-learn embeddings";
const VERSION: u32 = 1;
/// Most bytes of it; class names of the largest sets take one million.
const MAX_ABOUT: u64 = 64 << 20;

/// What a folder's vectors are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    format: String,
    version: u32,
    pub(super) data: Images,
    pub(super) part: Part,
    pub(super) classes: Vec<String>,
    pub(super) items: usize,
    pub(super) dims: usize,
    /// The ball of the hyperbolic embeddings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ball: Option<Ball>,
    /// Steps of the training that made them.
    pub(super) step: u64,
    /// Which of the training's checkpoints that was.
    #[serde(default)]
    pub(super) checkpoint: Which,
    pub(super) files: Vec<String>,
}

/// The ball of hyperbolic embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ball {
    pub(super) dims: usize,
    pub(super) curvature: f64,
    pub(super) clip: f64,
}

/// Embeddings with what they are of.
#[derive(Debug)]
pub(super) struct Embeddings {
    pub(super) about: About,
    pub(super) euclidean: Matrix<f32>,
    pub(super) hyperbolic: Option<Matrix<f32>>,
    pub(super) labels: Vec<u32>,
}

impl About {
    pub(super) fn of(
        embedded: &oboro_learn::embed::Embedded,
        set: &Dataset,
        data: &Images,
        part: Part,
        (step, checkpoint): (u64, Which),
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            data: data.clone(),
            part,
            classes: set.classes().to_vec(),
            items: set.len(),
            dims: embedded.euclidean.dimension(),
            ball: embedded.ball().map(|ball| Ball {
                dims: ball.dims,
                curvature: ball.curvature,
                clip: ball.clip,
            }),
            step,
            checkpoint,
            files: Vec::new(),
        }
    }

    /// Writes embeddings into a new folder, all of it or none.
    pub(super) fn write(
        mut self,
        embedded: &oboro_learn::embed::Embedded,
        set: &Dataset,
        folder: &Path,
        format: Format,
    ) -> Outcome<Self> {
        durable::folder(folder, |folder| {
            let written = embedded.write(folder, format).or_failure()?;
            self.files = written.into_iter().map(str::to_owned).collect();
            let mut lines = String::new();
            for place in set.places(self.data.folder()) {
                // One line, whatever a name holds.
                lines += &place.replace(['\n', '\r'], " ");
                lines.push('\n');
            }
            let path = folder.join(IMAGES);
            std::fs::write(&path, lines).named("write", path.display())?;
            self.files.push(IMAGES.to_owned());
            let text = serde_json::to_string_pretty(&self).map_err(Failure::failed)?;
            let path = folder.join(ABOUT);
            std::fs::write(&path, text + "\n").named("write", path.display())
        })?;
        Ok(self)
    }
}

impl Embeddings {
    pub(super) fn read(folder: &Path) -> Outcome<Self> {
        let path = folder.join(ABOUT);
        let size = std::fs::metadata(&path)
            .named("read", path.display())?
            .len();
        if size > MAX_ABOUT {
            return Err(Failure::input(format_args!(
                "{} has {size} bytes, more than a description of embeddings; name a folder that oboro learn embed wrote",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(&path).named("read", path.display())?;
        let about: About = serde_json::from_str(&text).map_err(|error| {
            Failure::input(format_args!(
                "{} does not describe embeddings ({error}); name a folder that oboro learn embed wrote",
                path.display()
            ))
        })?;
        if (about.format.as_str(), about.version) != (FORMAT, VERSION) {
            return Err(Failure::input(format_args!(
                "{} is {} of version {}, and this program reads {FORMAT} of version {VERSION}; embed the images again",
                path.display(),
                about.format,
                about.version
            )));
        }
        let euclidean = rows(folder, "euclidean")?;
        let hyperbolic = about.ball.map(|_| rows(folder, "hyperbolic")).transpose()?;
        let labels = labels(folder)?;
        let counts = [
            Some(euclidean.rows()),
            hyperbolic.as_ref().map(Matrix::rows),
            Some(labels.len()),
        ];
        if counts
            .into_iter()
            .flatten()
            .any(|count| count != about.items)
        {
            return Err(Failure::input(format_args!(
                "{} says {} items, and its files hold {} and {} with {} labels; embed the images again",
                path.display(),
                about.items,
                euclidean.rows(),
                hyperbolic.as_ref().map_or(0, Matrix::rows),
                labels.len()
            )));
        }
        if let Some(label) = labels.iter().find(|&&l| l as usize >= about.classes.len()) {
            return Err(Failure::input(format_args!(
                "{} has the label {label} and {} classes; embed the images again",
                folder.display(),
                about.classes.len()
            )));
        }
        Ok(Self {
            about,
            euclidean,
            hyperbolic,
            labels,
        })
    }

    /// Embeddings that were just made.
    pub(super) fn fresh(about: About, embedded: oboro_learn::embed::Embedded) -> Self {
        Self {
            about,
            euclidean: embedded.euclidean,
            hyperbolic: embedded.hyperbolic,
            labels: embedded.labels,
        }
    }

    pub(super) fn items(&self) -> Outcome<Items<'_>> {
        match &self.hyperbolic {
            Some(points) => Items::both(&self.euclidean, points, &self.labels),
            None => Items::euclidean(&self.euclidean, &self.labels),
        }
        .or_failure()
    }

    /// The images that were embedded.
    pub(super) fn images(&self, progress: &Progress) -> Outcome<Dataset> {
        let set = self.about.data.load(progress)?.part(self.about.part)?;
        if set.labels() != self.labels {
            return Err(Failure::input(format_args!(
                "{} holds other images than were embedded ({} where {} were); embed them again",
                self.about.data.set,
                set.len(),
                self.labels.len()
            )));
        }
        Ok(set)
    }

    /// The scores that these embeddings can be compared by: each embedding
    /// alone and, where there are two, both together.
    pub(super) fn scores(&self) -> Vec<Score> {
        let mut scores = vec![Score::Cosine];
        if let Some(ball) = self.about.ball {
            scores.push(Score::Hyperbolic {
                curvature: ball.curvature,
            });
            scores.push(fused(ball));
        }
        scores
    }

    /// The score of a name.
    pub(super) fn score(&self, name: &str) -> Outcome<Score> {
        let ball = || {
            self.about.ball.ok_or_else(|| {
                Failure::usage(format_args!(
                    "there are no hyperbolic embeddings for the score {name}; choose cosine or euclidean, or train with a hyperbolic loss"
                ))
            })
        };
        Ok(match name {
            "cosine" => Score::Cosine,
            "euclidean" => Score::Euclidean,
            "hyperbolic" => Score::Hyperbolic {
                curvature: ball()?.curvature,
            },
            "fused" => fused(ball()?),
            _ => {
                return Err(Failure::usage(format_args!(
                    "there is no score \"{name}\"; choose one of cosine, euclidean, hyperbolic, fused"
                )));
            }
        })
    }
}

/// Both scores, each divided by half the length of its range: cosines go from
/// -1 to 1, distances from 0 to four times the clip.
fn fused(ball: Ball) -> Score {
    Score::Fused {
        curvature: ball.curvature,
        euclidean_temperature: 1.0,
        hyperbolic_temperature: 2.0 * ball.clip,
        lambda: 1.0,
    }
}

/// The file of a name, in either format.
fn file(folder: &Path, name: &str, formats: [&str; 2]) -> Outcome<PathBuf> {
    let paths = formats.map(|format| folder.join(format!("{name}.{format}")));
    let found = paths.iter().find(|path| path.is_file()).cloned();
    found.ok_or_else(|| {
        Failure::input(format_args!(
            "{} has neither {name}.{} nor {name}.{}; embed the images again",
            folder.display(),
            formats[0],
            formats[1]
        ))
    })
}

fn rows(folder: &Path, name: &str) -> Outcome<Matrix<f32>> {
    oboro_vectors::read_f32(file(folder, name, ["fvecs", "npy"])?).or_failure()
}

fn labels(folder: &Path) -> Outcome<Vec<u32>> {
    let path = file(folder, "labels", ["ivecs", "npy"])?;
    let labels = oboro_vectors::read_ids(&path).or_failure()?;
    labels
        .data()
        .iter()
        .map(|&label| {
            u32::try_from(label).map_err(|_| {
                Failure::input(format_args!(
                    "{} holds {label}, which is no label; embed the images again",
                    path.display()
                ))
            })
        })
        .collect()
}
