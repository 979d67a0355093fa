//! One epoch of the index, with the parts every query needs at hand.

use std::{io, sync::Arc};

use bytes::Bytes;
use oboro_ckks::{
    EncryptedCodebook, EncryptedQuery, Packing, Randomness, TableEvaluator, TableShare,
    ZeroEncryption,
};
use oboro_index::{Descriptor, Index, IndexHead, Segment};
use oboro_protocol::{
    sizes::{IndexShape, Sizes},
    v1,
};
use oboro_quant::BlockedCodes;

use crate::{
    SearcherError,
    engine::{Codes, ScanEngine},
    metrics::Metrics,
    pool::Pool,
};

/// Most segments: a candidate's key has 16 bits for the segment.
const MAX_SEGMENTS: usize = 1 << 16;

/// How the parts of an epoch are made.
pub(crate) struct Workshop {
    pub(crate) scan_threads: usize,
    pub(crate) queue_limit: usize,
    pub(crate) zero_pool: usize,
    pub(crate) randomness: Arc<Randomness>,
    pub(crate) metrics: Arc<Metrics>,
}

/// An open index, ready to be asked. Another epoch of the same index has
/// another descriptor and codebook; codes and scan engine are the same.
pub(crate) struct Epoch {
    index: Index,
    descriptor: Bytes,
    /// The codebook's public part, encoded.
    pub(crate) masks: Bytes,
    pub(crate) evaluator: Arc<TableEvaluator>,
    pub(crate) zeros: Pool<ZeroEncryption>,
    pub(crate) engine: Arc<ScanEngine>,
    pub(crate) sizes: Sizes,
}

impl Epoch {
    /// Prepares `index`.
    pub(crate) fn new(index: Index, workshop: &Workshop) -> Result<Self, SearcherError> {
        check(&index)?;
        let engine = ScanEngine::start(
            Arc::new(Segments(index.segments().to_vec())),
            workshop.scan_threads.max(1),
            workshop.queue_limit.max(1),
            Arc::clone(&workshop.metrics),
        )?;
        Self::with_engine(index, Arc::new(engine), workshop)
    }

    /// Prepares a later epoch of the same index.
    pub(crate) fn next(&self, index: Index, workshop: &Workshop) -> Result<Self, SearcherError> {
        check(&index)?;
        Self::with_engine(index, Arc::clone(&self.engine), workshop)
    }

    fn with_engine(
        index: Index,
        engine: Arc<ScanEngine>,
        workshop: &Workshop,
    ) -> Result<Self, SearcherError> {
        let shape = index.descriptor();
        let evaluator = TableEvaluator::new(
            shape.packing,
            shape.scale,
            shape.public_key.clone(),
            codebook(&index)?,
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
            masks,
            evaluator,
            zeros,
            engine,
            index,
        })
    }

    /// The shape of the index and the key of this epoch.
    pub(crate) fn shape(&self) -> &Descriptor {
        self.index.descriptor()
    }

    /// The descriptor as the owner authenticated it.
    pub(crate) fn descriptor(&self) -> Bytes {
        self.descriptor.clone()
    }

    /// The state on disk.
    pub(crate) fn head(&self) -> IndexHead {
        self.index.head()
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn id(&self) -> &[u8; 16] {
        &self.shape().index_id
    }

    pub(crate) fn number(&self) -> u64 {
        self.shape().epoch
    }

    pub(crate) fn vectors(&self) -> u64 {
        self.shape().vectors
    }

    /// Most candidates of one query.
    pub(crate) fn most_candidates(&self) -> u64 {
        self.vectors().min(self.shape().candidates_max.into())
    }

    pub(crate) fn codebook(&self) -> Result<EncryptedCodebook, SearcherError> {
        codebook(&self.index)
    }

    /// Bytes of a record on the wire.
    pub(crate) fn record_bytes(&self) -> usize {
        self.shape().record_bytes()
    }

    /// Appends the wire form of a record.
    pub(crate) fn append_record(
        &self,
        segment: usize,
        position: u32,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.index.segments()[segment].append_record(position, out)
    }

    /// The id of the vector at a position.
    pub(crate) fn id_of(&self, segment: usize, position: u32) -> u64 {
        self.index.segments()[segment].ids()[position as usize]
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

/// The codes of all segments, for the engine: no epoch's descriptor or codebook
/// stays in memory for its sake.
struct Segments(Vec<Segment>);

impl Codes for Segments {
    fn segments(&self) -> usize {
        self.0.len()
    }

    fn codes(&self, index: usize) -> &BlockedCodes {
        self.0[index].codes()
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

fn codebook(index: &Index) -> Result<EncryptedCodebook, SearcherError> {
    index
        .codebook()
        .map_err(|error| SearcherError::Index(error.to_string()))
}

fn check(index: &Index) -> Result<(), SearcherError> {
    let segments = index.segments();
    if segments.is_empty() || segments.len() > MAX_SEGMENTS {
        return Err(SearcherError::Index(format!(
            "the index has {} segments and 1 to {MAX_SEGMENTS} can be served; build it again",
            segments.len()
        )));
    }
    let record_bytes = index.descriptor().record_bytes();
    if segments
        .iter()
        .any(|segment| segment.wire_len() != record_bytes)
    {
        return Err(SearcherError::Index(
            "the records of a segment do not fit the descriptor; build the index again".to_owned(),
        ));
    }
    Ok(())
}
