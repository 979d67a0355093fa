//! Messages of the protocol and the checks that a receiver makes first.

use oboro_protocol::{v1, validate};
use prost::Message;

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
    match kind % 16 {
        0 => {
            if let Some(request) = decode::<v1::SearchRequest>(bytes) {
                let _ = validate::index_id(&request.index_id);
                let _ = validate::candidates(request.candidates, 1_000);
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
        _ => drop(decode::<v1::BeginSearchReply>(bytes)),
    }
}
