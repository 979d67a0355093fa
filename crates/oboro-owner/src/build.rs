//! The build itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chacha20::ChaCha20Rng;
use oboro_ckks::{EncryptedCodebook, Packing, PublicKey, TableScale};
use oboro_index::{
    Descriptor, IndexWriter, OwnerKey, Rotation, RotationMatrix, SegmentWriter, permutation,
};
use oboro_quant::{BlockedCodes, Codebook, Metric, Subspaces, TrainOptions, code_bits};
use rand_core::{CryptoRng, SeedableRng};

use crate::nearest::Nearest;
use crate::survey::{CHUNK, Survey, check_ids, survey};
use crate::trial::{self, NEIGHBOURS, Subject, TrialQuery};
use crate::{
    BuildOptions, BuildReport, EncryptionReport, OwnerError, Stage, StageSeconds, VectorSource,
    default_subquantizers, displacement,
};

/// Queries up to this many times as long as the longest vector are searched
/// as they are; longer ones are shortened, which under L2 can change their
/// neighbours.
const QUERY_NORM_ROOM: f64 = 2.0;

/// Candidates that trial queries re-rank.
const TRIAL_CANDIDATES: usize = 100;

/// Streams of the generator that [`BuildOptions::seed`] starts.
const SAMPLE_STREAM: u64 = 1;

/// The owner: its key and the keeper it trusts with decryption.
pub struct Owner {
    key: OwnerKey,
    keeper: PublicKey,
}

impl Owner {
    /// An owner whose indexes are for the holder of the secret key behind
    /// `keeper`.
    #[must_use]
    pub const fn new(key: OwnerKey, keeper: PublicKey) -> Self {
        Self { key, keeper }
    }

    /// Builds an index of `source` in the folder `out`. Ids are row numbers
    /// unless `ids` gives others.
    ///
    /// # Errors
    /// When a vector, the shape or the output is wrong; see [`OwnerError`].
    /// Nothing of a failed build is visible.
    pub fn build(
        &self,
        source: &mut dyn VectorSource,
        ids: Option<&[u64]>,
        out: &Path,
        options: &BuildOptions,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<BuildReport, OwnerError> {
        let threads = options.threads.unwrap_or(0);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|_| OwnerError::Threads { threads })?;
        pool.install(|| self.run(source, ids, out, options, rng))
    }

    fn run(
        &self,
        source: &mut dyn VectorSource,
        ids: Option<&[u64]>,
        out: &Path,
        options: &BuildOptions,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<BuildReport, OwnerError> {
        let mut clock = Clock::start();
        let shape = Shape::of(source, self.keeper.parameter_set(), options)?;
        if let Some(ids) = ids {
            check_ids(ids, shape.rows)?;
        }
        // First of all, so that an output that exists costs no time.
        let mut index_id = [0; 16];
        rng.fill_bytes(&mut index_id);
        let release = options.released.then(|| self.key.release_key());
        let mut writer = IndexWriter::create(
            out,
            &self.key.storage_key(),
            release.as_ref(),
            index_id,
            options.force,
        )?;

        let mut sampling = ChaCha20Rng::from_seed(options.seed);
        sampling.set_stream(SAMPLE_STREAM);
        let mut found = survey(source, shape.sample, options, &mut sampling)?;
        let encoding = found.encoding.choose(options.originals)?;
        clock.seconds.read = clock.lap();

        let rotation = RotationMatrix::derive(
            &self.key.rotation_seed(),
            &shape.subspaces,
            options.rotation,
            options.metric,
        );
        let prepare = Prepare {
            metric: options.metric,
            rotation: &rotation,
            dimension: shape.dimension,
        };
        let mut sample = std::mem::take(&mut found.sample);
        let plain = (options.rotation == Rotation::Full).then(|| cut(&sample, &shape).to_vec());
        prepare.rows(&mut sample)?;
        let rotation_cost = match plain {
            Some(plain) => Some(rotation_cost(plain, cut(&sample, &shape), &shape, options)?),
            None => None,
        };
        let codebook = train(&sample, &shape, shape.sample, options)?;
        drop(sample);
        clock.seconds.train = clock.lap();

        let segment = writer.begin_segment(
            &self.key.record_key(),
            encoding,
            shape.dimension,
            shape.rows,
            rng,
        )?;
        let pass = SecondPass {
            shape: &shape,
            codebook: &codebook,
            prepare: &prepare,
            order: permutation(shape.rows, rng),
            ids,
        };
        let encoded = pass.run(source, segment, &found, options)?;
        clock.seconds.encode = clock.lap();

        let norm_bound = match options.metric {
            // Queries are normalised; the room is for rounding.
            Metric::Cosine => 1.0 + 1e-5,
            _ => QUERY_NORM_ROOM * f64::from(found.largest_norm),
        };
        let scale = TableScale::new(
            &shape.packing,
            norm_bound,
            codebook.norm(),
            codebook.offset_bound(options.metric),
        )?;
        let subject = Subject {
            codebook: &codebook,
            metric: options.metric,
            packing: shape.packing,
            scale,
            codes: &encoded.codes,
        };
        let queries = prepare.trials(&found, encoded.nearest, &pass.order)?;
        let candidates = TRIAL_CANDIDATES.min(shape.rows - 1).max(1);
        let trial = trial::run(&subject, &queries, candidates, options, rng)?;
        clock.seconds.trial = clock.lap();

        options.check_cancelled()?;
        options.report(Stage::Write, 0, 0);
        let encrypted = EncryptedCodebook::encrypt(
            shape.packing,
            &scale,
            &self.keeper,
            codebook.values(),
            codebook.offsets(options.metric).as_deref(),
            rng,
        )?;
        let descriptor = Descriptor {
            index_id,
            epoch: 1,
            dimension: shape.dimension as u32,
            metric: options.metric,
            rotation: options.rotation,
            vectors: shape.rows as u64,
            candidates_max: shape.candidates_max as u32,
            record_encoding: encoding,
            packing: shape.packing,
            scale,
            codebook_digest: encrypted.masks().digest(),
            public_key: self.keeper.clone(),
        };
        writer.set_codebook(&encrypted, rng);
        writer.add_segment(encoded.segment, &encoded.codes)?;
        options.check_cancelled()?;
        let committed = writer.commit(&descriptor, &self.key.descriptor_key(), rng)?;
        clock.seconds.write = clock.lap();
        Ok(BuildReport {
            state: committed.head,
            vectors: shape.rows,
            dimension: shape.dimension,
            metric: options.metric.name(),
            subquantizers: shape.packing.subquantizers(),
            centroids: shape.packing.centroids(),
            split: shape.packing.split(),
            rotation: options.rotation.name(),
            rotation_cost,
            originals: encoding.name(),
            encryption: EncryptionReport::new(&shape.packing, &scale),
            candidates_max: shape.candidates_max,
            record_bytes: descriptor.record_bytes(),
            files: committed.files,
            displacement_probability: displacement(shape.rows, shape.candidates_max)?,
            trial,
            seconds: clock.finish(),
        })
    }
}

/// Everything that follows from sizes and options.
struct Shape {
    rows: usize,
    dimension: usize,
    subspaces: Subspaces,
    packing: Packing,
    sample: usize,
    candidates_max: usize,
}

impl Shape {
    fn of(
        source: &dyn VectorSource,
        set: oboro_ckks::ParameterSet,
        options: &BuildOptions,
    ) -> Result<Self, OwnerError> {
        let (rows, dimension) = (source.rows(), source.dimension());
        let subquantizers = options
            .subquantizers
            .unwrap_or_else(|| default_subquantizers(dimension));
        if subquantizers > dimension {
            return Err(OwnerError::TooManySubquantizers {
                subquantizers,
                dimension,
            });
        }
        if rows < options.centroids {
            return Err(OwnerError::TooFewVectors {
                vectors: rows,
                centroids: options.centroids,
            });
        }
        let maximum = u32::MAX as usize;
        if rows > maximum {
            return Err(OwnerError::TooManyVectors {
                vectors: rows,
                maximum,
            });
        }
        let subspaces = Subspaces::new(dimension, subquantizers)?;
        let width = subspaces.width();
        let packing = Packing::new(set, subquantizers, width, options.centroids, options.split)
            .or_else(|error| {
                // A small split may not fit wide sub-spaces; one that does
                // exists unless something else is wrong.
                let compact = Packing::compact_query(set, subquantizers, width, options.centroids);
                match compact {
                    Ok(packing) if packing.split() > options.split => Ok(packing),
                    _ => Err(error),
                }
            })?;
        Ok(Self {
            rows,
            dimension,
            subspaces,
            packing,
            sample: options
                .sample
                .unwrap_or(256 * options.centroids)
                .max(options.centroids)
                .min(rows),
            candidates_max: options
                .candidates_max
                .clamp(1, oboro_quant::MAX_CANDIDATES)
                .min(rows),
        })
    }
}

/// What happens to a vector before it is quantized.
struct Prepare<'a> {
    metric: Metric,
    rotation: &'a RotationMatrix,
    dimension: usize,
}

impl Prepare<'_> {
    fn rows(&self, rows: &mut [f32]) -> Result<(), OwnerError> {
        if self.metric == Metric::Cosine {
            use rayon::prelude::*;
            rows.par_chunks_exact_mut(self.dimension)
                .for_each(|row| self.metric.prepare_base(row));
        }
        Ok(self.rotation.apply_rows(rows)?)
    }

    fn trials(
        &self,
        found: &Survey,
        nearest: Nearest,
        order: &[u32],
    ) -> Result<Vec<TrialQuery>, OwnerError> {
        found
            .trials
            .chunks_exact(self.dimension)
            .zip(&found.trial_rows)
            .zip(nearest.into_rows())
            .map(|((query, &row), nearest)| {
                let mut prepared = query.to_vec();
                self.metric.prepare_query(&mut prepared);
                self.rotation.apply(&mut prepared)?;
                Ok(TrialQuery {
                    prepared,
                    itself: order[row],
                    nearest: nearest
                        .into_iter()
                        .filter(|&other| other != row)
                        .take(NEIGHBOURS)
                        .map(|row| order[row])
                        .collect(),
                })
            })
            .collect()
    }
}

fn train(
    vectors: &[f32],
    shape: &Shape,
    sample: usize,
    options: &BuildOptions,
) -> Result<Codebook, OwnerError> {
    let mut training = TrainOptions::new(
        shape.packing.subquantizers(),
        shape.packing.centroids(),
        options.seed,
    );
    training.iterations = options.iterations;
    training.sample = Some(sample);
    training.cancel = Arc::clone(&options.cancel);
    training.progress = options.progress.clone().map(|progress| {
        Arc::new(move |done, total| progress(Stage::Train, done, total)) as oboro_quant::Progress
    });
    match Codebook::train(vectors, shape.dimension, &training) {
        Err(oboro_quant::QuantError::Cancelled) => Err(OwnerError::Cancelled),
        result => Ok(result?),
    }
}

/// Vectors of a sample, and rounds, that measure what a rotation costs.
const ROTATION_SAMPLE: usize = 16_384;
const ROTATION_ITERATIONS: usize = 6;

fn cut<'a>(sample: &'a [f32], shape: &Shape) -> &'a [f32] {
    &sample[..sample.len().min(ROTATION_SAMPLE * shape.dimension)]
}

/// The quantization error of rotated vectors over that of the same vectors as
/// they are: above 1, the full rotation mixes what belongs apart.
fn rotation_cost(
    mut plain: Vec<f32>,
    rotated: &[f32],
    shape: &Shape,
    options: &BuildOptions,
) -> Result<f64, OwnerError> {
    for vector in plain.chunks_exact_mut(shape.dimension) {
        options.metric.prepare_base(vector);
    }
    let mut quick = options.clone();
    quick.iterations = ROTATION_ITERATIONS;
    quick.progress = None;
    let error = |vectors: &[f32]| -> Result<f64, OwnerError> {
        let sample = vectors.len() / shape.dimension;
        Ok(train(vectors, shape, sample, &quick)?.distortion(vectors)?)
    };
    let (rotated, plain) = (error(rotated)?, error(&plain)?);
    Ok(if plain > 0.0 { rotated / plain } else { 1.0 })
}

/// The second pass over the vectors.
struct SecondPass<'a> {
    shape: &'a Shape,
    codebook: &'a Codebook,
    prepare: &'a Prepare<'a>,
    /// The position of each row.
    order: Vec<u32>,
    ids: Option<&'a [u64]>,
}

/// What it leaves.
struct Encoded {
    codes: BlockedCodes,
    segment: SegmentWriter,
    nearest: Nearest,
}

impl SecondPass<'_> {
    fn run(
        &self,
        source: &mut dyn VectorSource,
        mut segment: SegmentWriter,
        found: &Survey,
        options: &BuildOptions,
    ) -> Result<Encoded, OwnerError> {
        let Shape {
            rows,
            dimension,
            packing,
            ..
        } = *self.shape;
        let subquantizers = packing.subquantizers();
        let mut codes = vec![0; rows * subquantizers];
        let mut nearest = Nearest::new(
            found.trials.clone(),
            dimension,
            options.metric,
            // One more, for the query itself.
            NEIGHBOURS + 1,
        );
        source.rewind()?;
        let (mut now, mut next) = (Vec::new(), Vec::new());
        source.read(CHUNK, &mut now)?;
        let mut first = 0;
        while !now.is_empty() {
            options.check_cancelled()?;
            options.report(Stage::Encode, first as u64, rows as u64);
            // The next chunk is read while this one is worked on.
            let (read, worked) = rayon::join(
                || source.read(CHUNK, &mut next),
                || self.chunk(&now, first, &mut codes, &mut segment, &mut nearest),
            );
            worked?;
            read?;
            first += now.len() / dimension;
            std::mem::swap(&mut now, &mut next);
            next.clear();
        }
        options.report(Stage::Encode, rows as u64, rows as u64);
        let bits = code_bits(packing.centroids());
        Ok(Encoded {
            codes: BlockedCodes::from_rows(&codes, subquantizers, bits)?,
            segment,
            nearest,
        })
    }

    fn chunk(
        &self,
        vectors: &[f32],
        first: usize,
        codes: &mut [u8],
        segment: &mut SegmentWriter,
        nearest: &mut Nearest,
    ) -> Result<(), OwnerError> {
        let rows = vectors.len() / self.shape.dimension;
        // A source that grew between the passes would run past the order.
        let positions = self
            .order
            .get(first..first + rows)
            .ok_or(OwnerError::SourceChanged)?;
        let numbered: Vec<u64>;
        let ids = match self.ids {
            Some(ids) => &ids[first..first + rows],
            None => {
                numbered = (first as u64..(first + rows) as u64).collect();
                &numbered
            }
        };
        segment.put(positions, ids, vectors)?;
        nearest.add(vectors, first)?;
        let mut prepared = vectors.to_vec();
        self.prepare.rows(&mut prepared)?;
        let encoded = self.codebook.encode(&prepared)?;
        let width = self.shape.packing.subquantizers();
        for (row, &position) in encoded.chunks_exact(width).zip(positions) {
            codes[position as usize * width..][..width].copy_from_slice(row);
        }
        Ok(())
    }
}

/// Seconds of each stage.
struct Clock {
    begin: Instant,
    last: Instant,
    seconds: StageSeconds,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            last: now,
            seconds: StageSeconds::default(),
        }
    }

    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        seconds
    }

    fn finish(mut self) -> StageSeconds {
        self.seconds.total = self.begin.elapsed().as_secs_f64();
        self.seconds
    }
}
