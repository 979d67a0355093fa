//! The noise of a batch's products, measured with the key, against the scale.

#![allow(clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use oboro_ring::{Poly, tensor};
use rand_core::SeedableRng;

use crate::embedding::{Embedding, Rows};
use crate::evaluate::ZeroBlock;
use crate::generation::{Labels, MaskSeed, SampleShares, TrainingSample};
use crate::{
    BatchCodebook, BatchEncryptor, BatchPacking, BatchScale, CodebookOrigin, MaskedDecryptor,
    ParameterSet, SecretKey,
};

/// K vectors that are centroids and rows of a batch at once.
fn vectors(p: &BatchPacking, count: usize) -> Vec<f32> {
    (0..count * p.vector_len())
        .map(|i| ((i as f32) * 0.7 + (i / 97) as f32).sin())
        .collect()
}

fn measure(set: ParameterSet, origin: CodebookOrigin) {
    let mut rng = ChaCha20Rng::from_seed([4; 32]);
    let p = BatchPacking::new(set, 16, 8, 16).unwrap();
    let (m, k, d, batch) = (16, 16, 8, p.batch());
    let secret = SecretKey::generate(set, &mut rng);
    let key = secret.public_key(&mut rng);
    let keeper = MaskedDecryptor::new(secret);
    let ring = set.ring();
    let sample = TrainingSample::new(&p, &vectors(&p, batch), &mut rng).unwrap();
    let rows = sample.batch(0).to_vec();
    let bounds = sample.bounds();
    let scale = BatchScale::new(&p, bounds.row_norm(), bounds.codebook_norm(), origin).unwrap();
    // The first K rows are the centroids.
    let centroids: Vec<f32> = (0..m)
        .flat_map(|slot| (0..k).map(move |c| (slot, c)))
        .flat_map(|(slot, c)| rows[c * m * d + slot * d..][..d].to_vec())
        .collect();
    let codebook = match origin {
        CodebookOrigin::Owner => {
            BatchCodebook::encrypt(&scale, &key, &centroids, &mut rng).unwrap()
        }
        CodebookOrigin::Keeper => {
            let seed = MaskSeed::generate(&mut rng);
            let mut shares = SampleShares::new(&p, bounds);
            shares.append(&sample.shares(&seed)).unwrap();
            let mut labels = Labels::none(&p, batch);
            (0..m).for_each(|slot| (0..k).for_each(|c| labels.set(slot, c, c)));
            let means = shares.means(&labels).unwrap();
            let (masked, _) = keeper
                .encrypt_batch_codebook(&means, &scale, &mut rng)
                .unwrap();
            let masks = seed.means(&p, &bounds, &labels).unwrap();
            masked.unmask(&masks, &scale).unwrap().0
        }
    };
    let encrypted = BatchEncryptor::new(scale, key.clone())
        .unwrap()
        .encrypt(&rows, &mut rng)
        .unwrap();
    let embedding = Embedding::new(p.slots());
    let (mut squares, mut largest, mut count) = (0.0, 0f64, 0.0);
    for (block, parts) in codebook.blocks.iter().enumerate() {
        let zero = ZeroBlock::draw(&ring, ring.degree(), &mut rng);
        let left: Vec<_> = encrypted.parts.iter().map(|x| (&x.b, &x.a)).collect();
        let right: Vec<_> = parts.iter().map(|x| (&x.b, &x.a)).collect();
        let (mut c0, mut c1) = (Poly::zero(&ring), Poly::zero(&ring));
        tensor(&ring, &left, &right, &mut c0, &mut c1);
        c0.mul_accumulate(&ring, &[(key.b(), &zero.u)]);
        c1.mul_accumulate(&ring, &[(key.a(), &zero.u)]);
        let mut c2 = Poly::zero(&ring);
        let pairs: Vec<_> = left.iter().zip(&right).map(|(x, y)| (x.1, y.1)).collect();
        c2.mul_accumulate(&ring, &pairs);
        let key = keeper.key();
        c0.mul_accumulate(&ring, &[(&c1, key.s()), (&c2, key.s_squared())]);
        let sum = c0.into_coefficient(&ring);

        let mut exact = Rows::zero(p.slots(), batch);
        for slot in 0..m {
            for v in 0..batch {
                let product = |c: usize| -> f64 {
                    (0..d)
                        .map(|j| {
                            f64::from(rows[v * m * d + slot * d + j])
                                * f64::from(rows[c * m * d + slot * d + j])
                        })
                        .sum::<f64>()
                        * scale.product_scale()
                };
                exact.re[slot * batch + v] = product(2 * block);
                exact.im[slot * batch + v] = product(2 * block + 1);
            }
        }
        embedding.to_coefficients(&mut exact);
        for (i, want) in exact.re.iter().chain(&exact.im).enumerate() {
            let error = sum.centered(&ring, i) as f64 - want;
            squares += error * error;
            largest = largest.max(error.abs());
            count += 1.0;
        }
    }
    let measured = (squares / count).sqrt().log2();
    assert!(largest < scale.noise_bound(), "2^{:.1}", largest.log2());
    assert!(
        measured < scale.noise_bits() && measured > scale.noise_bits() - 2.5,
        "{origin:?}: measured 2^{measured:.2}, stated 2^{:.2}",
        scale.noise_bits()
    );
}

#[test]
fn the_measured_noise_is_what_the_scale_states() {
    measure(ParameterSet::N2048Q50, CodebookOrigin::Keeper);
    measure(ParameterSet::N2048Q50, CodebookOrigin::Owner);
}
