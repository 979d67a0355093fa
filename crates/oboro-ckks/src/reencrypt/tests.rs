//! What the keeper can tell while a codebook is re-encrypted, and what noise it adds.

#![allow(clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use oboro_simd::Arch;
use rand_core::SeedableRng;

use super::*;
use crate::{ParameterSet, TableScale};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn packing() -> Packing {
    Packing::compact_query(ParameterSet::N2048Q50, 16, 8, 256).unwrap()
}

fn codebook(packing: Packing, key: &SecretKey, centroid: f32) -> EncryptedCodebook {
    let mut rng = rng(2);
    let scale = TableScale::new(&packing, 2.0, 2.0, 1.0).unwrap();
    let public = key.public_key(&mut rng);
    let centroids = vec![centroid; packing.table_len() * packing.width()];
    let offsets = vec![-centroid; packing.table_len()];
    EncryptedCodebook::encrypt(
        packing,
        &scale,
        &public,
        &centroids,
        Some(&offsets),
        &mut rng,
    )
    .unwrap()
}

/// b + a·s of every ciphertext: all that the keeper can know of the messages.
fn opened(codebook: &EncryptedCodebook, key: &SecretKey) -> Vec<u128> {
    let ring = codebook.packing().set().ring();
    let mut values = Vec::new();
    codebook.map(|ciphertext| {
        let mut v = ciphertext.b.clone();
        v.mul_accumulate(&ring, &[(&ciphertext.a, key.s())]);
        let v = v.into_coefficient(&ring);
        values.extend(v.residues_at(&ring, 0..ring.degree()));
        ciphertext.clone()
    });
    values
}

/// Chi-square with 255 degrees of freedom of the values' highest bytes.
fn chi_square(values: &[u128], log2_modulus: u32) -> f64 {
    let mut counts = [0f64; 256];
    for value in values {
        counts[(value >> (log2_modulus - 8)) as usize] += 1.0;
    }
    let expected = values.len() as f64 / 256.0;
    counts
        .iter()
        .map(|count| (count - expected).powi(2) / expected)
        .sum()
}

#[test]
fn the_keepers_view_is_uniform_whatever_the_codebook() {
    let key = SecretKey::generate(ParameterSet::N2048Q50, &mut rng(1));
    for centroid in [0.0, 0.1] {
        let codebook = codebook(packing(), &key, centroid);
        // Without a mask the keeper reads it: the messages are small or structured.
        assert!(chi_square(&opened(&codebook, &key), 50) > 10_000.0);
        for seed in 3..6 {
            let (masked, _) = CodebookMasking::mask(&codebook, &mut rng(seed));
            let chi = chi_square(&opened(&masked.0, &key), 50);
            // Mean 255, deviation 22.6; six of them.
            assert!((119.0..391.0).contains(&chi), "chi-square {chi}");
            let bytes: Vec<u128> = masked.to_bytes()[1..]
                .iter()
                .map(|byte| u128::from(*byte))
                .collect();
            let chi = chi_square(&bytes, 8);
            assert!((119.0..391.0).contains(&chi), "chi-square {chi}");
        }
    }
}

#[test]
fn two_masks_and_two_encryptions_differ_everywhere() {
    let packing = Packing::new(ParameterSet::N2048Q50, 4, 3, 16, 1).unwrap();
    let (old, new) = (
        SecretKey::generate(packing.set(), &mut rng(1)),
        SecretKey::generate(packing.set(), &mut rng(2)),
    );
    let codebook = codebook(packing, &old, 0.1);
    let mut rng = rng(3);
    let (first, _) = CodebookMasking::mask(&codebook, &mut rng);
    let (second, _) = CodebookMasking::mask(&codebook, &mut rng);
    assert_ne!(first.to_bytes(), second.to_bytes());
    let once = reencrypt(&old, &new, &packing, &first, &mut rng).unwrap();
    let twice = reencrypt(&old, &new, &packing, &first, &mut rng).unwrap();
    let mut fresh = Vec::new();
    for result in [&first, &once, &twice] {
        result.0.map(|ciphertext| {
            assert!(!fresh.contains(&ciphertext.a));
            fresh.push(ciphertext.a.clone());
            ciphertext.clone()
        });
    }
}

/// Each rotation adds one error of variance 10.24, and the scale counts all of them in.
#[test]
fn noise_grows_by_one_error_a_rotation() {
    const ROTATIONS: u32 = 300;
    let packing = Packing::new(ParameterSet::N2048Q50, 4, 3, 16, 1).unwrap();
    let ring = packing.set().ring();
    let mut rng = rng(7);
    let mut key = SecretKey::generate(packing.set(), &mut rng);
    let mut codebook = codebook(packing, &key, 0.1);
    let before = opened(&codebook, &key);
    for _ in 0..ROTATIONS {
        let next = SecretKey::generate(packing.set(), &mut rng);
        let (masked, keep) = CodebookMasking::mask(&codebook, &mut rng);
        let masked = reencrypt(&key, &next, &packing, &masked, &mut rng).unwrap();
        codebook = keep.unmask(masked).unwrap();
        key = next;
    }
    let after = opened(&codebook, &key);
    let modulus = ring.modulus() as i128;
    let squares: f64 = before
        .iter()
        .zip(&after)
        .map(|(&before, &after)| {
            let difference = (after as i128 - before as i128).rem_euclid(modulus);
            let centred = if difference > modulus / 2 {
                difference - modulus
            } else {
                difference
            };
            (centred as f64).powi(2)
        })
        .sum();
    let each = squares / before.len() as f64 / f64::from(ROTATIONS);
    assert!((9.2..11.3).contains(&each), "variance {each} a rotation");
}

#[test]
fn all_instruction_sets_give_the_same_ciphertexts() {
    for set in ParameterSet::ALL {
        let run = |arch| {
            let ring = Ring::with_arch(arch, set.degree(), set.primes()).unwrap();
            let mut rng = rng(4);
            let old = sample::ternary(&ring, &mut rng).into_evaluation(&ring);
            let new = sample::ternary(&ring, &mut rng).into_evaluation(&ring);
            let ciphertext = Ciphertext {
                b: sample::uniform(&ring, &mut rng),
                a: sample::uniform(&ring, &mut rng),
            };
            let fresh = sample::uniform_from_seed(&ring, &[5; 32], 0);
            let mut bytes = Vec::new();
            switch(&ring, &old, &new, &ciphertext, fresh, &mut rng).pack(&ring, &mut bytes);
            bytes
        };
        let reference = run(Arch::available()[0]);
        for arch in Arch::available() {
            assert!(run(arch) == reference, "{} on {}", set.name(), arch.name());
        }
    }
}
