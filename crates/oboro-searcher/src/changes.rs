//! Changes of the index while it is searched: new vectors, deletes.
//!
//! `Stage` writes a segment that nobody sees; any number may be written at the
//! same time. `Commit` makes staged segments visible and deletes ids in one
//! step, one commit at a time: searches that come later see all of it, searches
//! under way keep the snapshot they have. Then the keeper records the state as
//! the newest; a keeper that is away is told when it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use oboro_index::{Change, Index, NewSegment, OnExisting, Outcome, Staged};
use oboro_protocol::{
    Failure, Reason, limits, v1,
    validate::{self, SegmentShape},
};

use crate::{
    SearcherError,
    epoch::Epoch,
    folder::{Folder, refused},
    metrics::Metrics,
    rotation::blocking,
    searcher::Searcher,
    snapshot::Snapshot,
    stages::Stages,
};

/// What changes share.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) folder: Folder,
    pub(crate) stages: Stages<Staged>,
    /// Held by the one commit, rotation or end of a compaction at work.
    pub(crate) one: tokio::sync::Mutex<()>,
    /// The newest state is on disk, and the keeper could not be told yet.
    unrecorded: AtomicBool,
}

impl Changes {
    /// Lets go of the folder. What is staged is removed.
    pub(crate) fn close(&self) {
        self.stages.clear();
        self.folder.close();
    }
}

impl Searcher {
    /// The sealed model, with which new vectors are encoded.
    pub(crate) fn model(
        &self,
        request: &v1::ModelRequest,
    ) -> Result<v1::ModelReply, SearcherError> {
        let epoch = self.newest()?;
        validate::changed_index(&request.index_id, epoch.id())?;
        let snapshot = epoch.snapshot();
        let model = snapshot.index().model_bytes().ok_or_else(|| {
            Failure::new(
                Reason::BadRequest,
                "this index was built without a model, so no vectors can be encoded for it; build it again",
            )
        })?;
        Ok(v1::ModelReply {
            model: model.to_vec().into(),
        })
    }

    /// Writes a segment beside the index.
    pub(crate) async fn stage(
        self: Arc<Self>,
        peer: [u8; 32],
        request: v1::StageRequest,
    ) -> Result<v1::StageReply, SearcherError> {
        let epoch = self.newest()?;
        let segment_id = validate::segment(&request, epoch.id(), &shape(&epoch))?;
        let bytes = request.codes.len()
            + request.records.len()
            + request.lists.len()
            + (request.ids.len() + request.tags.len()) * 8;
        // Originals are on disk only; the order of ids takes four bytes a vector.
        let memory = bytes - request.records.len() + request.ids.len() * 4;
        self.changes.folder.refuse_unless_writing()?;
        let open = epoch.snapshot().segments().len() + self.changes.stages.len();
        self.open_files.refuse_segment(open).inspect_err(|_| {
            // Where it is not under way, it begins now.
            self.compactor.look();
        })?;
        let room = self.changes.stages.room(memory, bytes, Instant::now())?;
        let writing = Arc::clone(&self);
        // The room goes along: the work goes on when the writer goes away, and
        // takes it until it is done.
        let (staged, room) = blocking(move || {
            // Files are written without the lock on the index: a commit goes on meanwhile.
            let stager = writing.changes.folder.look(|live| live.stager())?;
            let lists: Vec<u16> = validate::unpack_lists(&request.lists).collect();
            let segment = NewSegment {
                segment_id,
                ids: &request.ids,
                codes: &request.codes,
                tags: &request.tags,
                lists: &lists,
                records: &request.records,
            };
            Ok((stager.stage(&segment).map_err(refused)?, room))
        })
        .await?;
        let stage = self.workshop.randomness.bytes::<{ limits::STAGE_BYTES }>();
        self.changes
            .stages
            .keep(stage, peer, room, staged, Instant::now());
        Metrics::add(&self.metrics().staged_bytes, bytes);
        Ok(v1::StageReply {
            stage: stage.to_vec().into(),
        })
    }

    /// Makes staged segments visible and deletes ids. The stages are used up
    /// even where the change is refused.
    pub(crate) async fn commit(
        self: Arc<Self>,
        peer: [u8; 32],
        request: v1::CommitRequest,
    ) -> Result<v1::CommitReply, SearcherError> {
        let epoch = self.newest()?;
        let names = validate::change(&request, epoch.id())?;
        // Refused before any stage is used up.
        self.changes.folder.refuse_unless_writing()?;
        let _one = self.changes.one.lock().await;
        self.refuse_unless_followed()?;
        let stages = self.changes.stages.take(&names, &peer, Instant::now())?;
        let change = Change {
            stages,
            deletes: request.deletes,
            on_existing: if request.on_existing == i32::from(v1::OnExisting::Replace) {
                OnExisting::Replace
            } else {
                OnExisting::Refuse
            },
            strict: request.strict,
        };
        let changing = Arc::clone(&self);
        let outcome = blocking(move || {
            let mut rng = changing.workshop.randomness.generator();
            let outcome = changing
                .changes
                .folder
                .change(|live| live.commit(change, &mut rng))?;
            changing.show(&outcome.index)?;
            Ok(outcome)
        })
        .await?;
        let Outcome {
            inserted,
            replaced,
            refused,
            deleted,
            unknown,
            index,
        } = outcome;
        let metrics = self.metrics();
        Metrics::add(&metrics.commits, 1);
        Metrics::add(&metrics.inserted, (inserted + replaced) as usize);
        Metrics::add(&metrics.deleted, (deleted + replaced) as usize);
        let recorded = self.record().await;
        if let Err(error @ SearcherError::Stale(_)) = recorded {
            // The change is in a copy that does not count, and will never be
            // recorded.
            return Err(error);
        }
        self.compactor.look();
        Ok(v1::CommitReply {
            inserted,
            replaced,
            refused,
            deleted,
            unknown,
            vectors: index.vectors(),
            generation: index.generation(),
            unrecorded: recorded.is_err(),
        })
    }

    /// From now on searches are of `index`, in all epochs that are served.
    pub(crate) fn show(&self, index: &Index) -> Result<(), SearcherError> {
        let snapshot = Snapshot::new(index.clone())?;
        self.metrics()
            .segments
            .store(snapshot.segments().len() as u64, Relaxed);
        self.newest()?.engine.replace(Arc::new(snapshot));
        Ok(())
    }

    /// Refuses changes of a copy of the index that the keeper called old. They
    /// would be lost; worse, with enough of them the copy would pass for the
    /// newest state, since states go by their number.
    pub(crate) fn refuse_if_stale(&self) -> Result<(), SearcherError> {
        match &self.link {
            Some(link) => link.refuse_if_stale(),
            None => Ok(()),
        }
    }

    /// Refuses changes that the keeper has to be told of first: of a copy that it
    /// called old, and of one that is far ahead of what it knows.
    pub(crate) fn refuse_unless_followed(&self) -> Result<(), SearcherError> {
        self.refuse_if_stale()?;
        match &self.link {
            Some(link) => link.refuse_if_far_ahead(self.newest()?.snapshot().index()),
            None => Ok(()),
        }
    }

    /// Has the keeper, if there is one, record the newest state. Where it cannot
    /// be told now, [`record_later`](Self::record_later) tells it.
    pub(crate) async fn record(&self) -> Result<(), SearcherError> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        let snapshot = self.newest()?.snapshot();
        let result = link.record(snapshot.index()).await;
        self.changes.unrecorded.store(result.is_err(), Relaxed);
        if let Err(error) = &result {
            tracing::warn!(%error, "the keeper has not recorded the newest state yet");
        }
        result
    }

    /// Tells the keeper what it could not be told at the time.
    pub(crate) async fn record_later(&self) {
        if self.changes.unrecorded.load(Relaxed) {
            let _one = self.changes.one.lock().await;
            let _ = self.record().await;
        }
    }
}

/// What a new segment must look like.
fn shape(epoch: &Epoch) -> SegmentShape {
    let shape = epoch.shape();
    SegmentShape {
        subquantizers: shape.subquantizers(),
        centroids: shape.centroids(),
        record_bytes: shape.record_layout().stored_len(),
        tags: epoch.has_tags(),
        lists: epoch.lists(),
    }
}
