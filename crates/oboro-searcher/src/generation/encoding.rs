//! Codes of segments, batch by batch.

use std::{collections::BTreeMap, sync::Arc};

use oboro_index::NewSegment;
use oboro_protocol::{
    Reason,
    generation::{MAX_SEGMENT_VECTORS, v1},
    validate,
};
use tokio::task::JoinSet;

use super::{blocking, open::Generation, refused};
use crate::SearcherError;

/// Segments whose codes are in memory at the same time.
const MAX_OPEN: usize = 4;

/// The codes of one segment.
pub(super) enum SegmentCodes {
    /// By batch, as far as they are.
    Open(BTreeMap<u32, Vec<u8>>),
    /// On disk.
    Staged { segment_id: [u8; 16], vectors: u64 },
}

/// Encodes batches of a segment. Those that are encoded already are passed over.
pub(super) async fn encode(
    generation: &Arc<Generation>,
    request: v1::EncodeRequest,
) -> Result<(), SearcherError> {
    let trained = generation.trained()?;
    generation.draft()?;
    let shape = &generation.shape;
    let most = shape.batches.batches(MAX_SEGMENT_VECTORS);
    let end = request.first as usize + request.batches.len();
    if request.segment >= shape.segments || end > most || request.batches.is_empty() {
        return Err(refused(
            Reason::BadRequest,
            format!(
                "batch {end} of segment {} lies beyond the {most} batches of {} segments",
                request.segment, shape.segments
            ),
        ));
    }
    let wanted: Vec<u32> = (request.first..)
        .take(request.batches.len())
        .filter(|&batch| needs(generation, request.segment, batch))
        .collect();
    let first = request.first;
    let mut tasks = JoinSet::new();
    for group in wanted.chunks(generation.bench.group()) {
        let bytes: Vec<_> = group
            .iter()
            .map(|&batch| request.batches[(batch - first) as usize].clone())
            .collect();
        let (generation, trained) = (Arc::clone(generation), Arc::clone(&trained));
        let group = group.to_vec();
        tasks.spawn(async move {
            let codes = trained.codebook.encode(&generation.bench, bytes).await?;
            Ok::<_, SearcherError>(group.into_iter().zip(codes).collect::<Vec<_>>())
        });
    }
    while let Some(done) = tasks.join_next().await {
        let done = done.map_err(|_| SearcherError::Stopping)??;
        keep(generation, request.segment, done)?;
    }
    Ok(())
}

/// Whether the codes of a batch are still to be made.
fn needs(generation: &Generation, segment: u32, batch: u32) -> bool {
    match generation.segments().get(&segment) {
        None => true,
        Some(SegmentCodes::Open(codes)) => !codes.contains_key(&batch),
        Some(SegmentCodes::Staged { .. }) => false,
    }
}

fn keep(
    generation: &Generation,
    segment: u32,
    done: Vec<(u32, Vec<u8>)>,
) -> Result<(), SearcherError> {
    let mut segments = generation.segments();
    let open = segments
        .values()
        .filter(|segment| matches!(segment, SegmentCodes::Open(_)))
        .count();
    if open >= MAX_OPEN && !segments.contains_key(&segment) {
        return Err(refused(
            Reason::Busy,
            format!("{MAX_OPEN} segments are incomplete; complete one before the next begins"),
        ));
    }
    let entry = segments
        .entry(segment)
        .or_insert_with(|| SegmentCodes::Open(BTreeMap::new()));
    if let SegmentCodes::Open(codes) = entry {
        codes.extend(done);
    }
    Ok(())
}

/// Writes a segment whose codes are complete.
pub(super) async fn complete(
    generation: &Arc<Generation>,
    request: v1::SegmentRequest,
) -> Result<(), SearcherError> {
    let segment_id: [u8; 16] = validate::index_id(&request.segment_id)?;
    let draft = generation.draft()?;
    let vectors = request.ids.len();
    let packing = generation.shape.batches;
    let codes = {
        let segments = generation.segments();
        match segments.get(&request.segment) {
            Some(SegmentCodes::Staged {
                segment_id: staged, ..
            }) if *staged == segment_id => return Ok(()),
            Some(SegmentCodes::Open(codes)) => {
                let due = packing.batches(vectors);
                if codes.len() != due || codes.keys().copied().ne(0..due as u32) {
                    return Err(refused(
                        Reason::BadRequest,
                        format!(
                            "{} batches of segment {} are encoded, and {vectors} vectors take {due}",
                            codes.len(),
                            request.segment
                        ),
                    ));
                }
                let mut all: Vec<u8> = codes.values().flatten().copied().collect();
                all.truncate(vectors * packing.subquantizers());
                all
            }
            _ => {
                return Err(refused(
                    Reason::BadRequest,
                    format!("no batch of segment {} is encoded", request.segment),
                ));
            }
        }
    };
    let number = request.segment;
    // In their order, so that the index is the same however often it was interrupted.
    if number != generation.staged() {
        return Err(refused(
            Reason::BadRequest,
            format!(
                "segment {} is the next to be completed, and {number} was; bring them in order",
                generation.staged()
            ),
        ));
    }
    let (bench, id) = (Arc::clone(&generation.bench), segment_id);
    let staged = blocking(move || {
        draft.add(
            &mut bench.randomness.names(&id),
            &NewSegment {
                segment_id,
                ids: &request.ids,
                codes: &codes,
                tags: &request.tags,
                lists: &[],
                records: &request.records,
            },
        )
    });
    staged.await?;
    let vectors = vectors as u64;
    generation.segments().insert(
        number,
        SegmentCodes::Staged {
            segment_id,
            vectors,
        },
    );
    Ok(())
}

/// All segments are on disk, with all vectors that were announced.
pub(super) fn check_whole(generation: &Generation) -> Result<(), SearcherError> {
    let segments = generation.segments();
    let staged = |segment: &SegmentCodes| match segment {
        SegmentCodes::Staged { vectors, .. } => Some(*vectors),
        SegmentCodes::Open(_) => None,
    };
    let counts: Vec<u64> = segments.values().filter_map(staged).collect();
    let (found, due) = (counts.iter().sum::<u64>(), generation.shape.vectors);
    if counts.len() == generation.shape.segments as usize && found == due {
        return Ok(());
    }
    Err(refused(
        Reason::BadRequest,
        format!(
            "{} segments of {} with {found} vectors of {due} are on disk; bring the others first",
            counts.len(),
            generation.shape.segments
        ),
    ))
}
