//! What lies in an index.

use std::sync::LazyLock;

use oboro_index::{BuildKeys, BuildState, RecordOpener, SealedBlind, untrusted};
use oboro_quant::BlockedCodes;

/// A manifest.
pub fn manifest(data: &[u8]) {
    untrusted::manifest(data);
}

/// A descriptor.
pub fn descriptor(data: &[u8]) {
    untrusted::descriptor(data);
}

/// The first bytes say of which shape the codes are that follow; and the header of a
/// sealed file.
pub fn segments(data: &[u8]) {
    untrusted::sealed_header(data);
    let Some(([count, subquantizers, wide], bytes)) = data.split_first_chunk::<3>() else {
        return;
    };
    let bits = if wide.is_multiple_of(2) { 4 } else { 8 };
    let (count, subquantizers) = (usize::from(*count) * 7, usize::from(*subquantizers));
    if let Ok(codes) = BlockedCodes::from_bytes(bytes, count, subquantizers, bits) {
        assert!(codes.as_bytes() == bytes);
    }
    let _ = oboro_quant::Codebook::from_bytes(bytes);
}

/// The first byte says what: the extra bytes of a record, a list of deleted vectors, a
/// model, what is kept of a blind generation by searcher, keeper and owner, the keys of
/// a build, or the journal of a compaction.
pub fn parts(data: &[u8]) {
    match data.split_first() {
        Some((0, bytes)) => untrusted::extra(bytes),
        Some((1, bytes)) => untrusted::deleted(bytes),
        Some((3, bytes)) => untrusted::query_model(bytes),
        Some((4, bytes)) => blind(bytes),
        Some((5, bytes)) => drop(BuildState::from_bytes(&crate::seeds::owner(), bytes)),
        Some((6, bytes)) => oboro_searcher::untrusted::kept(bytes),
        Some((7, bytes)) => oboro_keeper::untrusted::share(bytes),
        Some((8, bytes)) => {
            if let Ok(keys) = BuildKeys::from_bytes(bytes) {
                assert!(keys.to_bytes()[..] == *bytes);
            }
        }
        Some((9, bytes)) => untrusted::merge_journal(bytes),
        Some((_, bytes)) => untrusted::model(bytes),
        None => {}
    }
}

/// The file `blind.oboro`.
fn blind(bytes: &[u8]) {
    let Ok(sealed) = SealedBlind::from_bytes(bytes.to_vec()) else {
        return;
    };
    assert!(sealed.to_bytes() == bytes);
    let owner = crate::seeds::owner();
    let (storage, release) = (owner.storage_key(), owner.release_key());
    let index_id = sealed.head().index_id;
    let _ = sealed.open(&storage, &release.blind_part(&index_id));
    let _ = release.open_share(&index_id, sealed.keeper_share());
}

static OPENER: LazyLock<RecordOpener> = LazyLock::new(crate::seeds::record_opener);

/// A record as the searcher sends it.
pub fn record(data: &[u8]) {
    let _ = OPENER.open(data);
}
