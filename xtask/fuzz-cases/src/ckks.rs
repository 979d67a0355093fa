//! Ciphertexts and keys.

use oboro_ckks::{
    CodebookMasks, EncryptedCodebook, EncryptedQuery, MaskedCodebook, MaskedProducts, Packing,
    ParameterSet, PublicKey, SecretKey, TableScale, TableShare,
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

fn same(encoded: &[u8], bytes: &[u8]) {
    assert!(encoded == bytes, "another encoding of the same value");
}

/// The first byte says which kind of ciphertext follows.
pub fn ciphertexts(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
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
