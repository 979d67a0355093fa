//! The build.

use std::time::Instant;

use chacha20::ChaCha20Rng;
use oboro_ckks::{
    BatchEncryptor, BatchPacking, BatchScale, EncryptedBatch, GenerationPlan, MaskSeed, TableScale,
    TrainingSample,
};
use oboro_index::{BuildState, Descriptor, IndexHead, RecordLayout, RotationMatrix};
use oboro_quant::Metric;
use rand_core::{CryptoRng, Rng as _, SeedableRng as _};
use zeroize::Zeroizing;

use super::digest::Digesting;
use super::segment::{Chunk, encrypt};
use super::shape::shape;
use super::start::{Part, SEGMENT_VECTORS, generator};
use super::{BlindReport, BlindRoles, BlindStanding, BlindStart, BlindTrained};
use crate::build::{SAMPLE_STREAM, extra_bytes, query_norm_room};
use crate::prepare::Prepare;
use crate::shape::{Shape, Size};
use crate::survey::survey;
use crate::tags::NewTags;
use crate::{
    BuildOptions, EncryptionReport, Owner, OwnerError, Stage, StageSeconds, VectorSource,
    displacement,
};

/// Vectors to train on for each centroid, where it is not said: half of what a local
/// build takes, since a round costs as much as encoding the sample.
const SAMPLE_PER_CENTROID: usize = 128;

/// Most bytes of a segment's records, with room to what a searcher takes.
const SEGMENT_BYTES: usize = 48 << 20;

/// Bytes of batches that are brought at a time.
const PIECE_BYTES: usize = 8 << 20;

impl Owner {
    /// Builds an index of `source` blindly, in the folder of the searcher among `roles`.
    ///
    /// Of `options` those are used that concern shape, sample, rounds, rotation, originals,
    /// tags and extra bytes; there are no trial queries.
    ///
    /// With the state of a build that was interrupted it goes on there, and gives the same
    /// bytes as if it had not been.
    ///
    /// # Errors
    /// When a vector or the shape is wrong, or a role refuses or cannot be reached.
    /// Nothing of a failed build is visible; with its state it may go on.
    pub fn build_blind<R: BlindRoles>(
        &self,
        source: &mut dyn VectorSource,
        roles: &mut R,
        options: &BuildOptions,
        start: BlindStart<'_>,
    ) -> Result<BlindReport, R::Error> {
        let threads = options.threads.unwrap_or(0);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|_| OwnerError::Threads { threads })?;
        let build = Build {
            owner: self,
            options,
            pool,
        };
        build.run(source, roles, start)
    }
}

struct Build<'a> {
    owner: &'a Owner,
    options: &'a BuildOptions,
    /// For reading, sealing and encrypting; the roles' messages go their own way.
    pool: rayon::ThreadPool,
}

impl Build<'_> {
    fn run<R: BlindRoles>(
        &self,
        source: &mut dyn VectorSource,
        roles: &mut R,
        start: BlindStart<'_>,
    ) -> Result<BlindReport, R::Error> {
        let begin = Instant::now();
        let mut seconds = StageSeconds::default();
        let mut last = begin;
        let mut lap = |stage: &mut f64| {
            let now = Instant::now();
            *stage = (now - last).as_secs_f64();
            last = now;
        };
        let BlindStart {
            mut state,
            resume,
            segment_vectors,
            keep,
        } = start;
        let segment_vectors = segment_vectors.clamp(1, SEGMENT_VECTORS);
        let prepared = self.prepare(source, &mut state, resume, segment_vectors)?;
        keep(&state)?;
        lap(&mut seconds.read);
        let (standing, trained, mean_square) = self.train(&prepared, roles, &state)?;
        lap(&mut seconds.train);
        let scales = Scales::read(&prepared, &trained)?;
        let descriptor = self.descriptor(&prepared, &scales, trained.codebook_digest);
        roles.describe(&descriptor.to_bytes(&self.owner.key.descriptor_key()))?;
        let place = Place {
            state: &state,
            segments: standing.segments,
        };
        let uploaded_bytes =
            self.encode(source, &prepared, &descriptor, scales.batch, roles, &place)?;
        lap(&mut seconds.encode);
        self.options.check_cancelled()?;
        self.options.report(Stage::Write, 0, 0);
        let committed = roles.commit()?;
        lap(&mut seconds.write);
        seconds.total = begin.elapsed().as_secs_f64();
        let shape = &prepared.shape;
        if committed.vectors != shape.rows as u64 {
            return Err(OwnerError::Roles(format!(
                "the searcher made an index of {} vectors from {}",
                committed.vectors, shape.rows
            ))
            .into());
        }
        let subspaces = shape.packing.subquantizers() as f64;
        Ok(BlindReport {
            state: IndexHead {
                index_id: descriptor.index_id,
                epoch: descriptor.epoch,
                generation: committed.generation,
                manifest_digest: committed.manifest_digest,
                released: true,
            },
            unrecorded: committed.unrecorded,
            begun_anew: prepared.begun_anew,
            vectors: shape.rows,
            dimension: shape.dimension,
            metric: self.options.metric.name(),
            subquantizers: shape.packing.subquantizers(),
            centroids: shape.packing.centroids(),
            split: shape.packing.split(),
            rotation: self.options.rotation.name(),
            originals: prepared.layout.encoding.name(),
            extra_bytes: prepared.layout.extra_bytes,
            tags: descriptor.tags.len(),
            sample: shape.sample,
            rounds: self.options.iterations,
            distortions: trained
                .gains
                .iter()
                .map(|gain| mean_square - 2.0 * subspaces * gain)
                .collect(),
            encryption: EncryptionReport::new(&shape.packing, &scales.table),
            batch_flooding_bits: scales.batch.flooding_bits(),
            uploaded_bytes,
            candidates_max: shape.candidates_max,
            record_bytes: descriptor.record_bytes(),
            files: committed.files,
            displacement_probability: displacement(shape.rows, shape.candidates_max)
                .map_err(R::Error::from)?,
            seconds,
        })
    }

    /// The first pass: everything that follows from the source.
    fn prepare(
        &self,
        source: &mut dyn VectorSource,
        state: &mut BuildState,
        resume: bool,
        segment_vectors: usize,
    ) -> Result<Prepared, OwnerError> {
        let mut source = Digesting::new(source);
        let mut options = self.options.clone();
        options.trials = 0;
        options.sample = Some(
            options
                .sample
                .unwrap_or(SAMPLE_PER_CENTROID * options.centroids),
        );
        let size = Size {
            rows: source.rows(),
            dimension: source.dimension(),
        };
        let shape = shape(size, self.owner.parameter_set(), &options)?;
        let index_id = state.index_id;
        let mut sampling = ChaCha20Rng::from_seed(options.seed);
        sampling.set_stream(SAMPLE_STREAM);
        let record_key = self.owner.key.record_key();
        let mut found = survey(
            &mut source,
            shape.sample,
            &record_key,
            &options,
            &mut sampling,
        )?;
        let layout = RecordLayout {
            encoding: found.encoding.choose(options.originals, options.metric)?,
            dimension: shape.dimension,
            extra_bytes: extra_bytes(found.extra_needed, &options)?,
        };
        let descriptor_key = self.owner.key.descriptor_key();
        let tags = NewTags::choose(&source, &index_id, &descriptor_key, &options)?;
        let rotation = RotationMatrix::derive(
            &self.owner.key.rotation_seed(),
            &shape.subspaces,
            options.rotation,
            options.metric,
        );
        let (vector_norm, query_norm) = match options.metric {
            Metric::Cosine => (1.0 + 1e-5, 1.0 + 1e-5),
            _ => {
                // Room for what the rotation rounds.
                let largest = f64::from(found.largest_norm) * (1.0 + 1e-5);
                (
                    largest,
                    query_norm_room(shape.rows) * f64::from(found.largest_norm),
                )
            }
        };
        let settings: [&[u8]; 12] = [
            &BatchPacking::of(&shape.packing)?.to_bytes(),
            &(shape.packing.split() as u64).to_le_bytes(),
            &(shape.sample as u64).to_le_bytes(),
            &(options.iterations as u64).to_le_bytes(),
            &(shape.candidates_max as u64).to_le_bytes(),
            &(segment_vectors as u64).to_le_bytes(),
            &layout.stored_len().to_le_bytes(),
            &tags.hashes.concat(),
            options.metric.name().as_bytes(),
            options.rotation.name().as_bytes(),
            layout.encoding.name().as_bytes(),
            &options.seed,
        ];
        let (apart_from_key, input) = source.finish(&settings, &self.owner.keeper.fingerprint());
        let begun_anew = resume && input != state.input;
        // Where only the keeper's key is another one, it was rotated. What the roles have is
        // for the key before, so all is done again; no randomness is, for the key goes into
        // it.
        if begun_anew && state.apart_from_key != Some(apart_from_key) {
            return Err(OwnerError::OtherInput);
        }
        state.input = input;
        state.apart_from_key = Some(apart_from_key);
        Ok(Prepared {
            begun_anew,
            index_id,
            segment_vectors,
            layout,
            tags,
            rotation,
            sample: std::mem::take(&mut found.sample),
            vector_norm,
            query_norm,
            shape,
        })
    }

    /// Sample and shares to the roles, unless they have them; how far they were, what
    /// their training gave, and the mean squared norm of the sample.
    fn train<R: BlindRoles>(
        &self,
        prepared: &Prepared,
        roles: &mut R,
        state: &BuildState,
    ) -> Result<(BlindStanding, BlindTrained, f64), R::Error> {
        let shape = &prepared.shape;
        let packing = BatchPacking::of(&shape.packing).map_err(OwnerError::from)?;
        let (sample, mean_square) = self
            .pool
            .install(|| self.sample(prepared, &packing, &mut generator(state, Part::Sample)))?;
        let mask_seed = MaskSeed::generate(&mut generator(state, Part::Masks));
        let mut training_seed = Zeroizing::new([0; 32]);
        generator(state, Part::Training).fill_bytes(&mut *training_seed);
        let standing = roles.begin(&GenerationPlan {
            index_id: prepared.index_id,
            packing,
            split: shape.packing.split() as u32,
            bounds: sample.bounds(),
            rounds: self.options.iterations as u32,
            vectors: shape.rows as u64,
            segments: shape.rows.div_ceil(prepared.segment_vectors()) as u32,
            public_key: self.owner.keeper.clone(),
            mask_seed: mask_seed.clone(),
            training_seed,
            vector_norm: prepared.vector_norm,
            query_norm: prepared.query_norm,
            offsets: self.options.metric.has_offsets(),
        })?;
        if !standing.training && !standing.trained {
            roles.shares(&sample.shares(&mask_seed))?;
            let rng = &mut generator(state, Part::Batches);
            let scale = sample.bounds().scale(&packing).map_err(OwnerError::from)?;
            let encryptor =
                BatchEncryptor::new(scale, self.owner.keeper.clone()).map_err(OwnerError::from)?;
            let piece = (PIECE_BYTES / EncryptedBatch::encoded_len(&packing)).max(1);
            let batches = packing.batches(shape.sample);
            for first in (0..batches).step_by(piece) {
                self.options.check_cancelled()?;
                let rows = (first..(first + piece).min(batches)).map(|number| sample.batch(number));
                let encrypted = self.pool.install(|| encrypt(&encryptor, rows, rng))?;
                roles.sample(first, encrypted)?;
            }
        }
        drop(sample);
        let trained = roles.train(&mut |done, steps| {
            self.options.report(Stage::Train, done, steps);
            self.options.check_cancelled()
        })?;
        Ok((standing, trained, mean_square))
    }

    fn sample(
        &self,
        prepared: &Prepared,
        packing: &BatchPacking,
        rng: &mut impl CryptoRng,
    ) -> Result<(TrainingSample, f64), OwnerError> {
        let shape = &prepared.shape;
        let mut rows = Zeroizing::new(prepared.sample.clone());
        prepared.prepare(self.options.metric).rows(&mut rows)?;
        let square: f64 = rows.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let mut padded = Zeroizing::new(vec![0.0; shape.sample * packing.vector_len()]);
        for (vector, padded) in rows
            .chunks_exact(shape.dimension)
            .zip(padded.chunks_exact_mut(packing.vector_len()))
        {
            shape.subspaces.pad_into(vector, padded);
        }
        let sample = TrainingSample::new(packing, &padded, rng)?;
        Ok((sample, square / shape.sample as f64))
    }

    fn descriptor(
        &self,
        prepared: &Prepared,
        scales: &Scales,
        codebook_digest: [u8; 32],
    ) -> Descriptor {
        let shape = &prepared.shape;
        Descriptor {
            index_id: prepared.index_id,
            epoch: 1,
            dimension: shape.dimension as u32,
            metric: self.options.metric,
            rotation: self.options.rotation,
            candidates_max: shape.candidates_max as u32,
            record_encoding: prepared.layout.encoding,
            extra_bytes: prepared.layout.extra_bytes,
            tags: prepared.tags.hashes.clone(),
            query_model: None,
            packing: shape.packing,
            scale: scales.table,
            codebook_digest,
            public_key: self.owner.keeper.clone(),
        }
    }

    /// The second pass. Returns the bytes of encrypted vectors.
    fn encode<R: BlindRoles>(
        &self,
        source: &mut dyn VectorSource,
        prepared: &Prepared,
        descriptor: &Descriptor,
        scale: BatchScale,
        roles: &mut R,
        place: &Place<'_>,
    ) -> Result<u64, R::Error> {
        let packing = *scale.packing();
        let encryptor =
            BatchEncryptor::new(scale, self.owner.keeper.clone()).map_err(OwnerError::from)?;
        let record_key = self.owner.key.record_key();
        let prepare = prepared.prepare(self.options.metric);
        let (rows, most) = (prepared.shape.rows, prepared.segment_vectors());
        let each = packing.batch() * packing.vector_len();
        let piece = (PIECE_BYTES / EncryptedBatch::encoded_len(&packing)).max(1);
        source.rewind().map_err(OwnerError::from)?;
        let (mut done, mut number, mut uploaded) = (0, 0, 0);
        while done < rows {
            let chunk = Chunk::read(source, most, &record_key, &prepared.tags)?;
            let count = chunk.len();
            if count != most.min(rows - done) {
                return Err(OwnerError::SourceChanged.into());
            }
            if number < place.segments {
                // It is there already.
                self.options.check_cancelled()?;
                done += count;
                number += 1;
                continue;
            }
            let rng = &mut generator(place.state, Part::Segment(number));
            let (segment, padded) = self.pool.install(|| {
                chunk.seal(
                    descriptor,
                    &record_key,
                    &prepare,
                    &prepared.shape.subspaces,
                    rng,
                )
            })?;
            let padded = Zeroizing::new(padded);
            for (index, part) in padded.chunks(each * piece).enumerate() {
                self.options.check_cancelled()?;
                let first = index * piece;
                let at = done + first * packing.batch();
                self.options.report(Stage::Encode, at as u64, rows as u64);
                let batches = self
                    .pool
                    .install(|| encrypt(&encryptor, part.chunks(each), rng))?;
                uploaded += batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
                roles.encode(number, first, batches)?;
            }
            roles.segment(number, segment)?;
            done += count;
            number += 1;
        }
        if source.read(1).map_err(OwnerError::from)?.is_some() {
            return Err(OwnerError::SourceChanged.into());
        }
        self.options.report(Stage::Encode, rows as u64, rows as u64);
        Ok(uploaded)
    }
}

/// Where the second pass begins.
struct Place<'a> {
    state: &'a BuildState,
    /// Segments that are complete.
    segments: u32,
}

/// What the first pass gave.
struct Prepared {
    /// The keeper's key was rotated since the build began.
    begun_anew: bool,
    index_id: [u8; 16],
    /// Most vectors of a segment.
    segment_vectors: usize,
    shape: Shape,
    layout: RecordLayout,
    tags: NewTags,
    rotation: RotationMatrix,
    sample: Vec<f32>,
    vector_norm: f64,
    query_norm: f64,
}

impl Prepared {
    const fn prepare(&self, metric: Metric) -> Prepare<'_> {
        Prepare {
            metric,
            rotation: &self.rotation,
            query: None,
            dimension: self.shape.dimension,
        }
    }

    fn segment_vectors(&self) -> usize {
        // Id and tags are eight bytes each.
        let each = self.layout.stored_len() + 16;
        (SEGMENT_BYTES / each).clamp(1, self.segment_vectors)
    }
}

/// The scales that the searcher chose, checked.
struct Scales {
    batch: BatchScale,
    table: TableScale,
}

impl Scales {
    fn read(prepared: &Prepared, trained: &BlindTrained) -> Result<Self, OwnerError> {
        let packing = BatchPacking::of(&prepared.shape.packing)?;
        let batch = BatchScale::from_bytes(&packing, &trained.batch_scale)?;
        let table = TableScale::from_bytes(&prepared.shape.packing, &trained.table_scale)?;
        // What was asked for, bit by bit: a smaller bound would shorten vectors.
        if batch.vector_norm().to_bits() != prepared.vector_norm.to_bits()
            || table.query_norm_bound().to_bits() != prepared.query_norm.to_bits()
        {
            return Err(OwnerError::Roles(
                "the searcher chose scales for other norms than it was told".to_owned(),
            ));
        }
        Ok(Self { batch, table })
    }
}
