//! Changes of an index while others search it: inserts, upserts, deletes.
//!
//! 1. The model says how new vectors are encoded ([`Writer::model`]); the caller
//!    encodes and seals them.
//! 2. Each batch is brought as a segment of its own ([`Writer::stage`]): it is on the
//!    searcher's disk, and nobody sees it.
//! 3. A commit makes staged segments visible and deletes ids in one step
//!    ([`Writer::commit`]). When it returns, a search that begins finds the new vectors
//!    and none of the deleted ones.
//!
//! A writer that stops before step 3 has changed nothing; what it staged is removed
//! after ten minutes. When the answer of step 3 is lost, the change was made or not, and
//! never in part: bring it again with [`OnExisting::Replace`], which gives the same in
//! both cases.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use oboro_attest::Verifier;
use oboro_channel::{Identity, Trust};
use oboro_index::{Descriptor, DescriptorKey, NewSegment, OnExisting};
use oboro_protocol::{
    limits,
    v1::{self, searcher_client::SearcherClient},
    validate,
};
use tonic::transport::Channel;

use crate::{
    ClientError,
    transport::{Peer, describe, within},
};

/// Most vectors of one [`Writer::stage`].
pub const MAX_STAGE_VECTORS: usize = limits::MAX_STAGE_VECTORS;

/// Most bytes of codes, ids, tags and records of one [`Writer::stage`], with what
/// stands around them.
pub const MAX_STAGE_BYTES: usize = limits::MAX_STAGE_MESSAGE_BYTES - 1_024;

/// What is needed to change an index.
pub struct WriterConfig {
    /// The searcher's `host:port`.
    pub address: String,
    /// The TLS identity of the owner, or of a client with write access.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// Authenticates descriptors.
    pub descriptor_key: DescriptorKey,
    /// Appraises the searcher's evidence.
    pub verifier: Arc<dyn Verifier>,
    /// Longest time for connecting.
    pub connect_timeout: Duration,
}

/// A segment on the searcher's disk that no commit has made visible yet.
///
/// It can be committed once, over the connection of the same identity, within ten
/// minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageToken(Bytes);

/// One change, visible in one step or not at all. `Debug` shows no ids.
#[derive(Default)]
pub struct Change {
    /// Staged segments; where ids meet, the first counts.
    pub stages: Vec<StageToken>,
    /// Ids to delete.
    pub deletes: Vec<u64>,
    /// What becomes of ids that are there already.
    pub on_existing: OnExisting,
    /// Refuse the whole change where a vector would be left out or an id to delete is
    /// not there. Its stages are used up then.
    pub strict: bool,
}

impl fmt::Debug for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stages, deletes) = (self.stages.len(), self.deletes.len());
        write!(formatter, "Change({stages} stages, {deletes} deletes)")
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReport {
    /// Vectors that were added under new ids.
    pub inserted: u64,
    /// Vectors that took another one's place.
    pub replaced: u64,
    /// New vectors left out because their id was there already.
    pub refused: u64,
    /// Vectors deleted.
    pub deleted: u64,
    /// Ids to delete that were not there.
    pub unknown: u64,
    /// Vectors that can be found now.
    pub vectors: u64,
    /// Commits in the index's whole life.
    pub generation: u64,
    /// The keeper could not be told yet: until it is, an older copy of the index that
    /// is put back would not be noticed.
    pub unrecorded: bool,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionReport {
    /// Segments before.
    pub segments_before: u32,
    /// Segments after.
    pub segments_after: u32,
    /// Deleted vectors whose codes, ids and records are gone from the disk.
    pub dropped: u64,
    /// Commits in the index's whole life.
    pub generation: u64,
}

/// How an index stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterStatus {
    /// Vectors that can be found.
    pub vectors: u64,
    /// Segments.
    pub segments: u32,
    /// Vectors that are deleted but still on disk.
    pub deleted: u64,
    /// Commits in the index's whole life.
    pub generation: u64,
    /// The searcher can change it: it holds the folder. Where another process does, it
    /// tries again every few seconds.
    pub writing: bool,
}

/// A connection to a searcher that has proved what it is, for changing its index.
/// Clones share it.
#[derive(Clone)]
pub struct Writer {
    client: SearcherClient<Channel>,
    descriptor: Arc<Descriptor>,
    simulated: bool,
    remarks: Vec<String>,
}

impl Writer {
    /// Connects, appraises the searcher's evidence, checks the descriptor of the index.
    ///
    /// # Errors
    /// When the searcher cannot be reached or does not prove what it must, or the
    /// descriptor is not the owner's.
    pub async fn connect(config: &WriterConfig) -> Result<Self, ClientError> {
        match Self::attempt(config).await {
            // A new epoch came between the evidence and the description.
            Err(ClientError::Subject { .. }) => Self::attempt(config).await,
            result => result,
        }
    }

    async fn attempt(config: &WriterConfig) -> Result<Self, ClientError> {
        let peer = Peer {
            address: &config.address,
            identity: &config.identity,
            trust: &config.trust,
            verifier: &config.verifier,
            timeout: config.connect_timeout,
        };
        let (mut client, appraisal) = peer.searcher().await?;
        let (descriptor, _) = describe(
            &mut client,
            &appraisal,
            &config.descriptor_key,
            config.connect_timeout,
        )
        .await?;
        Ok(Self {
            client,
            descriptor: Arc::new(descriptor),
            simulated: appraisal.is_simulated(),
            remarks: appraisal.remarks.clone(),
        })
    }

    /// The descriptor of the epoch that was served when the connection was made.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The searcher's platform is simulated and protects nothing.
    #[must_use]
    pub const fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// What the policy accepted and people should know all the same.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The model that new vectors are encoded with, sealed: the holder of the model key
    /// opens it.
    ///
    /// # Errors
    /// When the identity may only search, or the index was built without a model.
    pub async fn model(&self) -> Result<Vec<u8>, ClientError> {
        let mut client = self
            .client
            .clone()
            .max_decoding_message_size(limits::MAX_MODEL_MESSAGE_BYTES);
        let request = v1::ModelRequest {
            index_id: self.index_id(),
        };
        let reply = within(limits::MAX_REQUEST_TIME, client.model(request)).await?;
        Ok(reply.model.into())
    }

    /// Brings a segment; nobody sees it before it is [committed](Self::commit).
    ///
    /// # Errors
    /// When its parts do not fit each other or the index, it is larger than
    /// [`MAX_STAGE_VECTORS`] or [`MAX_STAGE_BYTES`] allow, too many wait, the identity
    /// may only search, or the searcher cannot write.
    pub async fn stage(&self, segment: &NewSegment<'_>) -> Result<StageToken, ClientError> {
        let request = v1::StageRequest {
            index_id: self.index_id(),
            segment_id: segment.segment_id.to_vec().into(),
            ids: segment.ids.to_vec(),
            codes: segment.codes.to_vec().into(),
            tags: segment.tags.to_vec(),
            records: segment.records.to_vec().into(),
            lists: validate::pack_lists(segment.lists.iter().copied()).into(),
        };
        let mut client = self.client.clone();
        let reply = within(limits::MAX_REQUEST_TIME, client.stage(request)).await?;
        Ok(StageToken(reply.stage))
    }

    /// Makes staged segments visible and deletes ids, in one step.
    ///
    /// # Errors
    /// When a strict change cannot be made whole ([`Reason::Conflict`]), a stage is not
    /// there any more, the identity may only search, or the searcher cannot write:
    /// nothing has changed then. When the connection breaks, the change was made whole
    /// or not at all. With [`Reason::Stale`] this searcher has a copy of the index that
    /// does not count, and what it changed in it will not be found.
    ///
    /// [`Reason::Conflict`]: oboro_protocol::Reason::Conflict
    /// [`Reason::Stale`]: oboro_protocol::Reason::Stale
    pub async fn commit(&self, change: Change) -> Result<CommitReport, ClientError> {
        let on_existing = match change.on_existing {
            OnExisting::Refuse => v1::OnExisting::Refuse,
            OnExisting::Replace => v1::OnExisting::Replace,
        };
        let request = v1::CommitRequest {
            index_id: self.index_id(),
            stages: change.stages.into_iter().map(|token| token.0).collect(),
            deletes: change.deletes,
            on_existing: on_existing.into(),
            strict: change.strict,
        };
        let mut client = self.client.clone();
        let reply = within(limits::MAX_REQUEST_TIME, client.commit(request)).await?;
        Ok(CommitReport {
            inserted: reply.inserted,
            replaced: reply.replaced,
            refused: reply.refused,
            deleted: reply.deleted,
            unknown: reply.unknown,
            vectors: reply.vectors,
            generation: reply.generation,
            unrecorded: reply.unrecorded,
        })
    }

    /// Merges all segments and drops deleted vectors; waits for it.
    ///
    /// # Errors
    /// When the identity may only search, or the searcher cannot write. When it takes
    /// longer than an hour the searcher goes on, and the error says so.
    pub async fn compact(&self) -> Result<CompactionReport, ClientError> {
        let request = v1::CompactRequest {
            index_id: self.index_id(),
        };
        let mut client = self.client.clone();
        let reply = within(limits::MAX_COMPACTION_TIME, client.compact(request)).await?;
        Ok(CompactionReport {
            segments_before: reply.segments_before,
            segments_after: reply.segments_after,
            dropped: reply.dropped,
            generation: reply.generation,
        })
    }

    /// How the index stands.
    ///
    /// # Errors
    /// When the searcher cannot be reached.
    pub async fn status(&self) -> Result<WriterStatus, ClientError> {
        let mut client = self.client.clone();
        let call = client.status(v1::StatusRequest {});
        let status = within(limits::MAX_REQUEST_TIME, call).await?;
        Ok(WriterStatus {
            vectors: status.vectors,
            segments: status.segments,
            deleted: status.deleted,
            generation: status.generation,
            writing: status.writing,
        })
    }

    fn index_id(&self) -> Bytes {
        Bytes::copy_from_slice(&self.descriptor.index_id)
    }
}
