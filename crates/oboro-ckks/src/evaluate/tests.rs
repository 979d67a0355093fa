//! What the keeper can and cannot tell from c1, before any bits are dropped.

#![allow(clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use oboro_ring::sample;
use rand_core::SeedableRng;

use super::*;
use crate::{ParameterSet, QueryEncryptor, SecretKey};

struct Setup {
    secret: SecretKey,
    encryptor: QueryEncryptor,
    evaluator: TableEvaluator,
    rng: ChaCha20Rng,
}

fn setup() -> Setup {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let packing = Packing::compact_query(ParameterSet::N2048Q50, 16, 8, 256).unwrap();
    let scale = TableScale::new(&packing, 2.0, 1.0, 0.0).unwrap();
    let secret = SecretKey::generate(packing.set(), &mut rng);
    let key = secret.public_key(&mut rng);
    let centroids: Vec<f32> = (0..packing.table_len() * 8)
        .map(|i| (i as f32 * 0.7).sin() * 0.08)
        .collect();
    let codebook =
        EncryptedCodebook::encrypt(packing, &scale, &key, &centroids, None, &mut rng).unwrap();
    Setup {
        secret,
        encryptor: QueryEncryptor::new(packing, scale, key.clone()).unwrap(),
        evaluator: TableEvaluator::new(packing, scale, key, codebook).unwrap(),
        rng,
    }
}

/// Knowing s, the codebook's ciphertext and a_q, solve c1 = b_q·a_C + a_q·b_C for
/// b_q and decrypt it; the message of a true query is small.
fn recovered_message_size(s: &Setup, query: &EncryptedQuery, c1: &Poly<Evaluation>) -> f64 {
    let ring = &s.evaluator.ring;
    let part = &query.parts[0];
    let block = &s.evaluator.codebook.blocks[0].parts[0];
    let mut left = c1.clone();
    let product = part.a.mul(ring, &block.b);
    left.sub_assign(ring, &product);
    let mut message = left.mul(ring, &inverse(ring, &block.a));
    message.mul_accumulate(ring, &[(&part.a, s.secret.s())]);
    let message = message.into_coefficient(ring);
    let n = ring.degree();
    (0..n)
        .map(|i| message.centered(ring, i).unsigned_abs() as f64)
        .sum::<f64>()
        / n as f64
}

/// a^(p-2) pointwise: the inverse in evaluation form.
fn inverse(ring: &Ring, a: &Poly<Evaluation>) -> Poly<Evaluation> {
    let mut exponent = ring.primes()[0] - 2;
    let mut base = a.clone();
    let mut result: Option<Poly<Evaluation>> = None;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = Some(result.map_or_else(|| base.clone(), |r| r.mul(ring, &base)));
        }
        base = base.mul(ring, &base);
        exponent >>= 1;
    }
    result.unwrap()
}

#[test]
fn without_an_encryption_of_zero_the_keeper_reads_the_query() {
    let mut s = setup();
    let query: Vec<f32> = (0..128).map(|i| (i as f32).cos() * 0.1).collect();
    let query = s.encryptor.encrypt(&query, &mut s.rng).unwrap();
    let q = s.evaluator.ring.modulus() as f64;

    let (_, bare) = s.evaluator.product(&query, 0, None);
    assert!(
        recovered_message_size(&s, &query, &bare) < q / 1e5,
        "the distinguisher must succeed on an unprotected product"
    );

    let u = sample::ternary(&s.evaluator.ring, &mut s.rng).into_evaluation(&s.evaluator.ring);
    let (_, protected) = s.evaluator.product(&query, 0, Some(&u));
    let size = recovered_message_size(&s, &query, &protected);
    assert!(
        (0.2 * q..0.3 * q).contains(&size),
        "a uniform value averages q/4, not {}",
        size / q
    );
}

/// Full decryption with the secret key, without the keeper's dither: what is
/// left is the noise alone, and the scale's formula must cover it closely.
#[test]
fn the_measured_noise_is_what_the_scale_states() {
    let mut s = setup();
    let p = *s.evaluator.packing();
    let ring = s.evaluator.ring.clone();
    // As long as the bound allows, so that the formula's worst case is met.
    let plain: Vec<f32> = (0..128)
        .map(|i| if i % 2 == 0 { 0.17 } else { -0.17 })
        .collect();
    let query = s.encryptor.encrypt(&plain, &mut s.rng).unwrap();
    let centroid = |i: usize| f64::from((i as f32 * 0.7).sin() * 0.08);
    let scale = s.evaluator.scale;
    let (mut squares, mut largest, mut count) = (0.0, 0f64, 0.0);
    for block in 0..p.blocks() {
        let u = sample::ternary(&ring, &mut s.rng).into_evaluation(&ring);
        let (mut sum, c1) = s.evaluator.product(&query, block, Some(&u));
        let part = &s.evaluator.codebook.blocks[block].parts[0];
        let c2 = query.parts[0].a.mul(&ring, &part.a);
        sum.mul_accumulate(&ring, &[(&c1, s.secret.s()), (&c2, s.secret.s_squared())]);
        let sum = sum.into_coefficient(&ring);
        let half = p.targets_per_block() / 2;
        let values: Vec<f64> = p
            .target_indexes()
            .map(|i| sum.centered(&ring, i) as f64)
            .collect();
        // The exact product, embedded and scaled.
        let mut exact = Rows::zero(p.slots(), p.positions());
        for slot in 0..16 {
            for position in 0..p.positions() {
                let ip = |k: usize| -> f64 {
                    (0..8)
                        .map(|j| {
                            f64::from(plain[slot * 8 + j]) * centroid((slot * 256 + k) * 8 + j)
                        })
                        .sum()
                };
                let first = block * p.centroids_per_block() + position;
                let at = slot * p.positions() + position;
                exact.re[at] = ip(first) * scale.product_scale();
                exact.im[at] = ip(first + p.positions()) * scale.product_scale();
            }
        }
        s.evaluator.embedding.to_coefficients(&mut exact);
        for (got, want) in values[..half]
            .iter()
            .zip(&exact.re)
            .chain(values[half..].iter().zip(&exact.im))
        {
            let error = got - want;
            squares += error * error;
            largest = largest.max(error.abs());
            count += 1.0;
        }
    }
    let measured = (squares / count).sqrt().log2();
    assert!(largest < scale.noise_bound(), "2^{:.1}", largest.log2());
    assert!(
        measured < scale.noise_bits() && measured > scale.noise_bits() - 2.0,
        "measured 2^{measured:.2}, stated 2^{:.2}",
        scale.noise_bits()
    );
}
