//! Products against `fhe-math`, an independent implementation, in the rings of
//! both parameter sets.
#![allow(clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use fhe_math::ntt::NttOperator;
use fhe_math::zq::Modulus;
use oboro_ring::{Coefficient, Poly, Ring, prime, sample};
use oboro_simd::Arch;
use rand_core::SeedableRng;

#[test]
fn negacyclic_products_are_those_of_fhe_math() {
    for (degree, limbs) in [(2048, 1), (4096, 2)] {
        let primes = prime::largest_ntt_primes(degree, 50, limbs);
        for arch in Arch::available() {
            let ring = Ring::with_arch(arch, degree, &primes).unwrap();
            let mut rng = ChaCha20Rng::seed_from_u64(degree as u64);
            let inputs: [Poly<Coefficient>; 3] = [
                sample::uniform(&ring, &mut rng),
                sample::uniform(&ring, &mut rng),
                sample::ternary(&ring, &mut rng),
            ];
            let [a, b, s] = inputs.clone().map(|poly| poly.into_evaluation(&ring));
            // a b + b s, transformed back.
            let mut ours = a.mul(&ring, &b);
            ours.mul_accumulate(&ring, &[(&b, &s)]);
            let ours = ours.into_coefficient(&ring);
            for (limb, &p) in primes.iter().enumerate() {
                let modulus = Modulus::new(p).unwrap();
                let transform = NttOperator::new(&modulus, degree).unwrap();
                let [a, b, s] = [0, 1, 2].map(|i| {
                    let mut values = inputs[i].limb(limb).to_vec();
                    transform.forward(&mut values);
                    values
                });
                let (mut theirs, mut other) = (a, s);
                modulus.mul_vec(&mut theirs, &b);
                modulus.mul_vec(&mut other, &b);
                modulus.add_vec(&mut theirs, &other);
                transform.backward(&mut theirs);
                assert!(theirs == ours.limb(limb), "{} {p}", arch.name());
            }
        }
    }
}
