//! Changes of an index that exists: inserts from a source, batch by batch, and deletes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use chacha20::ChaCha20Rng;
use oboro_index::{Change, LiveIndex, NewSegment, OnExisting, Staged};
use rand_core::{CryptoRng, SeedableRng as _};

use crate::encoder::{EncodedSegment, Encodes, Skip};
use crate::refusals::Refusals;
use crate::{OwnerError, ProgressFn, Stage, VectorSource};

/// Most vectors of a segment, as a searcher takes them.
const MAX_BATCH: usize = 65_536;
/// Most bytes of a segment, with some room to what a searcher takes.
const MAX_BATCH_BYTES: usize = 48 << 20;
/// Most ids of one commit.
const MAX_DELETES: usize = 1_000_000;

/// What changes are made to: a folder that nobody serves ([`FolderTarget`]), or an
/// index's searcher.
pub trait Target {
    /// A segment that is on disk and not yet part of the index.
    type Stage;
    /// What can go wrong.
    type Error: From<OwnerError>;

    /// Brings a segment; nobody sees it yet.
    ///
    /// # Errors
    /// If it is refused or cannot be written.
    fn stage(&mut self, segment: &EncodedSegment) -> Result<Self::Stage, Self::Error>;

    /// Makes staged segments visible and deletes ids, in one step. With `strict`,
    /// nothing changes where a vector would be left out or an id is unknown.
    ///
    /// # Errors
    /// If it is refused or cannot be written; then nothing has changed.
    fn commit(
        &mut self,
        stages: Vec<Self::Stage>,
        deletes: Vec<u64>,
        on_existing: OnExisting,
        strict: bool,
    ) -> Result<Changed, Self::Error>;

    /// Whether a commit met that what was staged is there no more, as after a rotation of
    /// the index's key: nothing has changed then, and the same segments may be brought
    /// again.
    fn is_unstaged(&self, _error: &Self::Error) -> bool {
        false
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Vectors under new ids.
    pub inserted: u64,
    /// Vectors that took another one's place.
    pub replaced: u64,
    /// Vectors left out because their id was there already.
    pub refused: u64,
    /// Vectors deleted.
    pub deleted: u64,
    /// Ids to delete that were not there.
    pub unknown: u64,
    /// Vectors that can be found now.
    pub vectors: u64,
    /// The index's generation now.
    pub generation: u64,
}

impl Changed {
    fn add(&mut self, other: &Self) {
        self.inserted += other.inserted;
        self.replaced += other.replaced;
        self.refused += other.refused;
        self.deleted += other.deleted;
        self.unknown += other.unknown;
        self.vectors = other.vectors;
        self.generation = other.generation;
    }
}

/// How to insert.
#[derive(Clone)]
pub struct InsertOptions<'a> {
    /// Rows of a commit.
    pub batch: usize,
    /// What becomes of ids that are there already.
    pub on_existing: OnExisting,
    /// All rows in one commit, or none.
    pub strict: bool,
    /// Rows before this one, counted from 0, are passed over.
    pub from_row: u64,
    /// Says of an id whether it is there already and its row can be passed over.
    pub present: Option<&'a (dyn Fn(u64) -> bool + Sync)>,
    /// Threads for encoding and sealing; all cores where `None`.
    pub threads: Option<usize>,
    /// Set it from another thread to stop after the commit under way.
    pub cancel: Arc<AtomicBool>,
    /// Told of rows that are committed.
    pub progress: Option<ProgressFn>,
}

impl Default for InsertOptions<'_> {
    fn default() -> Self {
        Self {
            batch: 8_192,
            on_existing: OnExisting::Refuse,
            strict: false,
            from_row: 0,
            present: None,
            threads: None,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

/// What an insert did.
#[derive(Clone, Debug, Default)]
pub struct InsertReport {
    /// Rows of the source that are settled: committed, refused or passed over.
    pub rows: u64,
    /// What all commits did together.
    pub changed: Changed,
    /// Rows that were passed over because their id was there.
    pub present: u64,
    /// Rows that the index cannot take.
    pub refused: Refusals,
    /// Commits.
    pub commits: u64,
    /// Whether it was stopped before the source's end.
    pub stopped: bool,
    /// Seconds it took.
    pub seconds: f64,
}

/// One batch on its way from encoding to the commit.
struct Batch {
    segment: EncodedSegment,
    /// The row after its last.
    end: u64,
    present: u64,
}

/// Inserts the records of `source`, batch by batch: while one is committed, the next is
/// read, encoded and sealed. Each commit is whole, so that an insert that is stopped or
/// fails has done what it has committed, and goes on with
/// [`from_row`](InsertOptions::from_row).
///
/// # Errors
/// If the source cannot be followed, or staging or a commit fails. With
/// [`strict`](InsertOptions::strict) also for the first row that the index cannot take;
/// then nothing has changed.
pub fn insert<T: Target>(
    encoder: &dyn Encodes,
    source: &mut dyn VectorSource,
    target: &mut T,
    options: &InsertOptions<'_>,
    rng: &mut (impl CryptoRng + Send),
) -> Result<InsertReport, T::Error> {
    let threads = options.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|_| OwnerError::Threads { threads })?;
    let total = source.rows() as u64;
    // One batch waits while one is committed and one is made.
    let (send, receive) = sync_channel(1);
    std::thread::scope(|scope| {
        let making =
            scope.spawn(move || pool.install(|| make(encoder, source, options, rng, &send)));
        let done = take(target, options, total, &receive);
        // Whoever waits to hand over a batch that nobody wants any more goes on and ends.
        drop(receive);
        let made = making.join();
        match (done, made) {
            // What stopped the commits is the reason, whatever the other side saw.
            (Err(error), _) => Err(error),
            (Ok(_), Ok(Err(error))) => Err(error.into()),
            (Ok(report), Ok(Ok(()))) => Ok(report),
            (Ok(_), Err(panic)) => std::panic::resume_unwind(panic),
        }
    })
}

/// Rows of a batch that a searcher takes.
fn batch_rows(encoder: &dyn Encodes, options: &InsertOptions<'_>) -> usize {
    let descriptor = encoder.descriptor();
    // Id and tags are eight bytes each.
    let each = descriptor.record_layout().stored_len() + descriptor.subquantizers() + 16;
    let most = (MAX_BATCH_BYTES / each).clamp(1, MAX_BATCH);
    if options.strict {
        most
    } else {
        options.batch.clamp(1, most)
    }
}

/// Reads, encodes and seals until the end, or until nobody takes batches.
fn make(
    encoder: &dyn Encodes,
    source: &mut dyn VectorSource,
    options: &InsertOptions<'_>,
    rng: &mut impl CryptoRng,
    send: &SyncSender<Batch>,
) -> Result<(), OwnerError> {
    let rows = batch_rows(encoder, options);
    let mut seen = HashSet::new();
    let mut end = 0;
    while !options.cancel.load(Ordering::Relaxed) {
        // The source says how many rows it gave only by those that came and those refused.
        let Some(mut records) = source.read(rows)? else {
            break;
        };
        end += (records.len() + records.refused.len()) as u64;
        if end <= options.from_row {
            continue;
        }
        records
            .refused
            .retain(|refused| refused.row >= options.from_row);
        let skip = Skip {
            from_row: options.from_row,
            present: options.present,
        };
        let rng = &mut ChaCha20Rng::from_rng(rng);
        let (segment, present) =
            encoder.encode(records, source.tag_names(), &skip, &mut seen, rng)?;
        let batch = Batch {
            segment,
            end,
            present,
        };
        if send.send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

/// Stages and commits what comes.
fn take<T: Target>(
    target: &mut T,
    options: &InsertOptions<'_>,
    total: u64,
    receive: &Receiver<Batch>,
) -> Result<InsertReport, T::Error> {
    let begin = Instant::now();
    let mut report = InsertReport::default();
    let mut stages = Vec::new();
    // Those before it are passed over: a stop before the first commit goes on there.
    let mut rows = options.from_row.min(total);
    report.rows = rows;
    for batch in receive {
        if let (true, Some((row, reason))) = (options.strict, batch.segment.refused.first().first())
        {
            return Err(OwnerError::Strict {
                row: *row,
                reason: reason.clone(),
            }
            .into());
        }
        if options.cancel.load(Ordering::Relaxed) {
            break;
        }
        if !batch.segment.is_empty() {
            if options.strict {
                stages.push(target.stage(&batch.segment)?);
            } else {
                let changed = bring(target, &batch.segment, options.on_existing)?;
                report.changed.add(&changed);
                // Where all ids were there, nothing was written.
                report.commits += u64::from(changed.inserted + changed.replaced > 0);
            }
        }
        report.refused.merge(batch.segment.refused);
        report.present += batch.present;
        rows = batch.end;
        if !options.strict {
            report.rows = rows;
        }
        if let Some(progress) = &options.progress {
            progress(Stage::Insert, rows.min(total), total);
        }
    }
    report.stopped = options.cancel.load(Ordering::Relaxed) && rows < total;
    if options.strict {
        if report.stopped {
            return Err(OwnerError::Cancelled.into());
        }
        if !stages.is_empty() {
            let changed = target.commit(stages, Vec::new(), options.on_existing, true)?;
            report.changed.add(&changed);
            report.commits += 1;
        }
        report.rows = rows;
    }
    report.seconds = begin.elapsed().as_secs_f64();
    Ok(report)
}

/// Stages and commits one segment; once more, where it was lost in between.
fn bring<T: Target>(
    target: &mut T,
    segment: &EncodedSegment,
    on_existing: OnExisting,
) -> Result<Changed, T::Error> {
    let stage = target.stage(segment)?;
    match target.commit(vec![stage], Vec::new(), on_existing, false) {
        Err(error) if target.is_unstaged(&error) => {
            let stage = target.stage(segment)?;
            target.commit(vec![stage], Vec::new(), on_existing, false)
        }
        result => result,
    }
}

/// Deletes ids, as many in a commit as a searcher takes; with `strict` all or none.
///
/// # Errors
/// If a commit fails, or `strict` is asked for more ids than one commit takes.
pub fn delete<T: Target>(target: &mut T, ids: &[u64], strict: bool) -> Result<Changed, T::Error> {
    if strict && ids.len() > MAX_DELETES {
        return Err(OwnerError::TooManyDeletes {
            ids: ids.len(),
            maximum: MAX_DELETES,
        }
        .into());
    }
    let mut all = Changed::default();
    for ids in ids.chunks(MAX_DELETES) {
        let changed = target.commit(Vec::new(), ids.to_vec(), OnExisting::Refuse, strict)?;
        all.add(&changed);
    }
    Ok(all)
}

/// A folder of an index that nobody serves.
pub struct FolderTarget<'a, R> {
    live: &'a mut LiveIndex,
    rng: R,
}

impl<'a, R: CryptoRng> FolderTarget<'a, R> {
    /// Changes go to `live`; `rng` names the files that commits write.
    pub const fn new(live: &'a mut LiveIndex, rng: R) -> Self {
        Self { live, rng }
    }
}

impl<R: CryptoRng> Target for FolderTarget<'_, R> {
    type Stage = Staged;
    type Error = OwnerError;

    fn stage(&mut self, segment: &EncodedSegment) -> Result<Staged, OwnerError> {
        Ok(self.live.stage(&NewSegment {
            segment_id: segment.segment_id,
            ids: &segment.ids,
            codes: &segment.codes,
            tags: &segment.tags,
            lists: &segment.lists,
            records: &segment.records,
        })?)
    }

    fn commit(
        &mut self,
        stages: Vec<Staged>,
        deletes: Vec<u64>,
        on_existing: OnExisting,
        strict: bool,
    ) -> Result<Changed, OwnerError> {
        let change = Change {
            stages,
            deletes,
            on_existing,
            strict,
        };
        let outcome = self.live.commit(change, &mut self.rng)?;
        Ok(Changed {
            inserted: outcome.inserted,
            replaced: outcome.replaced,
            refused: outcome.refused,
            deleted: outcome.deleted,
            unknown: outcome.unknown,
            vectors: outcome.index.vectors(),
            generation: outcome.index.head().generation,
        })
    }
}
