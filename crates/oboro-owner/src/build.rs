//! The build itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chacha20::ChaCha20Rng;
use oboro_ckks::{EncryptedCodebook, ParameterSet, PublicKey, TableScale};
use oboro_index::{
    BuildKeys, Descriptor, DescriptorKey, IndexWriter, MAX_EXTRA_BYTES, Model, OwnerKey,
    QueryModel, QueryShape, RecordLayout, Rotation, RotationMatrix, permutation,
};
use oboro_quant::{Codebook, Metric, TrainOptions};
use rand_core::{CryptoRng, SeedableRng};
use zeroize::Zeroizing;

use crate::nearest::Nearest;
use crate::prepare::Prepare;
use crate::second_pass::SecondPass;
use crate::shape::Shape;
use crate::survey::{Survey, survey};
use crate::tags::NewTags;
use crate::trial::{self, NEIGHBOURS, Subject, TrialQuery};
use crate::{
    BuildOptions, BuildReport, EncryptionReport, ListsReport, OwnerError, Stage, StageSeconds,
    VectorSource, displacement, lists, opq,
};

/// Queries up to this many times as long as the longest vector are searched
/// as they are; longer ones are shortened, which under L2 can change their
/// neighbours. The noise of tables grows with it, and the fewer vectors there
/// are, the less their longest says about queries: twice as long for a hundred,
/// a quarter longer for a million.
pub(crate) fn query_norm_room(vectors: usize) -> f64 {
    (1.25 + 7.5 / (vectors as f64).sqrt()).min(2.0)
}

/// Candidates that trial queries re-rank.
const TRIAL_CANDIDATES: usize = 100;

/// Streams of the generator that [`BuildOptions::seed`] starts.
pub(crate) const SAMPLE_STREAM: u64 = 1;

/// The owner: its key and the keeper it trusts with decryption.
pub struct Owner {
    pub(crate) key: OwnerKey,
    pub(crate) keeper: PublicKey,
}

impl Owner {
    /// An owner whose indexes are for the holder of the secret key behind
    /// `keeper`.
    #[must_use]
    pub const fn new(key: OwnerKey, keeper: PublicKey) -> Self {
        Self { key, keeper }
    }

    /// What authenticates the descriptors of its indexes.
    #[must_use]
    pub fn descriptor_key(&self) -> DescriptorKey {
        self.key.descriptor_key()
    }

    pub(crate) const fn parameter_set(&self) -> ParameterSet {
        self.keeper.parameter_set()
    }

    /// Builds an index of `source` in the folder `out`.
    ///
    /// # Errors
    /// When a vector, the shape or the output is wrong; see [`OwnerError`].
    /// Nothing of a failed build is visible.
    pub fn build(
        &self,
        source: &mut dyn VectorSource,
        out: &Path,
        options: &BuildOptions,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<BuildReport, OwnerError> {
        let threads = options.threads.unwrap_or(0);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|_| OwnerError::Threads { threads })?;
        pool.install(|| self.run(source, out, options, rng))
    }

    fn run(
        &self,
        source: &mut dyn VectorSource,
        out: &Path,
        options: &BuildOptions,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<BuildReport, OwnerError> {
        let mut clock = Clock::start();
        let shape = Shape::of(source, self.keeper.parameter_set(), options)?;
        let drawn = Drawn::from(rng);
        let keys = self.key.build_keys(&drawn.index_id, options.released);
        // First of all, so that an output that exists costs no time.
        let writer = IndexWriter::create_under(out, keys.to_epoch_key(), options.force)?;
        let looked = Looked::at(source, &shape, &keys, options)?;
        clock.seconds.read = clock.lap();
        let rest = Rest {
            keys: &keys,
            keeper: &self.keeper,
            shape: &shape,
            options,
        };
        rest.run(source, looked, writer, clock, &mut drawn.generator())
    }
}

/// What a build draws of its caller's generator: everything random in it follows from that.
pub(crate) struct Drawn {
    pub(crate) index_id: [u8; 16],
    pub(crate) seed: Zeroizing<[u8; 32]>,
}

impl Drawn {
    pub(crate) fn from(rng: &mut impl CryptoRng) -> Self {
        let mut drawn = Self {
            index_id: [0; 16],
            seed: Zeroizing::new([0; 32]),
        };
        rng.fill_bytes(&mut drawn.index_id);
        rng.fill_bytes(&mut *drawn.seed);
        drawn
    }

    pub(crate) fn generator(&self) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(*self.seed)
    }
}

/// What the first pass found, and what follows from it.
pub(crate) struct Looked {
    pub(crate) found: Survey,
    pub(crate) layout: RecordLayout,
    pub(crate) tags: NewTags,
}

impl Looked {
    /// The first pass.
    pub(crate) fn at(
        source: &mut dyn VectorSource,
        shape: &Shape,
        keys: &BuildKeys,
        options: &BuildOptions,
    ) -> Result<Self, OwnerError> {
        let mut sampling = ChaCha20Rng::from_seed(options.seed);
        sampling.set_stream(SAMPLE_STREAM);
        let found = survey(
            source,
            shape.sample,
            keys.record_key(),
            options,
            &mut sampling,
        )?;
        let layout = RecordLayout {
            encoding: found.encoding.choose(options.originals, options.metric)?,
            dimension: shape.dimension,
            extra_bytes: extra_bytes(found.extra_needed, options)?,
        };
        let tags = NewTags::choose(source, keys.index_id(), keys.descriptor_key(), options)?;
        Ok(Self {
            found,
            layout,
            tags,
        })
    }
}

/// Everything of a build after the first pass, wherever that was made.
pub(crate) struct Rest<'a> {
    pub(crate) keys: &'a BuildKeys,
    pub(crate) keeper: &'a PublicKey,
    pub(crate) shape: &'a Shape,
    pub(crate) options: &'a BuildOptions,
}

impl Rest<'_> {
    /// Trains, encodes, tries and writes; reads `source` once.
    pub(crate) fn run(
        &self,
        source: &mut dyn VectorSource,
        looked: Looked,
        mut writer: IndexWriter,
        mut clock: Clock,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<BuildReport, OwnerError> {
        let Self {
            keys,
            keeper,
            shape,
            options,
        } = *self;
        let Looked {
            mut found,
            layout,
            tags,
        } = looked;
        let record_key = keys.record_key();
        let lengths = found.lengths(shape.dimension);
        let rotation = RotationMatrix::derive(
            keys.rotation_seed(),
            &shape.subspaces,
            options.rotation,
            options.metric,
        );
        let prepare = Prepare {
            metric: options.metric,
            rotation: &rotation,
            query: None,
            dimension: shape.dimension,
        };
        let mut sample = std::mem::take(&mut found.sample);
        let plain = (options.rotation == Rotation::Full).then(|| cut(&sample, shape).to_vec());
        prepare.rows(&mut sample)?;
        let rotation_cost = match plain {
            Some(plain) => Some(rotation_cost(plain, cut(&sample, shape), shape, options)?),
            None => None,
        };
        let (opq, opq_report) = match options.opq {
            None => (None, None),
            Some(turns) => {
                let (opq, report) = opq::learn(&sample, shape, turns, options)?;
                opq.apply_rows(&mut sample)?;
                (Some(opq), Some(report))
            }
        };
        let coarse = match options.lists {
            0 => None,
            _ => Some(lists::learn(&sample, shape, options)?),
        };
        let query = QueryModel { opq, coarse };
        let prepare = Prepare {
            query: Some(&query),
            ..prepare
        };
        let codebook = train(&sample, shape, shape.sample, options)?;
        drop(sample);
        clock.seconds.train = clock.lap();

        let segment = writer.begin_segment(record_key, layout, shape.rows, rng)?;
        let pass = SecondPass {
            shape,
            codebook: &codebook,
            coarse: query.coarse.as_ref(),
            prepare: &prepare,
            order: permutation(shape.rows, rng),
            record_key,
            tags: &tags,
        };
        let encoded = pass.run(source, segment, &found, options)?;
        clock.seconds.encode = clock.lap();

        let norm_bound = match options.metric {
            // Queries are normalised; the room is for rounding.
            Metric::Cosine => 1.0 + 1e-5,
            _ => query_norm_room(shape.rows) * f64::from(found.largest_norm),
        };
        let terms = codebook.table_terms(options.metric);
        let scale = TableScale::new(
            &shape.packing,
            norm_bound,
            terms.norm(),
            terms.offset_bound(),
        )?;
        let subject = Subject {
            codebook: &codebook,
            terms: &terms,
            metric: options.metric,
            packing: shape.packing,
            scale,
            codes: &encoded.codes,
            lists: trial::Lists::of(&query, &encoded.codes, &encoded.lists, shape.probes_max)?,
        };
        let queries = trials(&prepare, &found, encoded.nearest, &pass.order)?;
        let candidates = TRIAL_CANDIDATES.min(shape.rows - 1).max(1);
        let trial = trial::run(&subject, &queries, candidates, options, rng)?;
        clock.seconds.trial = clock.lap();

        let lists_report = subject.lists.as_ref().map(|lists| ListsReport {
            lists: query.lists(),
            probes_max: shape.probes_max,
            places: lists.places(),
            recall_10_at_10: trial.recall_in_lists,
        });
        options.check_cancelled()?;
        options.report(Stage::Write, 0, 0);
        let encrypted = EncryptedCodebook::encrypt(
            shape.packing,
            &scale,
            keeper,
            terms.centroids(),
            terms.offsets(),
            rng,
        )?;
        let index_id = *keys.index_id();
        let query_model = match query.is_empty() {
            true => None,
            false => {
                let sealed = keys
                    .descriptor_key()
                    .seal_query_model(&index_id, &query, rng)?;
                let named = QueryShape::of(&query, &sealed, shape.probes_max);
                writer.set_query_model(sealed);
                Some(named)
            }
        };
        let descriptor = Descriptor {
            index_id,
            epoch: 1,
            dimension: shape.dimension as u32,
            metric: options.metric,
            rotation: options.rotation,
            candidates_max: shape.candidates_max as u32,
            record_encoding: layout.encoding,
            extra_bytes: layout.extra_bytes,
            tags: tags.hashes,
            query_model,
            packing: shape.packing,
            scale,
            codebook_digest: encrypted.masks().digest(),
            public_key: keeper.clone(),
        };
        writer.set_codebook(&encrypted, rng);
        writer.add_segment_in_lists(
            encoded.segment,
            &encoded.codes,
            &encoded.tags,
            &encoded.lists,
        )?;
        let model = Model {
            codebook,
            metric: options.metric,
            rotation: options.rotation,
            encoding: layout.encoding,
            norm_bound,
            query,
        };
        writer.set_model(keys.model_key().seal(&index_id, &model, rng))?;
        options.check_cancelled()?;
        let committed = writer.commit(&descriptor, keys.descriptor_key(), rng)?;
        clock.seconds.write = clock.lap();
        Ok(BuildReport {
            state: committed.head,
            vectors: shape.rows,
            dimension: shape.dimension,
            lengths,
            metric: options.metric.name(),
            subquantizers: shape.packing.subquantizers(),
            centroids: shape.packing.centroids(),
            split: shape.packing.split(),
            rotation: options.rotation.name(),
            rotation_cost,
            opq: opq_report,
            lists: lists_report,
            originals: layout.encoding.name(),
            extra_bytes: layout.extra_bytes,
            tags: descriptor.tags.len(),
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

/// The trial queries as they are searched, with what they should find.
fn trials(
    prepare: &Prepare<'_>,
    found: &Survey,
    nearest: Nearest,
    order: &[u32],
) -> Result<Vec<TrialQuery>, OwnerError> {
    found
        .trials
        .chunks_exact(prepare.dimension)
        .zip(&found.trial_rows)
        .zip(nearest.into_best())
        .map(|((query, &row), best)| {
            let mut prepared = query.to_vec();
            prepare.query(&mut prepared)?;
            let (due, right) = best.right(row, NEIGHBOURS, prepare.metric);
            let mut right: Vec<u32> = right.into_iter().map(|row| order[row]).collect();
            right.sort_unstable();
            Ok(TrialQuery {
                prepared,
                itself: order[row],
                due,
                right,
            })
        })
        .collect()
}

pub(crate) fn train(
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
pub(crate) const ROTATION_SAMPLE: usize = 16_384;
pub(crate) const ROTATION_ITERATIONS: usize = 6;

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

/// Room for text ids and payloads in every record.
pub(crate) fn extra_bytes(needed: usize, options: &BuildOptions) -> Result<u32, OwnerError> {
    let available = options.extra_bytes.unwrap_or(MAX_EXTRA_BYTES);
    if needed > available as usize {
        return Err(OwnerError::ExtraTooLong { needed, available });
    }
    Ok(options.extra_bytes.unwrap_or(needed as u32))
}

/// Seconds of each stage.
pub(crate) struct Clock {
    begin: Instant,
    last: Instant,
    pub(crate) seconds: StageSeconds,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            last: now,
            seconds: StageSeconds::default(),
        }
    }

    pub(crate) fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        seconds
    }

    pub(crate) fn finish(mut self) -> StageSeconds {
        self.seconds.total = self.begin.elapsed().as_secs_f64();
        self.seconds
    }
}
