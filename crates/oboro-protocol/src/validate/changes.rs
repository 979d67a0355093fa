//! Checks of what changes an index: segments, commits.

use super::{exact, index_id, stage};
use crate::limits::{
    INDEX_ID_BYTES, MAX_COMMIT_DELETES, MAX_COMMIT_STAGES, MAX_STAGE_MESSAGE_BYTES,
    MAX_STAGE_VECTORS, STAGE_BYTES,
};
use crate::v1;
use crate::{Failure, Reason};

/// What the vectors of a segment must look like in one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentShape {
    /// Bytes of one vector's codes, M.
    pub subquantizers: usize,
    /// Codes are below this number, K.
    pub centroids: usize,
    /// Bytes of one sealed record at rest.
    pub record_bytes: usize,
    /// Every vector has a set of tags.
    pub tags: bool,
    /// Lists of which every vector is in one; 0 for none.
    pub lists: usize,
}

/// Checks a segment that is to be staged; returns its id.
///
/// # Errors
/// `BAD_REQUEST` for another index, an empty segment, parts that do not belong together or
/// codes that name no centroid, `LIMIT` above [`MAX_STAGE_VECTORS`] or
/// [`MAX_STAGE_MESSAGE_BYTES`].
pub fn segment(
    request: &v1::StageRequest,
    served_id: &[u8; INDEX_ID_BYTES],
    shape: &SegmentShape,
) -> Result<[u8; 16], Failure> {
    let bad = |sentence: String| Err(Failure::new(Reason::BadRequest, sentence));
    changed_index(&request.index_id, served_id)?;
    let id = exact(&request.segment_id, "segment id")?;
    let vectors = request.ids.len();
    if vectors == 0 {
        return bad("the segment has no vectors; stage at least 1".to_owned());
    }
    let bytes = request.codes.len()
        + request.records.len()
        + request.lists.len()
        + 8 * request.tags.len()
        + 8 * vectors;
    if vectors > MAX_STAGE_VECTORS || bytes > MAX_STAGE_MESSAGE_BYTES {
        return Err(Failure::new(
            Reason::Limit,
            format!(
                "the segment has {vectors} vectors in {bytes} bytes; stage at most {MAX_STAGE_VECTORS} in {MAX_STAGE_MESSAGE_BYTES} at a time"
            ),
        ));
    }
    let lengths = [
        ("codes", request.codes.len(), shape.subquantizers, "bytes"),
        (
            "records",
            request.records.len(),
            shape.record_bytes,
            "bytes",
        ),
        ("tags", request.tags.len(), usize::from(shape.tags), "sets"),
        (
            "lists",
            request.lists.len(),
            2 * usize::from(shape.lists > 0),
            "bytes",
        ),
    ];
    for (what, found, each, unit) in lengths {
        if vectors.checked_mul(each) != Some(found) {
            return bad(format!(
                "the {what} of {vectors} vectors are {found} {unit}; this index has {each} a vector"
            ));
        }
    }
    let named = unpack_lists(&request.lists);
    if named.clone().any(|list| usize::from(list) >= shape.lists) {
        return bad(format!(
            "a vector of the segment is in a list that is not there; this index has {}",
            shape.lists
        ));
    }
    let largest = request
        .codes
        .iter()
        .fold(0, |largest, &code| code.max(largest));
    if usize::from(largest) >= shape.centroids {
        return bad(format!(
            "a code of the segment names centroid {largest}; this index has {}",
            shape.centroids
        ));
    }
    Ok(id)
}

/// The list of each vector of a segment.
pub fn unpack_lists(bytes: &[u8]) -> impl Iterator<Item = u16> + Clone + '_ {
    let (words, _) = bytes.as_chunks::<2>();
    words.iter().map(|&word| u16::from_le_bytes(word))
}

/// Checks a change; returns the names of its stages.
///
/// # Errors
/// `BAD_REQUEST` for another index, a malformed name, a stage named twice, a change of
/// nothing, or an unknown way to treat ids that are there, `LIMIT` above
/// [`MAX_COMMIT_STAGES`] or [`MAX_COMMIT_DELETES`].
pub fn change(
    request: &v1::CommitRequest,
    served_id: &[u8; INDEX_ID_BYTES],
) -> Result<Vec<[u8; STAGE_BYTES]>, Failure> {
    let bad = |sentence: &str| Err(Failure::new(Reason::BadRequest, sentence));
    changed_index(&request.index_id, served_id)?;
    let (stages, deletes) = (request.stages.len(), request.deletes.len());
    if stages > MAX_COMMIT_STAGES || deletes > MAX_COMMIT_DELETES {
        return Err(Failure::new(
            Reason::Limit,
            format!(
                "the change has {stages} segments and {deletes} deletes; at most {MAX_COMMIT_STAGES} and {MAX_COMMIT_DELETES} are allowed, so make several"
            ),
        ));
    }
    if stages == 0 && deletes == 0 {
        return bad("the change has neither segments nor deletes; name some");
    }
    if v1::OnExisting::try_from(request.on_existing).is_err() {
        return bad(
            "the change treats ids that are there already in a way that this version does not know",
        );
    }
    let mut names = request
        .stages
        .iter()
        .map(|name| stage(name))
        .collect::<Result<Vec<_>, _>>()?;
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return bad("the change names a staged segment twice; name each once");
    }
    // The order of the caller's own is the order in which they count.
    request.stages.iter().map(|name| stage(name)).collect()
}

/// Checks that a change is for the index served. Epochs do not matter to it.
///
/// # Errors
/// `BAD_REQUEST` for a malformed id, `WRONG_EPOCH` for another index.
pub fn changed_index(asked_id: &[u8], served_id: &[u8; INDEX_ID_BYTES]) -> Result<(), Failure> {
    if &index_id(asked_id)? == served_id {
        return Ok(());
    }
    Err(Failure::new(
        Reason::WrongEpoch,
        "the request is for another index than the one served here; connect again",
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: SegmentShape = SegmentShape {
        subquantizers: 4,
        centroids: 16,
        record_bytes: 10,
        tags: true,
        lists: 5,
    };

    fn staged(vectors: usize) -> v1::StageRequest {
        v1::StageRequest {
            index_id: vec![3; 16].into(),
            segment_id: vec![4; 16].into(),
            ids: (0..vectors as u64).collect(),
            codes: vec![15; vectors * 4].into(),
            tags: vec![1; vectors],
            records: vec![9; vectors * 10].into(),
            lists: [4, 0].repeat(vectors).into(),
        }
    }

    #[test]
    fn fail_segments_that_do_not_fit() {
        let id = [3; 16];
        assert_eq!(segment(&staged(3), &id, &SHAPE).unwrap(), [4; 16]);
        let failure = segment(&staged(3), &[5; 16], &SHAPE).unwrap_err();
        assert_eq!(failure.reason, Reason::WrongEpoch);
        for change in [
            |r: &mut v1::StageRequest| *r = staged(0),
            |r: &mut v1::StageRequest| r.segment_id = vec![4; 15].into(),
            |r: &mut v1::StageRequest| r.codes = vec![15; 11].into(),
            |r: &mut v1::StageRequest| r.codes = vec![16; 12].into(),
            |r: &mut v1::StageRequest| r.records = vec![9; 31].into(),
            |r: &mut v1::StageRequest| r.records = Default::default(),
            |r: &mut v1::StageRequest| r.tags.clear(),
            |r: &mut v1::StageRequest| r.tags.push(0),
            |r: &mut v1::StageRequest| r.ids.push(3),
            |r: &mut v1::StageRequest| r.lists = Default::default(),
            |r: &mut v1::StageRequest| r.lists = vec![4, 0, 4, 0, 4].into(),
            |r: &mut v1::StageRequest| r.lists = [5, 0].repeat(3).into(),
        ] {
            let mut bad = staged(3);
            change(&mut bad);
            let failure = segment(&bad, &id, &SHAPE).unwrap_err();
            assert_eq!(failure.reason, Reason::BadRequest, "{failure}");
        }
        let without = SegmentShape {
            tags: false,
            ..SHAPE
        };
        assert!(segment(&staged(3), &id, &without).is_err());
        let large = segment(&staged(MAX_STAGE_VECTORS + 1), &id, &SHAPE).unwrap_err();
        assert_eq!(large.reason, Reason::Limit);
    }

    #[test]
    fn fail_changes_that_do_not_fit() {
        let id = [3; 16];
        let good = v1::CommitRequest {
            index_id: vec![3; 16].into(),
            stages: vec![vec![2; 16].into(), vec![1; 16].into()],
            deletes: vec![7],
            on_existing: v1::OnExisting::Replace.into(),
            strict: false,
        };
        assert_eq!(change(&good, &id).unwrap(), [[2; 16], [1; 16]]);
        assert!(change(&good, &[4; 16]).is_err());
        for (edit, reason) in [
            (
                (|r| r.stages.push(vec![2; 16].into())) as fn(&mut v1::CommitRequest),
                Reason::BadRequest,
            ),
            (|r| r.stages[0] = vec![2; 17].into(), Reason::BadRequest),
            (|r| r.on_existing = 2, Reason::BadRequest),
            (
                |r| {
                    r.stages.clear();
                    r.deletes.clear();
                },
                Reason::BadRequest,
            ),
            (
                |r| r.deletes = vec![0; MAX_COMMIT_DELETES + 1],
                Reason::Limit,
            ),
            (
                |r| r.stages = vec![vec![0; 16].into(); MAX_COMMIT_STAGES + 1],
                Reason::Limit,
            ),
        ] {
            let mut bad = good.clone();
            edit(&mut bad);
            assert_eq!(change(&bad, &id).unwrap_err().reason, reason);
        }
    }

    #[test]
    fn the_largest_messages_pass_their_limits() {
        use prost::Message;
        let commit = v1::CommitRequest {
            index_id: vec![3; 16].into(),
            stages: (0..MAX_COMMIT_STAGES)
                .map(|name| vec![name as u8; 16].into())
                .collect(),
            deletes: vec![u64::MAX; MAX_COMMIT_DELETES],
            on_existing: 1,
            strict: true,
        };
        assert!(commit.encoded_len() <= crate::limits::MAX_COMMIT_MESSAGE_BYTES);
    }

    proptest! {
        #[test]
        fn checks_of_any_bytes_never_panic(bytes: Vec<u8>) {
            use prost::Message;
            if let Ok(request) = v1::StageRequest::decode(bytes.as_slice()) {
                let _ = segment(&request, &[3; 16], &SHAPE);
            }
            if let Ok(request) = v1::CommitRequest::decode(bytes.as_slice()) {
                let _ = change(&request, &[3; 16]);
            }
        }
    }
}
