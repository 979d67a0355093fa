//! Encrypted tables against exact ones, noise against its bound, and the
//! keeper's view against uniformity.

#![allow(clippy::unwrap_used, missing_docs)]

use chacha20::ChaCha20Rng;
use oboro_ckks::{
    CkksError, CodebookMasks, EncryptedCodebook, EncryptedQuery, MaskedDecryptor, MaskedProducts,
    Packing, ParameterSet, PublicKey, QueryEncryptor, SecretKey, TableEvaluator, TableScale,
    TableShare,
};
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};

struct World {
    packing: Packing,
    scale: TableScale,
    centroids: Vec<f32>,
    offsets: Option<Vec<f32>>,
    encryptor: QueryEncryptor,
    evaluator: TableEvaluator,
    keeper: MaskedDecryptor,
    rng: ChaCha20Rng,
}

fn normal(rng: &mut impl Rng) -> f32 {
    let sum: f64 = (0..12)
        .map(|_| rng.next_u32() as f64 / u32::MAX as f64)
        .sum();
    (sum - 6.0) as f32
}

fn world(packing: Packing, with_offsets: bool, seed: u8) -> World {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let (m, d, k) = (
        packing.subquantizers(),
        packing.width(),
        packing.centroids(),
    );
    let centroids: Vec<f32> = (0..m * k * d)
        .map(|_| normal(&mut rng) / ((m * d) as f32).sqrt())
        .collect();
    let norms: Vec<f32> = centroids
        .chunks_exact(d)
        .map(|c| c.iter().map(|x| x * x).sum::<f32>())
        .collect();
    let codebook_norm = norms
        .chunks_exact(k)
        .map(|row| f64::from(row.iter().copied().fold(0.0, f32::max)))
        .sum::<f64>();
    let offsets = with_offsets.then(|| norms.iter().map(|n| -n / 2.0).collect::<Vec<_>>());
    let scale = TableScale::new(
        &packing,
        3.0,
        codebook_norm.sqrt(),
        if with_offsets {
            codebook_norm / 2.0
        } else {
            0.0
        },
    )
    .unwrap();
    let secret = SecretKey::generate(packing.set(), &mut rng);
    let key = secret.public_key(&mut rng);
    let codebook = EncryptedCodebook::encrypt(
        packing,
        &scale,
        &key,
        &centroids,
        offsets.as_deref(),
        &mut rng,
    )
    .unwrap();
    World {
        packing,
        scale,
        centroids,
        offsets,
        encryptor: QueryEncryptor::new(packing, scale, key.clone()).unwrap(),
        evaluator: TableEvaluator::new(packing, scale, key, codebook).unwrap(),
        keeper: MaskedDecryptor::new(secret),
        rng,
    }
}

impl World {
    fn query(&mut self) -> Vec<f32> {
        let n = self.packing.query_len();
        (0..n)
            .map(|_| normal(&mut self.rng) / (n as f32).sqrt())
            .collect()
    }

    fn exact(&self, query: &[f32]) -> Vec<f64> {
        let (d, k) = (self.packing.width(), self.packing.centroids());
        self.centroids
            .chunks_exact(d)
            .enumerate()
            .map(|(i, c)| {
                let q = &query[i / k * d..(i / k + 1) * d];
                let ip: f64 = q
                    .iter()
                    .zip(c)
                    .map(|(&x, &y)| f64::from(x) * f64::from(y))
                    .sum();
                ip + self.offsets.as_ref().map_or(0.0, |o| f64::from(o[i]))
            })
            .collect()
    }

    /// The whole way, every message through its bytes.
    fn encrypted(&mut self, query: &[f32]) -> Result<Vec<f32>, CkksError> {
        let p = self.packing;
        let query = self.encryptor.encrypt(query, &mut self.rng)?;
        let query = EncryptedQuery::from_bytes(&p, &query.to_bytes())?;
        let zero = self.evaluator.zero(&mut self.rng);
        let (share, products) = self.evaluator.evaluate(&query, zero)?;
        let products = MaskedProducts::from_bytes(&p, products.as_bytes())?;
        let masks = CodebookMasks::from_bytes(&p, &self.evaluator.masks().to_bytes())?;
        let prepared = self.keeper.prepare(p, self.scale, &masks)?;
        let table = self.keeper.decrypt(&prepared, &products, &mut self.rng)?;
        let table = TableShare::from_bytes(&p, &table.to_bytes())?;
        self.evaluator.unmask(&share, &table)
    }
}

#[test]
fn a_client_with_the_secret_key_sends_half_and_gets_the_same_table() {
    for split in [1, 2] {
        let packing = Packing::new(ParameterSet::N2048Q50, 16, 8, 256, split).unwrap();
        let mut world = world(packing, true, 21);
        let query = world.query();
        let seeded = world
            .keeper
            .encrypt(&world.encryptor, &query, &mut world.rng)
            .unwrap();
        let bytes = seeded.to_bytes();
        assert_eq!(bytes.len(), EncryptedQuery::seeded_len(&packing));
        assert!(bytes.len() < EncryptedQuery::encoded_len(&packing) * 51 / 100);
        let seeded = EncryptedQuery::from_bytes(&packing, &bytes).unwrap();
        assert_eq!(seeded.to_bytes(), bytes);
        let zero = world.evaluator.zero(&mut world.rng);
        let (share, products) = world.evaluator.evaluate(&seeded, zero).unwrap();
        let prepared = world
            .keeper
            .prepare(packing, world.scale, &world.evaluator.masks())
            .unwrap();
        let table = world
            .keeper
            .decrypt(&prepared, &products, &mut world.rng)
            .unwrap();
        let table = world.evaluator.unmask(&share, &table).unwrap();
        for (got, want) in table.iter().zip(world.exact(&query)) {
            assert!((f64::from(*got) - want).abs() < 7.0 * world.scale.table_error());
        }
        assert!(EncryptedQuery::from_bytes(&packing, &bytes[1..]).is_err());
    }
}

fn errors(world: &mut World) -> (f64, f64) {
    let query = world.query();
    let table = world.encrypted(&query).unwrap();
    let exact = world.exact(&query);
    assert_eq!(table.len(), exact.len());
    let (mut largest, mut squares) = (0f64, 0f64);
    for (got, want) in table.iter().zip(&exact) {
        let error = (f64::from(*got) - want).abs();
        largest = largest.max(error);
        squares += error * error;
    }
    (largest, (squares / exact.len() as f64).sqrt())
}

#[test]
fn tables_match_exact_ones_within_the_stated_error() {
    for (set, m, d, k, d1) in [
        (ParameterSet::N2048Q50, 16, 8, 256, 1),
        (ParameterSet::N2048Q50, 16, 8, 256, 8),
        (ParameterSet::N2048Q50, 32, 4, 256, 2),
        (ParameterSet::N2048Q50, 64, 2, 16, 1),
        (ParameterSet::N2048Q50, 10, 5, 256, 1),
        (ParameterSet::N2048Q50, 13, 8, 256, 3),
        (ParameterSet::N2048Q50, 1, 2, 16, 1),
        (ParameterSet::N4096Q100, 16, 8, 256, 1),
        (ParameterSet::N4096Q100, 60, 16, 256, 1),
    ] {
        for with_offsets in [false, true] {
            let packing = Packing::new(set, m, d, k, d1).unwrap();
            let mut world = world(packing, with_offsets, 3);
            let (largest, rms) = errors(&mut world);
            let stated = world.scale.table_error();
            // The more entries, the closer the sample's deviation.
            let slack = 1.1 + 2.0 / ((m * k) as f64).sqrt();
            assert!(
                rms < slack * stated,
                "{set:?} {m} {d} {k} {d1}: rms {rms:.2e}, stated {stated:.2e}"
            );
            assert!(
                largest < 7.0 * stated,
                "{set:?} {m} {d} {k} {d1}: {largest:.2e}"
            );
        }
    }
}

#[test]
fn any_table_has_eight_bits_of_precision() {
    let mut world = world(
        Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap(),
        true,
        4,
    );
    let query = world.query();
    let exact = world.exact(&query);
    let range = exact
        .chunks_exact(256)
        .map(|row| {
            row.iter().fold(f64::MIN, |a, &x| a.max(x))
                - row.iter().fold(f64::MAX, |a, &x| a.min(x))
        })
        .fold(0.0, f64::max);
    assert!(
        world.scale.table_error() < range / 256.0,
        "{:.2e} of {range:.2e}",
        world.scale.table_error()
    );
}

#[test]
fn a_long_query_is_shortened_instead_of_wrapping() {
    let mut world = world(
        Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap(),
        false,
        5,
    );
    let query = world.query();
    let norm = query.iter().map(|x| x * x).sum::<f32>().sqrt();
    let long: Vec<f32> = query.iter().map(|x| x * 1000.0).collect();
    let table = world.encrypted(&long).unwrap();
    for (got, want) in table.iter().zip(world.exact(&query)) {
        let want = want * 3.0 / f64::from(norm);
        assert!((f64::from(*got) - want).abs() < 8.0 * world.scale.table_error());
    }
}

#[test]
fn fail_another_key_is_an_error_not_a_table() {
    let packing = Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap();
    let mut world = world(packing, true, 6);
    let mut rng = ChaCha20Rng::from_seed([99; 32]);
    world.keeper = MaskedDecryptor::new(SecretKey::generate(packing.set(), &mut rng));
    let query = world.query();
    assert_eq!(world.encrypted(&query), Err(CkksError::OutOfRange));
}

#[test]
fn fail_nan_and_wrong_lengths() {
    let packing = Packing::new(ParameterSet::N2048Q50, 4, 3, 16, 1).unwrap();
    let mut world = world(packing, true, 6);
    let mut query = world.query();
    query[5] = f32::NAN;
    assert_eq!(
        world.encrypted(&query),
        Err(CkksError::NotFinite("the query"))
    );
    assert!(world.encrypted(&query[1..]).is_err());
    assert!(EncryptedQuery::from_bytes(&packing, &[0; 100]).is_err());
    let too_large = vec![0xff; EncryptedQuery::encoded_len(&packing)];
    assert!(EncryptedQuery::from_bytes(&packing, &too_large).is_err());
    assert!(MaskedProducts::from_bytes(&packing, &[]).is_err());
    assert!(TableShare::from_bytes(&packing, &[0; 3]).is_err());
    assert!(CodebookMasks::from_bytes(&packing, &[0; 3]).is_err());
}

#[test]
fn keys_and_codebooks_survive_their_bytes() {
    for set in ParameterSet::ALL {
        let mut rng = ChaCha20Rng::from_seed([8; 32]);
        let secret = SecretKey::generate(set, &mut rng);
        let again = SecretKey::from_bytes(&secret.to_bytes()).unwrap();
        assert_eq!(*again.to_bytes(), *secret.to_bytes());
        let key = secret.public_key(&mut rng);
        assert!(secret.matches(&key) && again.matches(&key));
        assert!(!SecretKey::generate(set, &mut rng).matches(&key));
        let bytes = key.to_bytes();
        assert_eq!(bytes.len(), PublicKey::encoded_len(set));
        assert_eq!(
            PublicKey::from_bytes(&bytes).unwrap().fingerprint(),
            key.fingerprint()
        );
        let packing = Packing::new(set, 4, 4, 16, 1).unwrap();
        let scale = TableScale::new(&packing, 1.0, 1.0, 0.0).unwrap();
        let codebook =
            EncryptedCodebook::encrypt(packing, &scale, &key, &[0.1; 256], None, &mut rng).unwrap();
        let bytes = codebook.to_bytes();
        let again = EncryptedCodebook::from_bytes(&packing, &bytes).unwrap();
        assert_eq!(again.to_bytes(), bytes);
        assert_eq!(again.masks().digest(), codebook.masks().digest());
        for cut in [0, 1, bytes.len() - 1] {
            assert!(EncryptedCodebook::from_bytes(&packing, &bytes[..cut]).is_err());
        }
        assert!(SecretKey::from_bytes(&secret.to_bytes()[1..]).is_err());
        assert!(PublicKey::from_bytes(&key.to_bytes()[..50]).is_err());
    }
}

/// Chi-square of the top byte of every coefficient that reaches the keeper.
fn keeper_view(world: &mut World, query: &[f32], rounds: usize) -> f64 {
    let p = world.packing;
    let mut counts = [0f64; 256];
    let query_bytes =
        p.split() * oboro_ring::Poly::<oboro_ring::Evaluation>::packed_len(&p.set().ring());
    for _ in 0..rounds {
        let query = world.encryptor.encrypt(query, &mut world.rng).unwrap();
        let zero = world.evaluator.zero(&mut world.rng);
        let (_, products) = world.evaluator.evaluate(&query, zero).unwrap();
        for coefficient in products.as_bytes()[query_bytes..].chunks_exact(3) {
            counts[usize::from(coefficient[2])] += 1.0;
        }
    }
    let total: f64 = counts.iter().sum();
    let expected = total / 256.0;
    counts
        .iter()
        .map(|c| (c - expected).powi(2) / expected)
        .sum()
}

#[test]
fn the_keepers_view_is_uniform_whatever_the_query() {
    let mut world = world(
        Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap(),
        true,
        11,
    );
    let zero = vec![0.0; 128];
    let random = world.query();
    for query in [zero, random] {
        let chi = keeper_view(&mut world, &query, 8);
        // 255 degrees of freedom: mean 255, deviation 22.6; six of them.
        assert!((119.0..391.0).contains(&chi), "chi-square {chi}");
    }
}

#[test]
fn two_encryptions_and_two_masks_of_one_query_differ() {
    let mut world = world(
        Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap(),
        true,
        12,
    );
    let query = world.query();
    let a = world.encryptor.encrypt(&query, &mut world.rng).unwrap();
    let b = world.encryptor.encrypt(&query, &mut world.rng).unwrap();
    assert_ne!(a.to_bytes(), b.to_bytes());
    let (zero1, zero2) = (
        world.evaluator.zero(&mut world.rng),
        world.evaluator.zero(&mut world.rng),
    );
    let (_, first) = world.evaluator.evaluate(&a, zero1).unwrap();
    let (_, second) = world.evaluator.evaluate(&a, zero2).unwrap();
    assert_ne!(first.as_bytes(), second.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape_gives_the_exact_table(
        m in 1usize..40, d in 1usize..20, k in 1usize..=256, split in 1usize..6, offsets: bool, seed: u8,
    ) {
        let packing = Packing::new(ParameterSet::N2048Q50, m, d, k, split.min(d));
        if let Ok(packing) = packing {
            let mut world = world(packing, offsets, seed);
            let (largest, _) = errors(&mut world);
            prop_assert!(largest < 8.0 * world.scale.table_error());
        }
    }

    #[test]
    fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let packing = Packing::new(ParameterSet::N2048Q50, 4, 3, 16, 1).unwrap();
        let _ = SecretKey::from_bytes(&bytes);
        let _ = PublicKey::from_bytes(&bytes);
        let _ = Packing::from_bytes(&bytes);
        let _ = TableScale::from_bytes(&packing, &bytes);
        let _ = EncryptedCodebook::from_bytes(&packing, &bytes);
    }
}
