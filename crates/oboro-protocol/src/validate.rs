//! The checks a receiver makes before it touches a message's contents.

pub mod build;
mod changes;

use crate::limits::{
    DIGEST_BYTES, FILTER_BYTES, HANDLE_BYTES, INDEX_ID_BYTES, MAX_ANCESTORS, MAX_CANDIDATES,
    MAX_DIMENSION, SESSION_BYTES, STAGE_BYTES,
};
use crate::v1;
use crate::{Failure, Reason};

pub use changes::{SegmentShape, change, changed_index, segment, unpack_lists};

fn exact<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N], Failure> {
    bytes.try_into().map_err(|_| {
        Failure::new(
            Reason::BadRequest,
            format!("the {what} has {} bytes; it must have {N}", bytes.len()),
        )
    })
}

/// The index id in `bytes`.
///
/// # Errors
/// `BAD_REQUEST` for another length than 16.
pub fn index_id(bytes: &[u8]) -> Result<[u8; INDEX_ID_BYTES], Failure> {
    exact(bytes, "index id")
}

/// The fingerprint, digest or share in `bytes`, called `what` in the error.
///
/// # Errors
/// `BAD_REQUEST` for another length than 32.
pub fn digest(bytes: &[u8], what: &str) -> Result<[u8; DIGEST_BYTES], Failure> {
    exact(bytes, what)
}

/// The digests of manifests in `bytes`, one after the other.
///
/// # Errors
/// `BAD_REQUEST` for another length than some times 32, `LIMIT` for more than
/// [`MAX_ANCESTORS`].
pub fn ancestors(bytes: &[u8]) -> Result<Vec<[u8; DIGEST_BYTES]>, Failure> {
    let (digests, rest) = bytes.as_chunks::<DIGEST_BYTES>();
    if !rest.is_empty() {
        return Err(Failure::new(
            Reason::BadRequest,
            format!(
                "the states before it have {} bytes; each must have {DIGEST_BYTES}",
                bytes.len()
            ),
        ));
    }
    if digests.len() > MAX_ANCESTORS {
        return Err(Failure::new(
            Reason::Limit,
            format!(
                "{} states before it were named; at most {MAX_ANCESTORS} may be",
                digests.len()
            ),
        ));
    }
    Ok(digests.to_vec())
}

/// The handle of a prepared codebook in `bytes`.
///
/// # Errors
/// `BAD_REQUEST` for another length than 32.
pub fn handle(bytes: &[u8]) -> Result<[u8; HANDLE_BYTES], Failure> {
    exact(bytes, "codebook handle")
}

/// The session in `bytes`.
///
/// # Errors
/// `BAD_REQUEST` for another length than 16.
pub fn session(bytes: &[u8]) -> Result<[u8; SESSION_BYTES], Failure> {
    exact(bytes, "session")
}

/// The name of a staged segment in `bytes`.
///
/// # Errors
/// `BAD_REQUEST` for another length than 16.
pub fn stage(bytes: &[u8]) -> Result<[u8; STAGE_BYTES], Failure> {
    exact(bytes, "name of the staged segment")
}

/// The sets of tags of which a candidate has any, all and none.
///
/// # Errors
/// `BAD_REQUEST` for another length than 24.
pub fn filter(bytes: &[u8]) -> Result<[u64; 3], Failure> {
    let bytes: [u8; FILTER_BYTES] = exact(bytes, "filter")?;
    let (sets, _) = bytes.as_chunks::<8>();
    Ok(std::array::from_fn(|set| u64::from_le_bytes(sets[set])))
}

/// The lists that a search looks at, ascending. The index has `lists`, and allows
/// `probes_max` for a search; where it has none, none may be named.
///
/// # Errors
/// `BAD_REQUEST` for half a number, none or too many, one that is not there or does not
/// come in its order.
pub fn lists(bytes: &[u8], lists: usize, probes_max: u32) -> Result<Vec<u32>, Failure> {
    let bad = |sentence: String| Err(Failure::new(Reason::BadRequest, sentence));
    let (words, rest) = bytes.as_chunks::<2>();
    let least = usize::from(lists > 0);
    if !rest.is_empty() || !(least..=probes_max as usize).contains(&words.len()) {
        return bad(format!(
            "the query names lists in {} bytes; this index wants {least} to {probes_max} of two bytes",
            bytes.len()
        ));
    }
    let named: Vec<u32> = words
        .iter()
        .map(|&word| u16::from_le_bytes(word).into())
        .collect();
    if !named.is_sorted_by(|a, b| a < b) {
        return bad("the query's lists are not in ascending order, each once".to_owned());
    }
    if named.last().is_some_and(|&list| list as usize >= lists) {
        return bad(format!(
            "the query names a list that is not there; this index has {lists}"
        ));
    }
    Ok(named)
}

/// Packs the lists that a search looks at, as [`lists`] reads them.
#[must_use]
pub fn pack_lists(lists: impl IntoIterator<Item = u16>) -> Vec<u8> {
    lists.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// Packs a filter as [`filter()`] reads it.
#[must_use]
pub fn pack_filter(sets: [u64; 3]) -> [u8; FILTER_BYTES] {
    let mut bytes = [0; FILTER_BYTES];
    for (set, bytes) in sets.iter().zip(bytes.as_chunks_mut::<8>().0) {
        *bytes = set.to_le_bytes();
    }
    bytes
}

/// The number of candidates asked for.
///
/// # Errors
/// `BAD_REQUEST` for zero, `LIMIT` above [`MAX_CANDIDATES`] or the index's own limit,
/// `available`. How many vectors there are plays no part: it changes with every commit.
pub fn candidates(asked: u32, available: u64) -> Result<u32, Failure> {
    if asked == 0 {
        return Err(Failure::new(
            Reason::BadRequest,
            "the query asks for 0 candidates; ask for at least 1",
        ));
    }
    let most = u64::from(MAX_CANDIDATES).min(available);
    if u64::from(asked) > most {
        return Err(Failure::new(
            Reason::Limit,
            format!("the query asks for {asked} candidates; this index gives at most {most}"),
        ));
    }
    Ok(asked)
}

/// Checks that a request names the index and epoch served.
///
/// # Errors
/// `BAD_REQUEST` for a malformed id, `WRONG_EPOCH` for another index or epoch.
pub fn served_index(
    asked_id: &[u8],
    asked_epoch: u64,
    served_id: &[u8; INDEX_ID_BYTES],
    served_epoch: u64,
) -> Result<(), Failure> {
    let asked_id = index_id(asked_id)?;
    if &asked_id != served_id {
        return Err(Failure::new(
            Reason::WrongEpoch,
            "the query is for another index than the one served here; connect again",
        ));
    }
    if asked_epoch != served_epoch {
        return Err(Failure::new(
            Reason::WrongEpoch,
            format!(
                "the query is for epoch {asked_epoch} of the index; epoch {served_epoch} is served, connect again"
            ),
        ));
    }
    Ok(())
}

/// Checks the bounds of a packing's numbers, before anything is built from them.
///
/// # Errors
/// `BAD_REQUEST` where it is missing or a number is zero or absurdly large, `LIMIT` above
/// [`MAX_DIMENSION`].
pub fn packing(packing: Option<&v1::PackingParameters>) -> Result<&v1::PackingParameters, Failure> {
    let Some(packing) = packing else {
        return Err(Failure::new(
            Reason::BadRequest,
            "the request names no packing",
        ));
    };
    let numbers = [
        packing.subquantizers,
        packing.width,
        packing.centroids,
        packing.split,
    ];
    if packing.parameter_set.len() > 32
        || numbers.contains(&0)
        || packing.centroids > 256
        || packing.split > packing.width
    {
        return Err(Failure::new(
            Reason::BadRequest,
            "the packing's numbers are outside what this version knows",
        ));
    }
    let dimension = u64::from(packing.subquantizers) * u64::from(packing.width);
    if dimension > u64::from(MAX_DIMENSION) {
        return Err(Failure::new(
            Reason::Limit,
            format!("the packing has {dimension} dimensions; at most {MAX_DIMENSION} are served"),
        ));
    }
    Ok(packing)
}

/// Packs quantized scores, two little-endian bytes each.
#[must_use]
pub fn pack_scores(scores: impl IntoIterator<Item = u16>) -> Vec<u8> {
    scores.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// Unpacks quantized scores.
///
/// # Errors
/// `BAD_REQUEST` for an odd number of bytes.
pub fn unpack_scores(bytes: &[u8]) -> Result<Vec<u16>, Failure> {
    let (pairs, []) = bytes.as_chunks::<2>() else {
        return Err(Failure::new(
            Reason::BadRequest,
            format!(
                "the scores have {} bytes; an even number is due",
                bytes.len()
            ),
        ));
    };
    Ok(pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
}

/// Checks a search reply's shape against what was asked; returns how many candidates it
/// holds. They may be fewer than asked for: the index may not have more that pass the
/// filter.
///
/// # Errors
/// `BAD_REQUEST` where counts or sizes do not agree with the request or each other.
pub fn reply(request: &v1::SearchRequest, reply: &v1::SearchReply) -> Result<usize, Failure> {
    let record_bytes = reply.record_bytes as usize;
    // What was not asked for must not be there; all else must agree on one number.
    let parts = [
        (
            request.with_records,
            reply.records.len(),
            Some(record_bytes).filter(|&bytes| bytes > 0),
        ),
        (request.with_ids, reply.ids.len(), Some(1)),
        (request.with_scores, reply.scores.len(), Some(2)),
    ];
    let mut count = None;
    for (asked, length, each) in parts {
        let held = match each {
            Some(each) if length.is_multiple_of(each) => Some(length / each),
            None if length == 0 => Some(0),
            _ => None,
        };
        let fits = match (asked, held, count) {
            (false, held, _) => held == Some(0),
            (true, None, _) => false,
            (true, Some(held), None) => {
                count = Some(held);
                held <= request.candidates as usize
            }
            (true, Some(held), Some(others)) => held == others,
        };
        if !fits {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "the searcher's reply does not hold at most {} candidates in the form that was asked for",
                    request.candidates
                ),
            ));
        }
    }
    Ok(count.unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fail_lengths() {
        for length in [0, 15, 17, 31, 33, 1 << 20] {
            let bytes = vec![0; length];
            assert_eq!(index_id(&bytes).unwrap_err().reason, Reason::BadRequest);
            assert_eq!(
                digest(&bytes, "digest").unwrap_err().reason,
                Reason::BadRequest
            );
            assert_eq!(handle(&bytes).unwrap_err().reason, Reason::BadRequest);
            assert_eq!(session(&bytes).unwrap_err().reason, Reason::BadRequest);
        }
        assert_eq!(index_id(&[7; 16]).unwrap(), [7; 16]);
        assert_eq!(digest(&[7; 32], "digest").unwrap(), [7; 32]);
    }

    #[test]
    fn fail_ancestors() {
        for length in [1, 31, 33, 32 * MAX_ANCESTORS - 1] {
            let failure = ancestors(&vec![0; length]).unwrap_err();
            assert_eq!(failure.reason, Reason::BadRequest);
        }
        let most = vec![3; 32 * MAX_ANCESTORS];
        assert_eq!(ancestors(&most).unwrap(), [[3; 32]; MAX_ANCESTORS]);
        let more = vec![3; 32 * (MAX_ANCESTORS + 1)];
        assert_eq!(ancestors(&more).unwrap_err().reason, Reason::Limit);
        assert!(ancestors(&[]).unwrap().is_empty());
    }

    #[test]
    fn fail_candidates() {
        assert_eq!(candidates(0, 10).unwrap_err().reason, Reason::BadRequest);
        assert_eq!(candidates(11, 10).unwrap_err().reason, Reason::Limit);
        assert_eq!(
            candidates(4_097, 1 << 30).unwrap_err().reason,
            Reason::Limit
        );
        assert_eq!(candidates(10, 10).unwrap(), 10);
        assert_eq!(candidates(4_096, 1 << 30).unwrap(), 4_096);
    }

    #[test]
    fn fail_other_index_or_epoch() {
        let id = [3; 16];
        assert!(served_index(&id, 5, &id, 5).is_ok());
        for (asked, epoch) in [([4; 16], 5), (id, 4), (id, 6)] {
            let failure = served_index(&asked, epoch, &id, 5).unwrap_err();
            assert_eq!(failure.reason, Reason::WrongEpoch);
        }
    }

    #[test]
    fn filters_round_trip() {
        let sets = [1, u64::MAX, 1 << 63];
        assert_eq!(filter(&pack_filter(sets)).unwrap(), sets);
    }

    #[test]
    fn fail_filters_of_another_length() {
        for length in [0, 8, 16, 23, 25, 1 << 20] {
            let failure = filter(&vec![0; length]).unwrap_err();
            assert_eq!(failure.reason, Reason::BadRequest);
        }
    }

    #[test]
    fn fail_lists() {
        let packed = pack_lists([0, 3, 9]);
        assert_eq!(lists(&packed, 10, 3).unwrap(), [0, 3, 9]);
        assert_eq!(lists(&packed, 10, 8).unwrap(), [0, 3, 9]);
        assert!(lists(&[], 0, 0).unwrap().is_empty());
        for (bytes, of, most) in [
            (pack_lists([0, 3, 9]), 9, 3),
            (pack_lists([0, 3, 9]), 10, 2),
            (pack_lists([3, 0]), 10, 3),
            (pack_lists([3, 3]), 10, 3),
            (vec![1], 10, 3),
            (vec![], 10, 3),
            (pack_lists([0]), 0, 0),
        ] {
            let failure = lists(&bytes, of, most).unwrap_err();
            assert_eq!(failure.reason, Reason::BadRequest, "{bytes:?}");
        }
    }

    #[test]
    fn fail_packing() {
        let good = v1::PackingParameters {
            parameter_set: "N2048_Q50".into(),
            subquantizers: 16,
            width: 8,
            centroids: 256,
            split: 1,
        };
        assert!(packing(Some(&good)).is_ok());
        assert!(packing(None).is_err());
        for change in [
            |p: &mut v1::PackingParameters| p.subquantizers = 0,
            |p: &mut v1::PackingParameters| p.width = 0,
            |p: &mut v1::PackingParameters| p.centroids = 257,
            |p: &mut v1::PackingParameters| p.split = 9,
            |p: &mut v1::PackingParameters| p.width = u32::MAX,
            |p: &mut v1::PackingParameters| p.parameter_set = "x".repeat(33),
        ] {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(packing(Some(&bad)).is_err());
        }
    }

    #[test]
    fn fail_reply_of_another_shape() {
        let request = v1::SearchRequest {
            candidates: 3,
            with_records: true,
            with_scores: true,
            ..Default::default()
        };
        let good = v1::SearchReply {
            records: vec![0; 30].into(),
            record_bytes: 10,
            scores: vec![0; 6].into(),
            ..Default::default()
        };
        assert_eq!(reply(&request, &good).unwrap(), 3);
        let fewer = v1::SearchReply {
            records: vec![0; 20].into(),
            scores: vec![0; 4].into(),
            ..good.clone()
        };
        assert_eq!(reply(&request, &fewer).unwrap(), 2);
        assert_eq!(reply(&request, &v1::SearchReply::default()).unwrap(), 0);
        for bad in [
            // More than asked for.
            v1::SearchReply {
                records: vec![0; 40].into(),
                scores: vec![0; 8].into(),
                ..good.clone()
            },
            v1::SearchReply {
                records: vec![0; 20].into(),
                ..good.clone()
            },
            v1::SearchReply {
                record_bytes: 11,
                ..good.clone()
            },
            v1::SearchReply {
                record_bytes: 0,
                records: Default::default(),
                ..good.clone()
            },
            v1::SearchReply {
                ids: vec![1],
                ..good.clone()
            },
            v1::SearchReply {
                scores: Default::default(),
                ..good.clone()
            },
        ] {
            assert!(reply(&request, &bad).is_err());
        }
    }

    #[test]
    fn debug_shows_no_contents() {
        let request = v1::SearchRequest {
            query: vec![0xab; 99].into(),
            ..Default::default()
        };
        assert_eq!(format!("{request:?}"), "SearchRequest(101 bytes)");
    }

    proptest! {
        #[test]
        fn scores_round_trip(scores: Vec<u16>) {
            prop_assert_eq!(unpack_scores(&pack_scores(scores.clone())).unwrap(), scores);
        }

        #[test]
        fn fail_scores_of_odd_length(mut bytes: Vec<u8>) {
            if bytes.len() % 2 == 0 { bytes.push(0); }
            prop_assert!(unpack_scores(&bytes).is_err());
        }

        #[test]
        fn decoding_never_panics(bytes: Vec<u8>) {
            use prost::Message;
            let _ = v1::SearchRequest::decode(bytes.as_slice());
            let _ = v1::PrepareRequest::decode(bytes.as_slice());
            let _ = v1::SearchReply::decode(bytes.as_slice());
        }
    }
}
