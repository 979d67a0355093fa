//! The index as the searcher uses it.

use std::io;

use bytes::Bytes;
use oboro_ckks::{EncryptedCodebook, Packing, PublicKey, TableScale};
use oboro_index::{Descriptor, Index};
use oboro_quant::BlockedCodes;

use crate::{SearcherError, engine::Codes};

/// Most segments: a candidate's key has 16 bits for the segment.
const MAX_SEGMENTS: usize = 1 << 16;

/// An open index with the parts every query needs at hand.
pub(crate) struct ServedIndex {
    index: Index,
    descriptor: Bytes,
}

impl ServedIndex {
    pub(crate) fn new(index: Index) -> Result<Self, SearcherError> {
        let segments = index.segments().len();
        if segments == 0 || segments > MAX_SEGMENTS {
            return Err(SearcherError::Index(format!(
                "the index has {segments} segments and 1 to {MAX_SEGMENTS} can be served; build it again"
            )));
        }
        let record_bytes = index.descriptor().record_bytes();
        if index
            .segments()
            .iter()
            .any(|segment| segment.wire_len() != record_bytes)
        {
            return Err(SearcherError::Index(
                "the records of a segment do not fit the descriptor; build the index again"
                    .to_owned(),
            ));
        }
        let descriptor = Bytes::copy_from_slice(index.descriptor_bytes());
        Ok(Self { index, descriptor })
    }

    fn shape(&self) -> &Descriptor {
        self.index.descriptor()
    }

    /// The descriptor as the owner authenticated it.
    pub(crate) fn descriptor(&self) -> Bytes {
        self.descriptor.clone()
    }

    pub(crate) fn id(&self) -> &[u8; 16] {
        &self.shape().index_id
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.shape().epoch
    }

    pub(crate) fn vectors(&self) -> u64 {
        self.shape().vectors
    }

    pub(crate) fn candidates_max(&self) -> u32 {
        self.shape().candidates_max
    }

    pub(crate) fn packing(&self) -> Packing {
        self.shape().packing
    }

    pub(crate) fn scale(&self) -> TableScale {
        self.shape().scale
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.shape().public_key
    }

    pub(crate) fn codebook(&self) -> Result<EncryptedCodebook, SearcherError> {
        self.index
            .codebook()
            .map_err(|error| SearcherError::Index(error.to_string()))
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
}

impl Codes for ServedIndex {
    fn segments(&self) -> usize {
        self.index.segments().len()
    }

    fn codes(&self, index: usize) -> &BlockedCodes {
        self.index.segments()[index].codes()
    }
}
