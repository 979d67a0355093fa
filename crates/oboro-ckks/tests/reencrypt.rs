//! Codebooks under a rotated key: the same tables, and what is refused.

#![allow(clippy::unwrap_used, missing_docs)]

use chacha20::ChaCha20Rng;
use oboro_ckks::{
    CkksError, CodebookMasking, EncryptedCodebook, MaskedCodebook, MaskedDecryptor, Packing,
    ParameterSet, QueryEncryptor, SecretKey, TableEvaluator, TableScale, reencrypt,
};
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};

/// An index whose key can be rotated.
struct Index {
    packing: Packing,
    scale: TableScale,
    centroids: Vec<f32>,
    offsets: Vec<f32>,
    key: SecretKey,
    codebook: EncryptedCodebook,
    rng: ChaCha20Rng,
}

fn value(rng: &mut impl Rng) -> f32 {
    (rng.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

impl Index {
    fn new(packing: Packing, seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let norm = (packing.subquantizers() * packing.width()) as f32;
        let centroids: Vec<f32> = (0..packing.table_len() * packing.width())
            .map(|_| value(&mut rng) / norm.sqrt())
            .collect();
        let offsets: Vec<f32> = (0..packing.table_len())
            .map(|_| value(&mut rng) / packing.subquantizers() as f32)
            .collect();
        let scale = TableScale::new(&packing, 2.0, 1.0, 1.0).unwrap();
        let key = SecretKey::generate(packing.set(), &mut rng);
        let public = key.public_key(&mut rng);
        let codebook = EncryptedCodebook::encrypt(
            packing,
            &scale,
            &public,
            &centroids,
            Some(&offsets),
            &mut rng,
        )
        .unwrap();
        Self {
            packing,
            scale,
            centroids,
            offsets,
            key,
            codebook,
            rng,
        }
    }

    /// Every message through its bytes.
    fn rotate(&mut self) {
        let next = SecretKey::generate(self.packing.set(), &mut self.rng);
        let (masked, keep) = CodebookMasking::mask(&self.codebook, &mut self.rng);
        let masked = MaskedCodebook::from_bytes(&self.packing, &masked.to_bytes()).unwrap();
        let reply = reencrypt(&self.key, &next, &self.packing, &masked, &mut self.rng).unwrap();
        let reply = MaskedCodebook::from_bytes(&self.packing, &reply.to_bytes()).unwrap();
        self.codebook = keep.unmask(reply).unwrap();
        self.key = next;
    }

    /// Largest error and its root mean square over some tables.
    fn errors(&mut self) -> Result<(f64, f64), CkksError> {
        let p = self.packing;
        let public = self.key.public_key(&mut self.rng);
        let key = SecretKey::from_bytes(&self.key.to_bytes()).unwrap();
        let keeper = MaskedDecryptor::new(key);
        let codebook = EncryptedCodebook::from_bytes(&p, &self.codebook.to_bytes()).unwrap();
        let evaluator = TableEvaluator::new(p, self.scale, public.clone(), codebook).unwrap();
        let encryptor = QueryEncryptor::new(p, self.scale, public).unwrap();
        let prepared = keeper.prepare(p, self.scale, &evaluator.masks())?;
        let (mut largest, mut squares, mut count) = (0f64, 0.0, 0.0);
        for _ in 0..4 {
            let length = p.query_len() as f32;
            let query: Vec<f32> = (0..p.query_len())
                .map(|_| value(&mut self.rng) / length.sqrt())
                .collect();
            let encrypted = encryptor.encrypt(&query, &mut self.rng)?;
            let zero = evaluator.zero(&mut self.rng);
            let (share, products) = evaluator.evaluate(&encrypted, zero)?;
            let answer = keeper.decrypt(&prepared, &products, &mut self.rng)?;
            let table = evaluator.unmask(&share, &answer)?;
            for (i, (found, centroid)) in table
                .iter()
                .zip(self.centroids.chunks_exact(p.width()))
                .enumerate()
            {
                let space = i / p.centroids();
                let part = &query[space * p.width()..(space + 1) * p.width()];
                let product: f64 = part
                    .iter()
                    .zip(centroid)
                    .map(|(x, y)| f64::from(*x) * f64::from(*y))
                    .sum();
                let error = f64::from(*found) - product - f64::from(self.offsets[i]);
                largest = largest.max(error.abs());
                squares += error * error;
                count += 1.0;
            }
        }
        Ok((largest, (squares / count).sqrt()))
    }
}

#[test]
fn a_rotated_codebook_gives_the_same_tables() {
    for (set, m, d, k, split) in [
        (ParameterSet::N2048Q50, 16, 8, 256, 1),
        (ParameterSet::N2048Q50, 13, 8, 256, 3),
        (ParameterSet::N2048Q50, 64, 2, 16, 1),
        (ParameterSet::N4096Q100, 16, 8, 256, 1),
    ] {
        let mut index = Index::new(Packing::new(set, m, d, k, split).unwrap(), 1);
        let before = index.codebook.masks().digest();
        for _ in 0..3 {
            index.rotate();
        }
        assert_ne!(index.codebook.masks().digest(), before);
        let (largest, rms) = index.errors().unwrap();
        let stated = index.scale.table_error();
        assert!(rms < 1.1 * stated, "rms {rms:.2e}, stated {stated:.2e}");
        assert!(largest < 7.0 * stated, "largest {largest:.2e}");
    }
}

#[test]
fn a_thousand_rotations_stay_within_the_stated_error() {
    let packing = Packing::new(ParameterSet::N2048Q50, 16, 8, 16, 1).unwrap();
    let mut index = Index::new(packing, 2);
    for _ in 0..oboro_ckks::MAX_ROTATIONS {
        index.rotate();
    }
    let (largest, rms) = index.errors().unwrap();
    let stated = index.scale.table_error();
    assert!(rms < 1.15 * stated, "rms {rms:.2e}, stated {stated:.2e}");
    assert!(largest < 7.0 * stated, "largest {largest:.2e}");
}

#[test]
fn fail_another_pair_of_keys_gives_noise() {
    let packing = Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap();
    let mut index = Index::new(packing, 3);
    let stranger = SecretKey::generate(packing.set(), &mut index.rng);
    let next = SecretKey::generate(packing.set(), &mut index.rng);
    let (masked, keep) = CodebookMasking::mask(&index.codebook, &mut index.rng);
    let reply = reencrypt(&stranger, &next, &packing, &masked, &mut index.rng).unwrap();
    index.codebook = keep.unmask(reply).unwrap();
    index.key = next;
    assert_eq!(index.errors().unwrap_err(), CkksError::OutOfRange);
}

#[test]
fn fail_another_mask_gives_noise() {
    let packing = Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap();
    let mut index = Index::new(packing, 4);
    let next = SecretKey::generate(packing.set(), &mut index.rng);
    let (masked, _) = CodebookMasking::mask(&index.codebook, &mut index.rng);
    let (_, foreign) = CodebookMasking::mask(&index.codebook, &mut index.rng);
    let reply = reencrypt(&index.key, &next, &packing, &masked, &mut index.rng).unwrap();
    index.codebook = foreign.unmask(reply).unwrap();
    index.key = next;
    assert_eq!(index.errors().unwrap_err(), CkksError::OutOfRange);
}

#[test]
fn fail_other_sets_and_shapes() {
    let shape = |set, k| Packing::new(set, 4, 3, k, 1).unwrap();
    let small = shape(ParameterSet::N2048Q50, 16);
    let mut index = Index::new(small, 5);
    let large = SecretKey::generate(ParameterSet::N4096Q100, &mut index.rng);
    let (masked, keep) = CodebookMasking::mask(&index.codebook, &mut index.rng);
    let mismatch = |result: Result<MaskedCodebook, CkksError>| {
        assert!(matches!(result.err(), Some(CkksError::Mismatch { .. })));
    };
    let rng = &mut index.rng;
    mismatch(reencrypt(&large, &index.key, &small, &masked, rng));
    mismatch(reencrypt(&index.key, &large, &small, &masked, rng));
    let other = shape(ParameterSet::N2048Q50, 8);
    mismatch(reencrypt(&index.key, &index.key, &other, &masked, rng));
    // A reply of another shape, or without the offsets.
    let mut foreign = Index::new(other, 6);
    let (reply, _) = CodebookMasking::mask(&foreign.codebook, &mut foreign.rng);
    assert!(matches!(
        keep.unmask(reply).err(),
        Some(CkksError::Mismatch { .. })
    ));
    let public = index.key.public_key(&mut index.rng);
    let bare = EncryptedCodebook::encrypt(
        small,
        &index.scale,
        &public,
        &index.centroids,
        None,
        &mut index.rng,
    )
    .unwrap();
    let (_, keep) = CodebookMasking::mask(&index.codebook, &mut index.rng);
    let (reply, _) = CodebookMasking::mask(&bare, &mut index.rng);
    assert!(matches!(
        keep.unmask(reply).err(),
        Some(CkksError::Mismatch { .. })
    ));
}

#[test]
fn fail_cut_trailing_and_foreign_bytes() {
    let packing = Packing::new(ParameterSet::N2048Q50, 4, 3, 16, 1).unwrap();
    let mut index = Index::new(packing, 7);
    let bytes = CodebookMasking::mask(&index.codebook, &mut index.rng)
        .0
        .to_bytes();
    assert!(bytes.len() <= MaskedCodebook::largest_len(&packing));
    assert!(MaskedCodebook::from_bytes(&packing, &bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(MaskedCodebook::from_bytes(&packing, &bytes[..length]).is_err());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(MaskedCodebook::from_bytes(&packing, &longer).is_err());
    for header in 2..=255 {
        let mut foreign = bytes.clone();
        foreign[0] = header;
        assert!(MaskedCodebook::from_bytes(&packing, &foreign).is_err());
    }
    let mut outside = bytes.clone();
    outside[1..].fill(0xff);
    assert!(MaskedCodebook::from_bytes(&packing, &outside).is_err());
    // Any other value is some element of the ring: it decodes, or is refused.
    for position in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[position] ^= 0x80;
        if let Ok(codebook) = MaskedCodebook::from_bytes(&packing, &flipped) {
            assert_eq!(codebook.to_bytes(), flipped);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shape_can_be_rotated(
        m in 1usize..40, d in 1usize..20, k in 1usize..=256, split in 1usize..6, seed: u8,
    ) {
        if let Ok(packing) = Packing::new(ParameterSet::N2048Q50, m, d, k, split.min(d)) {
            let mut index = Index::new(packing, seed);
            index.rotate();
            let (largest, _) = index.errors().unwrap();
            prop_assert!(largest < 8.0 * index.scale.table_error());
        }
    }

    #[test]
    fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let packing = Packing::new(ParameterSet::N2048Q50, 4, 3, 16, 1).unwrap();
        let _ = MaskedCodebook::from_bytes(&packing, &bytes);
    }
}
