//! Messages of the protocol and the checks that a receiver makes first.

use oboro_protocol::build::v1 as build;
use oboro_protocol::generation::v1 as generation;
use oboro_protocol::{v1, validate};
use oboro_server::generator;
use prost::Message;

/// The index that changes are for.
pub const INDEX: [u8; 16] = [3; 16];

fn decode<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    // Field order and unknown fields are free, so only the meaning must stay.
    let encoded = message.encode_to_vec();
    let again = M::decode(encoded.as_slice()).expect("what was encoded decodes");
    assert!(again.encode_to_vec() == encoded, "another meaning");
    Some(message)
}

/// The first byte says which message follows.
pub fn messages(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    // The first sixteen are as they were when the corpus was stored.
    match kind % 32 {
        0 => {
            if let Some(request) = decode::<v1::SearchRequest>(bytes) {
                let _ = validate::index_id(&request.index_id);
                let _ = validate::candidates(request.candidates, 1_000);
                if let Ok(sets) = validate::filter(&request.filter) {
                    assert!(validate::pack_filter(sets)[..] == request.filter[..]);
                }
                if let Ok(lists) = validate::lists(&request.lists, 300, 8) {
                    let packed = validate::pack_lists(lists.iter().map(|&list| list as u16));
                    assert!(packed[..] == request.lists[..]);
                }
                if let Some(reply) = decode::<v1::SearchReply>(bytes) {
                    let _ = validate::reply(&request, &reply);
                }
            }
        }
        1 => {
            if let Some(reply) = decode::<v1::SearchReply>(bytes) {
                let _ = validate::unpack_scores(&reply.scores);
            }
        }
        2 => {
            if let Some(request) = decode::<v1::PrepareRequest>(bytes) {
                let _ = validate::packing(request.packing.as_ref());
            }
        }
        3 => drop(decode::<v1::SearcherDescription>(bytes)),
        4 => drop(decode::<v1::KeeperDescription>(bytes)),
        5 => drop(decode::<v1::DecryptRequest>(bytes)),
        6 => drop(decode::<v1::DecryptReply>(bytes)),
        7 => drop(decode::<v1::ReleaseRequest>(bytes)),
        8 => drop(decode::<v1::RegisterRequest>(bytes)),
        9 => drop(decode::<v1::RegisterReply>(bytes)),
        10 => drop(decode::<v1::NewKeyRequest>(bytes)),
        11 => {
            if let Some(request) = decode::<v1::ReencryptRequest>(bytes) {
                let _ = validate::packing(request.packing.as_ref());
            }
        }
        12 => drop(decode::<v1::BeginRotationRequest>(bytes)),
        13 => drop(decode::<v1::CommitRotationRequest>(bytes)),
        14 => drop(decode::<v1::FinishSearchRequest>(bytes)),
        15 => drop(decode::<v1::BeginSearchReply>(bytes)),
        16 => {
            if let Some(request) = decode::<v1::StageRequest>(bytes) {
                let shape = validate::SegmentShape {
                    subquantizers: 4,
                    centroids: 16,
                    record_bytes: 9,
                    tags: request.ids.len() % 2 == 0,
                    lists: 5 * (request.ids.len() % 3),
                };
                if validate::segment(&request, &INDEX, &shape).is_ok() {
                    assert!(request.codes.len() == 4 * request.ids.len());
                }
            }
        }
        17 => {
            if let Some(request) = decode::<v1::CommitRequest>(bytes)
                && let Ok(stages) = validate::change(&request, &INDEX)
            {
                assert!(stages.len() == request.stages.len());
            }
        }
        18 => drop(decode::<v1::CommitReply>(bytes)),
        19 => drop(decode::<v1::ModelReply>(bytes)),
        20 => drop(decode::<v1::CompactReply>(bytes)),
        21 => drop(decode::<v1::SearcherStatus>(bytes)),
        22 => drop(decode::<v1::QueryModelReply>(bytes)),
        23 => drop(decode::<generation::GeneratorBeginRequest>(bytes)),
        24 => drop(decode::<generation::KeeperBeginRequest>(bytes)),
        25 => drop(decode::<generation::InstallRequest>(bytes)),
        26 => drop(decode::<generation::EncodeBatchesRequest>(bytes)),
        27 => drop(decode::<generation::SegmentRequest>(bytes)),
        28 => {
            // What a generator makes of the message that opens a build.
            if let Some(begin) = decode::<build::Begin>(bytes)
                && validate::build::begin(&begin).is_ok()
                && let Ok((job, early)) = generator::from_message(begin)
            {
                assert!(early > 0 && job.vectors > 0);
                let again = generator::to_message(&job);
                assert!(generator::from_message(again).is_ok(), "a job travels");
            }
        }
        29 => {
            if let Some(records) = decode::<build::Records>(bytes)
                && let Ok(count) = validate::build::records(&records, 12)
            {
                assert!(count * 12 == records.vectors.len());
            }
        }
        30 => drop(decode::<build::BuildRequest>(bytes)),
        31 => drop(decode::<build::BuildReply>(bytes)),
        _ => drop(decode::<v1::StageReply>(bytes)),
    }
}
