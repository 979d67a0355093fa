//! One epoch of the index, with the parts every query needs at hand.

use std::sync::Arc;

use bytes::Bytes;
use oboro_ckks::{EncryptedQuery, Packing, Randomness, TableEvaluator, TableShare, ZeroEncryption};
use oboro_index::{Descriptor, Index};
use oboro_protocol::{
    sizes::{IndexShape, Sizes},
    v1,
};

use crate::{SearcherError, engine::ScanEngine, metrics::Metrics, pool::Pool, snapshot::Snapshot};

/// How the parts of an epoch are made.
pub(crate) struct Workshop {
    pub(crate) scan_threads: usize,
    pub(crate) queue_limit: usize,
    pub(crate) zero_pool: usize,
    pub(crate) randomness: Arc<Randomness>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The keys and the shape of one epoch. What is searched is in the engine,
/// which all epochs of the index share: a commit changes it for all of them.
pub(crate) struct Epoch {
    shape: Descriptor,
    descriptor: Bytes,
    /// The codebook's public part, encoded.
    pub(crate) masks: Bytes,
    /// What clients do to queries, sealed for them.
    pub(crate) query_model: Option<Bytes>,
    pub(crate) evaluator: Arc<TableEvaluator>,
    pub(crate) zeros: Pool<ZeroEncryption>,
    pub(crate) engine: Arc<ScanEngine<Snapshot>>,
    pub(crate) sizes: Sizes,
}

impl Epoch {
    /// Prepares `index`.
    pub(crate) fn new(index: Index, workshop: &Workshop) -> Result<Self, SearcherError> {
        let snapshot = Arc::new(Snapshot::new(index)?);
        let engine = ScanEngine::start(
            Arc::clone(&snapshot),
            workshop.scan_threads.max(1),
            workshop.queue_limit.max(1),
            Arc::clone(&workshop.metrics),
        )?;
        Self::with_engine(snapshot.index(), Arc::new(engine), workshop)
    }

    /// Prepares a later epoch of the same index, which is searched from now on.
    pub(crate) fn next(&self, index: Index, workshop: &Workshop) -> Result<Self, SearcherError> {
        let snapshot = Arc::new(Snapshot::new(index)?);
        let next = Self::with_engine(snapshot.index(), Arc::clone(&self.engine), workshop)?;
        self.engine.replace(snapshot);
        Ok(next)
    }

    fn with_engine(
        index: &Index,
        engine: Arc<ScanEngine<Snapshot>>,
        workshop: &Workshop,
    ) -> Result<Self, SearcherError> {
        let shape = index.descriptor();
        let evaluator = TableEvaluator::new(
            shape.packing,
            shape.scale,
            shape.public_key.clone(),
            index.codebook()?,
        )
        .map_err(|error| SearcherError::Index(error.to_string()))?;
        let evaluator = Arc::new(evaluator);
        let masks = Bytes::from(evaluator.masks().to_bytes());
        let zeros = {
            let evaluator = Arc::clone(&evaluator);
            let mut rng = workshop.randomness.generator();
            Pool::start(workshop.zero_pool, move || evaluator.zero(&mut rng))
                .map_err(SearcherError::Thread)?
        };
        Ok(Self {
            descriptor: Bytes::copy_from_slice(index.descriptor_bytes()),
            sizes: sizes(shape),
            shape: shape.clone(),
            masks,
            query_model: index.query_model_bytes().map(Bytes::copy_from_slice),
            evaluator,
            zeros,
            engine,
        })
    }

    /// The shape of the index and the key of this epoch.
    pub(crate) fn shape(&self) -> &Descriptor {
        &self.shape
    }

    /// The descriptor as the owner authenticated it.
    pub(crate) fn descriptor(&self) -> Bytes {
        self.descriptor.clone()
    }

    /// The newest state of the index, whatever its epoch.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.engine.snapshot()
    }

    pub(crate) fn id(&self) -> &[u8; 16] {
        &self.shape.index_id
    }

    pub(crate) fn number(&self) -> u64 {
        self.shape.epoch
    }

    /// Most candidates of one query, however many vectors there are.
    pub(crate) fn most_candidates(&self) -> u64 {
        self.shape.candidates_max.into()
    }

    /// Vectors have tags, so a query may have a filter.
    pub(crate) fn has_tags(&self) -> bool {
        !self.shape.tags.is_empty()
    }

    /// Bytes of a record on the wire.
    pub(crate) fn record_bytes(&self) -> usize {
        self.shape.record_bytes()
    }

    /// Lists that vectors are in; 0 for none.
    pub(crate) fn lists(&self) -> usize {
        self.shape.lists()
    }

    /// Most lists that one search looks at.
    pub(crate) fn probes_max(&self) -> u32 {
        self.shape.probes_max()
    }

    /// What the keeper prepares for this epoch.
    pub(crate) fn preparation(&self) -> v1::PrepareRequest {
        let shape = self.shape();
        v1::PrepareRequest {
            index_id: self.id().to_vec().into(),
            epoch: self.number(),
            packing: Some(packing_parameters(&shape.packing)),
            scale: shape.scale.to_bytes().to_vec().into(),
            masks: self.masks.clone(),
            key_fingerprint: shape.public_key.fingerprint().to_vec().into(),
        }
    }
}

/// The sizes of the messages of an index.
fn sizes(shape: &Descriptor) -> Sizes {
    Sizes::new(&IndexShape {
        query_bytes: EncryptedQuery::encoded_len(&shape.packing),
        seeded_query_bytes: EncryptedQuery::seeded_len(&shape.packing),
        share_bytes: TableShare::encoded_len(&shape.packing),
        record_bytes: shape.record_bytes(),
        candidates_max: shape.candidates_max,
        probes_max: shape.probes_max(),
    })
}

/// How messages name a packing.
pub(crate) fn packing_parameters(packing: &Packing) -> v1::PackingParameters {
    v1::PackingParameters {
        parameter_set: packing.set().name().to_owned(),
        subquantizers: packing.subquantizers() as u32,
        width: packing.width() as u32,
        centroids: packing.centroids() as u32,
        split: packing.split() as u32,
    }
}
