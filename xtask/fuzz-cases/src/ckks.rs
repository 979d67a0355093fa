//! Ciphertexts and keys.

use oboro_ckks::{
    BatchPacking, BatchScale, BatchTableShare, CodebookMasks, EncryptedBatch, EncryptedCodebook,
    EncryptedQuery, Labels, MaskedBatch, MaskedBatchCodebook, MaskedCodebook, MaskedOffsets,
    MaskedProducts, MeanShares, Packing, ParameterSet, PublicKey, SampleBounds, SecretKey,
    TableScale, TableShare,
};

/// The small layout that all ciphertexts of the cases have.
#[must_use]
pub fn packing() -> Packing {
    Packing::new(ParameterSet::N2048Q50, 4, 2, 16, 1).expect("a valid layout")
}

/// The scale of that layout.
#[must_use]
pub fn scale() -> TableScale {
    TableScale::new(&packing(), 2.0, 1.0, 1.0).expect("a valid scale")
}

/// The layout of batches of that layout.
#[must_use]
pub fn batches() -> BatchPacking {
    BatchPacking::of(&packing()).expect("a valid layout")
}

/// Blocks of tables that the cases ask for.
pub const BLOCKS: std::ops::Range<usize> = 0..1;

/// Vectors of a sample of the cases.
pub const SAMPLES: usize = 20;

fn same(encoded: &[u8], bytes: &[u8]) {
    assert!(encoded == bytes, "another encoding of the same value");
}

/// The first byte says which kind of ciphertext follows.
pub fn ciphertexts(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    // The others are as they were when the corpus was stored.
    if (7..16).contains(kind) {
        return generation(kind - 7, bytes);
    }
    let packing = packing();
    match kind % 7 {
        0 => {
            if let Ok(query) = EncryptedQuery::from_bytes(&packing, bytes) {
                same(&query.to_bytes(), bytes);
            }
        }
        1 => {
            if let Ok(products) = MaskedProducts::from_bytes(&packing, bytes) {
                same(&products.to_bytes(), bytes);
            }
        }
        2 => {
            let _ = TableShare::from_bytes(&packing, bytes);
        }
        3 => {
            if let Ok(codebook) = EncryptedCodebook::from_bytes(&packing, bytes) {
                same(&codebook.to_bytes(), bytes);
            }
        }
        4 => {
            if let Ok(masks) = CodebookMasks::from_bytes(&packing, bytes) {
                same(&masks.to_bytes(), bytes);
            }
        }
        5 => {
            if let Ok(masked) = MaskedCodebook::from_bytes(&packing, bytes) {
                same(&masked.to_bytes(), bytes);
            }
        }
        _ => {
            if let Ok(packing) = Packing::from_bytes(bytes) {
                same(&packing.to_bytes(), bytes);
            }
        }
    }
}

/// What owner, searcher and keeper send one another in a blind generation.
fn generation(kind: u8, bytes: &[u8]) {
    let packing = batches();
    match kind {
        0 => {
            if let Ok(batch) = EncryptedBatch::from_bytes(&packing, bytes) {
                same(&batch.to_bytes(), bytes);
            }
        }
        1 => {
            if let Ok(batch) = MaskedBatch::from_bytes(&packing, BLOCKS, bytes.to_vec()) {
                same(&batch.to_bytes(), bytes);
            }
        }
        2 => {
            if let Ok(share) = BatchTableShare::from_bytes(&packing, BLOCKS, bytes) {
                same(&share.to_bytes(), bytes);
            }
        }
        3 => {
            if let Ok(codebook) = MaskedBatchCodebook::from_bytes(&packing, bytes) {
                same(&codebook.to_bytes(), bytes);
            }
        }
        4 => {
            if let Ok(offsets) = MaskedOffsets::from_bytes(&self::packing(), bytes) {
                same(&offsets.to_bytes(), bytes);
            }
        }
        5 => {
            if let Ok(means) = MeanShares::from_bytes(&packing, bytes) {
                same(&means.to_bytes(), bytes);
            }
        }
        6 => {
            if let Ok(labels) = Labels::from_bytes(&packing, SAMPLES, bytes) {
                same(&labels.to_bytes(), bytes);
            }
        }
        7 => {
            if let Ok(packing) = BatchPacking::from_bytes(bytes) {
                same(&packing.to_bytes(), bytes);
            }
        }
        _ => {
            if let Ok(bounds) = SampleBounds::from_bytes(&packing, bytes) {
                same(&bounds.to_bytes(), bytes);
            }
            if let Ok(scale) = BatchScale::from_bytes(&packing, bytes) {
                same(&scale.to_bytes(), bytes);
            }
        }
    }
}

/// The first byte says which kind of key or scale follows.
pub fn keys(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => {
            if let Ok(key) = PublicKey::from_bytes(bytes) {
                same(&key.to_bytes(), bytes);
            }
        }
        1 => {
            if let Ok(key) = SecretKey::from_bytes(bytes) {
                same(&key.to_bytes(), bytes);
            }
        }
        _ => {
            if let Ok(scale) = TableScale::from_bytes(&packing(), bytes) {
                same(&scale.to_bytes(), bytes);
            }
        }
    }
}
