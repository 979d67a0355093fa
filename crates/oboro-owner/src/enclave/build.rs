//! The owner's part.

use std::path::Path;

use oboro_index::{BuildKeys, Descriptor, EncodingChoice, IndexReceiver, RecordEncoding};
use rand_core::CryptoRng;

use super::{Batch, Built, Form, Job, Link};
use crate::build::{Clock, Drawn, Looked};
use crate::shape::Shape;
use crate::{
    BuildOptions, BuildReport, EncryptionReport, Lengths, Owner, OwnerError, Stage, VectorSource,
    displacement,
};

/// Bytes of vectors and payloads that travel at a time.
const BATCH_BYTES: usize = 4 << 20;

/// Most rows that do.
const BATCH_ROWS: usize = 32_768;

impl Owner {
    /// Builds an index of `source` in the folder `out`, at the generator behind `link`.
    /// With the same `rng` it has the same bytes as one that [`build`](Self::build) makes.
    ///
    /// # Errors
    /// When a vector, the shape or the output is wrong, the generator refuses or goes
    /// away, or what it made is not what was asked for. Nothing of a failed build is
    /// visible.
    pub fn build_enclave<L: Link>(
        &self,
        source: &mut dyn VectorSource,
        link: &mut L,
        out: &Path,
        options: &BuildOptions,
        rng: &mut impl CryptoRng,
    ) -> Result<BuildReport, L::Error> {
        let result = self.have_built(source, link, out, options, rng);
        match result {
            Ok(_) => link.done(),
            Err(_) => link.abort(),
        }
        result
    }

    fn have_built<L: Link>(
        &self,
        source: &mut dyn VectorSource,
        link: &mut L,
        out: &Path,
        options: &BuildOptions,
        rng: &mut impl CryptoRng,
    ) -> Result<BuildReport, L::Error> {
        let mut clock = Clock::start();
        let shape = Shape::of(source, self.parameter_set(), options)?;
        let drawn = Drawn::from(rng);
        // Two of them: one goes with the job.
        let keys = self.key.build_keys(&drawn.index_id, options.released);
        let mut receiver =
            IndexReceiver::create(out, &keys, options.force).map_err(OwnerError::from)?;
        let looked = Looked::at(source, &shape, &keys, options)?;
        let lengths = looked.found.lengths(shape.dimension);
        let read = clock.lap();
        let mut told = |stage, done, total| {
            options.report(stage, done, total);
            options.check_cancelled()
        };
        let job = self.job(&shape, &looked, drawn, options);
        let bits = looked.tags.bits;
        link.begin(&job, &mut told)?;
        let piece = job.dimension * (BATCH_BYTES / (job.dimension * job.form.width())).max(1);
        for vectors in [looked.found.sample, looked.found.trials] {
            for vectors in vectors.chunks(piece) {
                link.early(job.form.pack(vectors), &mut told)?;
            }
        }
        self.send(source, &job, &bits, link, options)?;
        let built = link.built(&mut told)?;
        options.report(Stage::Write, 0, 0);
        receiver
            .manifest(&built.manifest)
            .map_err(OwnerError::from)?;
        while receiver.missing() > 0 {
            options.check_cancelled()?;
            let Some(piece) = link.piece()? else {
                break;
            };
            receiver.write(&piece).map_err(OwnerError::from)?;
        }
        Ok(self.accept(receiver, &keys, &shape, &job, built, lengths, clock, read)?)
    }

    fn job(&self, shape: &Shape, looked: &Looked, drawn: Drawn, options: &BuildOptions) -> Job {
        let found = &looked.found;
        Job {
            keys: self.key.build_keys(&drawn.index_id, options.released),
            keeper: self.keeper.clone(),
            seed: drawn.seed,
            options: options.clone(),
            vectors: shape.rows,
            dimension: shape.dimension,
            originals: looked.layout.encoding,
            extra_bytes: looked.layout.extra_bytes,
            tags: looked.tags.hashes.clone(),
            largest_norm: found.largest_norm,
            trial_rows: found.trial_rows.clone(),
            form: match found.encoding.choose(EncodingChoice::Auto, options.metric) {
                Ok(RecordEncoding::INTEGERS) => Form::Bytes,
                _ => Form::Single,
            },
        }
    }

    /// The second pass.
    fn send<L: Link>(
        &self,
        source: &mut dyn VectorSource,
        job: &Job,
        bits: &[Option<u32>],
        link: &mut L,
        options: &BuildOptions,
    ) -> Result<(), L::Error> {
        // Id and tags are eight bytes each.
        let each = job.dimension * job.form.width() + job.extra_bytes as usize + 16;
        let most = (BATCH_BYTES / each).clamp(1, BATCH_ROWS);
        let rows = job.vectors;
        let mut told = |stage, done, total| {
            options.report(stage, done, total);
            options.check_cancelled()
        };
        source.rewind().map_err(OwnerError::from)?;
        let mut sent = 0;
        while let Some(records) = source.read(most).map_err(OwnerError::from)? {
            options.check_cancelled()?;
            sent += records.len();
            // A source that grew, or has other rows than in the first pass.
            if sent > rows || !records.refused.is_empty() {
                return Err(OwnerError::SourceChanged.into());
            }
            if records.is_empty() {
                continue;
            }
            link.records(Batch::new(records, job, bits)?, &mut told)?;
        }
        if sent != rows {
            return Err(OwnerError::SourceChanged.into());
        }
        Ok(())
    }

    /// Looks at what was made, makes it visible, and says what it is.
    #[allow(clippy::too_many_arguments)]
    fn accept(
        &self,
        mut receiver: IndexReceiver,
        keys: &BuildKeys,
        shape: &Shape,
        job: &Job,
        built: Built,
        lengths: Lengths,
        mut clock: Clock,
        read: f64,
    ) -> Result<BuildReport, OwnerError> {
        let (descriptor, vectors) = receiver.open(keys)?;
        if let Some(what) = self.differs(&descriptor, vectors, shape, job) {
            return Err(OwnerError::Generator(format!(
                "it made an index with another {what} than it was asked for"
            )));
        }
        let committed = receiver.commit()?;
        let written = clock.lap();
        let mut seconds = clock.finish();
        seconds.read = read;
        seconds.train = built.seconds.train;
        seconds.encode = built.seconds.encode;
        seconds.trial = built.seconds.trial;
        // Both write the files, and they travel between.
        let there = built.seconds.train + built.seconds.encode + built.seconds.trial;
        seconds.write = (written - there).max(0.0);
        Ok(BuildReport {
            state: committed.head,
            vectors: shape.rows,
            dimension: shape.dimension,
            lengths,
            metric: descriptor.metric.name(),
            subquantizers: shape.packing.subquantizers(),
            centroids: shape.packing.centroids(),
            split: shape.packing.split(),
            rotation: descriptor.rotation.name(),
            rotation_cost: built.rotation_cost,
            opq: built.opq,
            lists: built.lists,
            originals: descriptor.record_encoding.name(),
            extra_bytes: descriptor.extra_bytes,
            tags: descriptor.tags.len(),
            encryption: EncryptionReport::new(&descriptor.packing, &descriptor.scale),
            candidates_max: shape.candidates_max,
            record_bytes: descriptor.record_bytes(),
            files: committed.files,
            displacement_probability: displacement(shape.rows, shape.candidates_max)?,
            trial: built.trial,
            seconds,
        })
    }

    /// In what an index is another than the one that was asked for.
    fn differs(
        &self,
        descriptor: &Descriptor,
        vectors: u64,
        shape: &Shape,
        job: &Job,
    ) -> Option<&'static str> {
        let same = [
            ("id", descriptor.index_id == *job.keys.index_id()),
            ("epoch", descriptor.epoch == 1),
            ("number of vectors", vectors == shape.rows as u64),
            (
                "dimension",
                descriptor.dimension as usize == shape.dimension,
            ),
            ("metric", descriptor.metric == job.options.metric),
            ("rotation", descriptor.rotation == job.options.rotation),
            (
                "encoding of originals",
                descriptor.record_layout() == job.layout(),
            ),
            ("list of tags", descriptor.tags == job.tags),
            ("packing", descriptor.packing == shape.packing),
            (
                "matrix or list",
                descriptor.query_model.is_some()
                    == (job.options.opq.is_some() || job.options.lists > 0),
            ),
            (
                "number of candidates",
                descriptor.candidates_max as usize == shape.candidates_max,
            ),
            (
                "keeper's key",
                descriptor.public_key_fingerprint() == self.keeper.fingerprint(),
            ),
        ];
        same.iter().find(|(_, same)| !same).map(|(what, _)| *what)
    }
}
