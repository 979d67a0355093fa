//! The ring against schoolbook arithmetic, on every instruction set.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use chacha20::ChaCha20Rng;
use oboro_ring::{Coefficient, Evaluation, Poly, Ring, RingError, prime, sample, tensor};
use oboro_simd::Arch;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroize;

/// One small and two real rings, on each instruction set.
fn rings() -> Vec<Arc<Ring>> {
    let mut rings = Vec::new();
    for arch in Arch::available() {
        for (degree, bits, limbs) in [(8, 9, 1), (64, 30, 2), (256, 50, 1), (512, 50, 2)] {
            let primes = prime::largest_ntt_primes(degree, bits, limbs);
            rings.push(Ring::with_arch(arch, degree, &primes).unwrap());
        }
    }
    rings
}

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn coefficients(poly: &Poly<Coefficient>, ring: &Ring) -> Vec<u128> {
    poly.residues_at(ring, 0..ring.degree())
}

fn add_mod(a: u128, b: u128, q: u128) -> u128 {
    (a + b) % q
}

/// a * b mod q without overflow: q may have 100 bits.
fn mul_mod(mut a: u128, mut b: u128, q: u128) -> u128 {
    let mut sum = 0;
    while b > 0 {
        if b & 1 == 1 {
            sum = add_mod(sum, a, q);
        }
        a = add_mod(a, a, q);
        b >>= 1;
    }
    sum
}

/// By the definition: X^N = -1.
fn schoolbook(a: &[u128], b: &[u128], q: u128) -> Vec<u128> {
    let n = a.len();
    let mut out = vec![0; n];
    for i in 0..n {
        for j in 0..n {
            let product = mul_mod(a[i], b[j], q);
            let signed = if i + j < n {
                product
            } else {
                (q - product) % q
            };
            out[(i + j) % n] = add_mod(out[(i + j) % n], signed, q);
        }
    }
    out
}

#[test]
fn products_are_negacyclic_convolutions() {
    for ring in rings() {
        if ring.degree() > 256 && ring.limbs() == 2 && ring.arch().name() != "portable" {
            continue; // slow oracle; the equality test below covers it
        }
        let mut rng = rng(1);
        let a: Poly<Coefficient> = sample::uniform(&ring, &mut rng);
        let b = sample::ternary(&ring, &mut rng);
        let expected = schoolbook(
            &coefficients(&b, &ring),
            &coefficients(&a, &ring),
            ring.modulus(),
        );
        let product = a
            .into_evaluation(&ring)
            .mul(&ring, &b.into_evaluation(&ring))
            .into_coefficient(&ring);
        assert!(
            coefficients(&product, &ring) == expected,
            "{}",
            ring.arch().name()
        );
    }
}

#[test]
fn all_instruction_sets_give_the_same_bytes() {
    for (degree, limbs) in [(16, 1), (2048, 1), (4096, 2), (32768, 1)] {
        let primes = prime::largest_ntt_primes(degree, 50, limbs);
        let run = |arch| {
            let ring = Ring::with_arch(arch, degree, &primes).unwrap();
            let mut rng = rng(2);
            let mut bytes = Vec::new();
            let a: Poly<Evaluation> = sample::uniform(&ring, &mut rng);
            let b = sample::ternary(&ring, &mut rng);
            let c = sample::gaussian(&ring, &mut rng);
            b.pack(&ring, &mut bytes);
            c.pack(&ring, &mut bytes);
            let (b, c) = (b.into_evaluation(&ring), c.into_evaluation(&ring));
            b.pack(&ring, &mut bytes);
            let (mut out0, mut out1) = (a.clone(), b.clone());
            tensor(
                &ring,
                &[(&a, &b), (&b, &c)],
                &[(&c, &a), (&a, &a)],
                &mut out0,
                &mut out1,
            );
            out0.pack(&ring, &mut bytes);
            out1.negate(&ring);
            out1.sub_assign(&ring, &a);
            out1.add_assign(&ring, &c);
            out1.into_coefficient(&ring).pack(&ring, &mut bytes);
            bytes
        };
        let reference = run(Arch::available()[0]);
        for arch in Arch::available() {
            assert!(run(arch) == reference, "degree {degree} on {}", arch.name());
        }
    }
}

#[test]
fn tensor_is_made_of_products() {
    for ring in rings() {
        let mut rng = rng(3);
        let p: Vec<Poly<Evaluation>> = (0..10).map(|_| sample::uniform(&ring, &mut rng)).collect();
        let (mut out0, mut out1) = (p[8].clone(), p[9].clone());
        tensor(
            &ring,
            &[(&p[0], &p[1]), (&p[2], &p[3])],
            &[(&p[4], &p[5]), (&p[6], &p[7])],
            &mut out0,
            &mut out1,
        );
        let sum = |start: &Poly<Evaluation>, pairs: &[(usize, usize)]| {
            let mut sum = start.clone();
            for &(i, j) in pairs {
                sum.add_assign(&ring, &p[i].mul(&ring, &p[j]));
            }
            sum
        };
        assert!(out0 == sum(&p[8], &[(0, 4), (2, 6)]));
        assert!(out1 == sum(&p[9], &[(0, 5), (1, 4), (2, 7), (3, 6)]));
    }
}

#[test]
fn more_pairs_than_one_reduction_covers() {
    let primes = prime::largest_ntt_primes(8, 50, 1);
    let ring = Ring::new(8, &primes).unwrap();
    // All coefficients p - 1, whose square is 1.
    let largest = Poly::from_signed(&ring, &[-1, 0, 0, 0, 0, 0, 0, 0]).into_evaluation(&ring);
    let pairs = vec![(&largest, &largest); 5000];
    let mut sum = Poly::zero(&ring);
    sum.mul_accumulate(&ring, &pairs);
    assert_eq!(sum.into_coefficient(&ring).centered(&ring, 0), 5000);
    let (mut out0, mut out1) = (Poly::zero(&ring), Poly::zero(&ring));
    tensor(&ring, &pairs, &pairs, &mut out0, &mut out1);
    assert_eq!(out0.into_coefficient(&ring).centered(&ring, 0), 5000);
    assert_eq!(out1.into_coefficient(&ring).centered(&ring, 0), 10_000);
}

#[test]
fn signed_values_come_back_centred() {
    for ring in rings() {
        let q = ring.modulus() as i128;
        let half = q / 2;
        let mut values = vec![0; ring.degree()];
        values[..7].copy_from_slice(&[half, -half, half + 1, -half - 1, q, 1, -1]);
        let wide = Poly::from_signed_wide(&ring, &values);
        let expected = [half, -half, -half, half, 0, 1, -1];
        for (i, expected) in expected.into_iter().enumerate() {
            assert_eq!(wide.centered(&ring, i), expected, "{i}");
        }
        let mut narrow = vec![0; ring.degree()];
        narrow[..4].copy_from_slice(&[i64::MAX, i64::MIN, -5, 5]);
        let widened: Vec<i128> = narrow.iter().map(|&x| x.into()).collect();
        assert!(Poly::from_signed(&ring, &narrow) == Poly::from_signed_wide(&ring, &widened));
    }
}

#[test]
fn noise_is_added_modulo_every_prime() {
    let ring = Ring::new(1024, &prime::largest_ntt_primes(1024, 50, 2)).unwrap();
    let start: Vec<i64> = (0..1024).map(|i| i % 3 - 1).collect();
    let noise: Vec<i8> = (0..1024).map(|i| (i % 255 - 127) as i8).collect();
    let sum: Vec<i64> = start
        .iter()
        .zip(&noise)
        .map(|(&x, &e)| x + i64::from(e))
        .collect();
    let mut poly = Poly::from_signed(&ring, &start);
    poly.add_noise(&ring, &noise);
    assert!(poly == Poly::from_signed(&ring, &sum));
}

#[test]
#[should_panic(expected = "noise needs primes above it")]
fn noise_and_primes_are_checked() {
    let ring = Ring::new(8, &[17]).unwrap();
    Poly::<Coefficient>::zero(&ring).add_noise(&ring, &[0; 8]);
}

#[test]
#[should_panic(expected = "another ring")]
fn rings_do_not_mix() {
    let (small, large) = (
        Ring::new(8, &[17]).unwrap(),
        Ring::new(8, &[17, 97]).unwrap(),
    );
    Poly::<Coefficient>::zero(&small).add_assign(&large, &Poly::zero(&large));
}

#[test]
fn zeroize_leaves_zero() {
    let ring = Ring::new(8, &[17]).unwrap();
    let mut poly: Poly<Coefficient> = sample::uniform(&ring, &mut rng(4));
    poly.zeroize();
    assert!(poly == Poly::zero(&ring));
}

#[test]
fn fail_unpack() {
    for ring in rings() {
        let mut bytes = Vec::new();
        let poly: Poly<Coefficient> = sample::uniform(&ring, &mut rng(5));
        poly.pack(&ring, &mut bytes);
        assert_eq!(bytes.len(), Poly::<Coefficient>::packed_len(&ring));
        assert!(Poly::unpack(&ring, &bytes).ok().unwrap() == poly);
        let error = |bytes: &[u8]| Poly::<Coefficient>::unpack(&ring, bytes).err().unwrap();
        assert!(matches!(error(&bytes[1..]), RingError::Length { .. }));
        assert!(matches!(error(&[]), RingError::Length { .. }));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(error(&longer), RingError::Length { .. }));
        let last = bytes.len() - 1;
        bytes[last] = 0xff;
        bytes[last - 5..last].fill(0xff);
        let (limb, index) = (ring.limbs() - 1, ring.degree() - 1);
        assert_eq!(error(&bytes), RingError::Residue { limb, index });
    }
}

#[test]
fn residues_equal_to_the_prime_are_refused() {
    let ring = Ring::new(8, &[17]).unwrap();
    let mut bytes = vec![0; 50];
    bytes[0] = 16;
    assert!(Poly::<Evaluation>::unpack(&ring, &bytes).is_ok());
    bytes[0] = 17;
    assert!(Poly::<Evaluation>::unpack(&ring, &bytes).is_err());
}

#[test]
fn packed_bits_are_a_little_endian_stream() {
    let ring = Ring::new(8, &prime::largest_ntt_primes(8, 50, 1)).unwrap();
    let mut rng = rng(6);
    let poly: Poly<Coefficient> = sample::uniform(&ring, &mut rng);
    let mut bytes = Vec::new();
    poly.pack(&ring, &mut bytes);
    for (i, &residue) in poly.limb(0).iter().enumerate() {
        for bit in 0..50 {
            let at = 50 * i + bit;
            assert_eq!(u64::from(bytes[at / 8] >> (at % 8) & 1), residue >> bit & 1);
        }
    }
}

#[test]
fn truncation_keeps_the_high_bits() {
    for (degree, limbs, drop_bits, bytes) in [
        (2048, 1, 26, 3),
        (2048, 1, 18, 4),
        (2048, 1, 0, 7),
        (2048, 1, 0, 16),
        (1024, 2, 52, 6),
        (1024, 2, 0, 13),
        (1024, 2, 99, 1),
    ] {
        let ring = Ring::new(degree, &prime::largest_ntt_primes(degree, 50, limbs)).unwrap();
        let poly: Poly<Coefficient> = sample::uniform(&ring, &mut rng(7));
        let short = poly.truncate(&ring, drop_bits, bytes).unwrap();
        assert_eq!(short.len(), degree * bytes);
        let mut back = Poly::from_truncated(&ring, &short, drop_bits, bytes)
            .ok()
            .unwrap();
        back.sub_assign(&ring, &poly);
        let bound = (1i128 << drop_bits) >> 1;
        for i in 0..degree {
            assert!(back.centered(&ring, i).abs() <= bound);
        }
        assert!(matches!(
            Poly::from_truncated(&ring, &short[1..], drop_bits, bytes)
                .err()
                .unwrap(),
            RingError::Length { .. }
        ));
    }
}

#[test]
fn fail_truncation() {
    let ring = Ring::new(8, &prime::largest_ntt_primes(8, 50, 1)).unwrap();
    let zero = Poly::<Coefficient>::zero(&ring);
    for (drop_bits, bytes) in [(25, 3), (50, 3), (200, 3), (26, 0), (26, 17)] {
        assert!(matches!(
            zero.truncate(&ring, drop_bits, bytes),
            Err(RingError::Truncation { .. })
        ));
        assert!(Poly::from_truncated(&ring, &[], drop_bits, bytes).is_err());
    }
    // (q - 1) >> 25 is the largest value; 26 bits fit 4 bytes with room to spare.
    let mut bytes = [0; 32];
    bytes[28..].copy_from_slice(&(1u32 << 25).to_le_bytes());
    assert_eq!(
        Poly::from_truncated(&ring, &bytes, 25, 4).err().unwrap(),
        RingError::Residue { limb: 0, index: 7 }
    );
    let mut bytes = [0; 128];
    bytes[127] = 1;
    assert_eq!(
        Poly::from_truncated(&ring, &bytes, 0, 16).err().unwrap(),
        RingError::Residue { limb: 0, index: 7 }
    );
    let wide = Ring::new(8, &prime::largest_ntt_primes(8, 50, 2)).unwrap();
    let mut bytes = [0; 48];
    bytes[6..12].fill(0xff);
    assert_eq!(
        Poly::from_truncated(&wide, &bytes, 52, 6).err().unwrap(),
        RingError::Residue { limb: 0, index: 1 }
    );
}

#[test]
fn seeds_expand_as_documented() {
    let ring = Ring::new(16, &[97, 193]).unwrap();
    let (seed, stream) = ([7; 32], 9);
    let mut rng = ChaCha20Rng::from_seed(seed);
    rng.set_stream(stream);
    let poly = sample::uniform_from_seed(&ring, &seed, stream);
    for (limb, (p, mask)) in [(97, 127), (193, 255)].into_iter().enumerate() {
        for i in 0..16 {
            let expected = loop {
                let word = rng.next_u64() & mask;
                if word < p {
                    break word;
                }
            };
            assert_eq!(poly.limb(limb)[i], expected);
        }
    }
    assert!(poly == sample::uniform_from_seed(&ring, &seed, stream));
    assert!(poly != sample::uniform_from_seed(&ring, &seed, stream + 1));
}

#[test]
fn samplers_have_their_distributions() {
    let degree = 32768;
    let ring = Ring::new(degree, &prime::largest_ntt_primes(degree, 50, 1)).unwrap();
    let mut rng = rng(8);
    let n = degree as f64;
    let moments = |poly: &Poly<Coefficient>| {
        let values: Vec<f64> = (0..degree)
            .map(|i| poly.centered(&ring, i) as f64)
            .collect();
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|x| x * x).sum::<f64>() / n;
        let fourth = values.iter().map(|x| x.powi(4)).sum::<f64>() / n;
        let largest = values.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        (mean, variance, fourth, largest)
    };
    // Six standard errors each.
    let (mean, variance, _, largest) = moments(&sample::ternary(&ring, &mut rng));
    assert!(mean.abs() < 6.0 * (2.0 / 3.0 / n).sqrt() && largest == 1.0);
    assert!((variance - 2.0 / 3.0).abs() < 6.0 * (2.0 / 9.0 / n).sqrt());
    let (mean, variance, fourth, largest) = moments(&sample::gaussian(&ring, &mut rng));
    assert!(mean.abs() < 6.0 * (10.24 / n).sqrt() && largest <= 14.0);
    assert!((variance - 10.24).abs() < 6.0 * (210.0 / n).sqrt());
    // Fourth moment of a Gaussian: 3 v^2.
    assert!((fourth - 314.6).abs() < 30.0, "{fourth}");
    let values = sample::gaussian_values(1001, &mut rng);
    assert!(values.len() == 1001 && values.iter().all(|x| x.abs() <= 14));
}

proptest! {
    #[test]
    fn codecs_round_trip(seed: u64, drop_bits in 0u32..50) {
        let ring = Ring::new(16, &prime::largest_ntt_primes(16, 50, 1)).unwrap();
        let poly: Poly<Coefficient> = sample::uniform(&ring, &mut rng(seed));
        let mut bytes = Vec::new();
        poly.pack(&ring, &mut bytes);
        prop_assert!(Poly::unpack(&ring, &bytes).ok().unwrap() == poly);
        let width = (50 - drop_bits).div_ceil(8) as usize;
        let short = poly.truncate(&ring, drop_bits, width).unwrap();
        let back = Poly::from_truncated(&ring, &short, drop_bits, width).ok().unwrap();
        prop_assert_eq!(back.truncate(&ring, drop_bits, width).unwrap(), short);
    }

    #[test]
    fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), drop_bits: u32, width: usize) {
        let ring = Ring::new(16, &[97]).unwrap();
        let _ = Poly::<Evaluation>::unpack(&ring, &bytes);
        let _ = Poly::from_truncated(&ring, &bytes, drop_bits, width);
        let _ = Poly::from_truncated(&ring, &bytes, drop_bits % 8, 1 + width % 16);
    }

    #[test]
    fn transforms_undo_each_other(seed: u64) {
        for ring in rings() {
            let poly: Poly<Coefficient> = sample::uniform(&ring, &mut rng(seed));
            prop_assert!(poly.clone().into_evaluation(&ring).into_coefficient(&ring) == poly);
        }
    }
}
