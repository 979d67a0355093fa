//! Embeddings of whole data sets.

use crate::LearnError;
use crate::backend::{cpu, is_cpu};
use crate::data::{Dataset, ImageLimits};
use crate::geometry::Ball;
use crate::model::{Hyperbolic, Network, Settings};
use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use oboro_vectors::{Matrix, write_fvecs, write_ivecs, write_npy_f32, write_npy_i64};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// How a data set is embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Images that go through the network at once.
    pub batch: usize,
    /// Batches under way at the same time.
    pub threads: usize,
    /// What an image may take to decode.
    pub limits: ImageLimits,
}

impl Default for Options {
    /// Batches of 64, one for each core up to eight.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            batch: 64,
            threads: cores.min(8),
            limits: ImageLimits::default(),
        }
    }
}

/// The embeddings of a data set, in the order of its records.
#[derive(Clone, PartialEq)]
pub struct Embedded {
    /// Points of the unit sphere.
    pub euclidean: Matrix<f32>,
    /// Points of the Poincaré ball, if the network has that head.
    pub hyperbolic: Option<Matrix<f32>>,
    /// The class of each record.
    pub labels: Vec<u32>,
    ball: Option<Hyperbolic>,
}

/// How embeddings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// numpy's: `.npy`.
    Npy,
    /// TEXMEX's: `.fvecs`, and `.ivecs` for labels.
    Vecs,
}

/// Embeds every record of a data set.
///
/// On a CPU each batch is worked on by one thread of its own, so it comes out
/// the same on one thread or many. For a GPU the threads prepare batches, and
/// one feeds it. Another batch size changes results in the last
/// digits only. `progress` is given the records done after every batch.
///
/// # Errors
/// [`LearnError::Cancelled`] soon after `cancel` is set; when an image cannot
/// be read, naming the first; when an embedding is not finite.
pub fn embed(
    network: &Network,
    dataset: &Dataset,
    options: &Options,
    cancel: &AtomicBool,
    mut progress: impl FnMut(usize),
) -> Result<Embedded, LearnError> {
    if dataset.is_empty() || options.batch == 0 || options.threads == 0 {
        return Err(LearnError::Setting {
            what: "the records to embed, the batch or the threads",
            actual: "0".to_owned(),
            wanted: "choose 1 or more of each",
        });
    }
    let network = network.valid();
    let device = network.devices().into_iter().next().unwrap_or_else(cpu);
    let on_cpu = is_cpu(&device);
    // Kernels that find a pool of several threads cut their work by its size.
    let pools = (0..options.threads)
        .map(|_| rayon::ThreadPoolBuilder::new().num_threads(1).build())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| LearnError::Setting {
            what: "the threads to embed with",
            actual: error.to_string(),
            wanted: "choose fewer, or let this process start more",
        })?;
    let batches = dataset.len().div_ceil(options.batch);
    let mut rows: Vec<Option<Rows>> = (0..batches).map(|_| None).collect();
    let mut first_error: Option<(usize, LearnError)> = None;
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::sync_channel(options.threads);
    std::thread::scope(|scope| {
        for pool in &pools {
            let (sender, network, device) = (sender.clone(), &network, &device);
            let (next, stop) = (&next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && !cancel.load(Ordering::Relaxed) {
                    let batch = next.fetch_add(1, Ordering::Relaxed);
                    if batch >= batches {
                        break;
                    }
                    let made = pool.install(|| {
                        let images = prepare(network.settings(), dataset, options, batch)?;
                        Ok(if on_cpu {
                            Stage::Made(forward(network, images, device))
                        } else {
                            Stage::Prepared(images)
                        })
                    });
                    if sender.send((batch, made)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut done = 0;
        for (batch, made) in receiver {
            let made = made.map(|stage| match stage {
                Stage::Made(rows) => rows,
                Stage::Prepared(images) => forward(&network, images, &device),
            });
            match made {
                Ok(made) => {
                    done += made.count;
                    rows[batch] = Some(made);
                    progress(done);
                }
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    if first_error.as_ref().is_none_or(|(first, _)| batch < *first) {
                        first_error = Some((batch, error));
                    }
                }
            }
        }
    });
    if let Some((_, error)) = first_error {
        return Err(error);
    }
    let heads = network.settings().heads;
    let mut euclidean = Vec::with_capacity(dataset.len() * heads.euclidean);
    let mut hyperbolic = Vec::new();
    for rows in rows {
        // Batches are missing only where somebody stopped them.
        let rows = rows.ok_or(LearnError::Cancelled)?;
        euclidean.extend_from_slice(&rows.euclidean);
        hyperbolic.extend_from_slice(&rows.hyperbolic);
    }
    Ok(Embedded {
        euclidean: matrix("the Euclidean embeddings", heads.euclidean, euclidean)?,
        hyperbolic: heads
            .hyperbolic
            .map(|h| matrix("the hyperbolic embeddings", h.dims, hyperbolic))
            .transpose()?,
        labels: dataset.labels(),
        ball: heads.hyperbolic,
    })
}

struct Rows {
    count: usize,
    euclidean: Vec<f32>,
    hyperbolic: Vec<f32>,
}

/// How far a thread has come with a batch.
enum Stage {
    /// Images for the thread that feeds a GPU.
    Prepared(TensorData),
    Made(Rows),
}

/// The images of a batch.
fn prepare(
    settings: &Settings,
    dataset: &Dataset,
    options: &Options,
    batch: usize,
) -> Result<TensorData, LearnError> {
    let input = &settings.input;
    let first = batch * options.batch;
    let count = options.batch.min(dataset.len() - first);
    let images = (first..first + count)
        .map(|index| Ok(input.prepare(dataset.image(index, &options.limits)?)))
        .collect::<Result<Vec<_>, LearnError>>()?
        .concat();
    let shape = [count, input.channels, input.side, input.side];
    Ok(TensorData::new(images, shape))
}

/// The embeddings of images.
fn forward(network: &Network, images: TensorData, device: &Device) -> Rows {
    let images = Tensor::<4>::from_data(images, device);
    let count = images.dims()[0];
    let made = network.forward(images);
    let values = |tensor: Tensor<2>| -> Vec<f32> { tensor.into_data().iter::<f32>().collect() };
    Rows {
        count,
        euclidean: values(made.euclidean),
        hyperbolic: made.hyperbolic.map(values).unwrap_or_default(),
    }
}

fn matrix(what: &'static str, dims: usize, values: Vec<f32>) -> Result<Matrix<f32>, LearnError> {
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        return Err(LearnError::NotFinite {
            what,
            row: place / dims.max(1),
        });
    }
    Ok(Matrix::new(dims, values)?)
}

impl Embedded {
    /// The ball of the hyperbolic embeddings.
    #[must_use]
    pub fn ball(&self) -> Option<Hyperbolic> {
        self.ball
    }

    /// The hyperbolic embeddings as points of the hyperboloid, time
    /// coordinate first: what an index with the Lorentz metric takes.
    ///
    /// # Errors
    /// When a point lies on the border of the ball.
    pub fn lorentz(&self) -> Result<Option<Matrix<f32>>, LearnError> {
        let (Some(points), Some(hyperbolic)) = (&self.hyperbolic, self.ball) else {
            return Ok(None);
        };
        let ball = Ball::<f64>::new(hyperbolic.curvature)?;
        let mut lifted = Vec::with_capacity(points.rows() * (hyperbolic.dims + 1));
        for index in 0..points.rows() {
            let point: Vec<f64> = points.row(index).iter().map(|&v| f64::from(v)).collect();
            let squares: f64 = point.iter().map(|v| v * v).sum();
            if hyperbolic.curvature * squares >= 1.0 {
                return Err(LearnError::OutsideBall {
                    what: "the hyperbolic embeddings",
                    row: index,
                    curvature: hyperbolic.curvature,
                });
            }
            lifted.extend(ball.lift(&point).iter().map(|&v| v as f32));
        }
        Ok(Some(Matrix::new(hyperbolic.dims + 1, lifted)?))
    }

    /// Writes `euclidean`, `hyperbolic`, `lorentz` and `labels` into a folder,
    /// which is made if need be; the second and third only if there are
    /// hyperbolic embeddings. Gives the names written.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path, format: Format) -> Result<Vec<&'static str>, LearnError> {
        std::fs::create_dir_all(folder).map_err(|source| LearnError::Write {
            path: folder.to_owned(),
            source,
        })?;
        let lorentz = self.lorentz()?;
        let mut written = Vec::new();
        for (names, rows) in [
            (["euclidean.npy", "euclidean.fvecs"], Some(&self.euclidean)),
            (
                ["hyperbolic.npy", "hyperbolic.fvecs"],
                self.hyperbolic.as_ref(),
            ),
            (["lorentz.npy", "lorentz.fvecs"], lorentz.as_ref()),
        ] {
            let Some(rows) = rows else { continue };
            match format {
                Format::Npy => write_npy_f32(folder.join(names[0]), rows)?,
                Format::Vecs => write_fvecs(folder.join(names[1]), rows)?,
            }
            written.push(names[usize::from(format == Format::Vecs)]);
        }
        match format {
            Format::Npy => {
                let labels = self.labels.iter().map(|&l| i64::from(l)).collect();
                write_npy_i64(folder.join("labels.npy"), &Matrix::new(1, labels)?)?;
                written.push("labels.npy");
            }
            Format::Vecs => {
                // Labels count classes; none has so many.
                let labels = self.labels.iter().map(|&l| l as i32).collect();
                write_ivecs(folder.join("labels.ivecs"), &Matrix::new(1, labels)?)?;
                written.push("labels.ivecs");
            }
        }
        Ok(written)
    }
}
