use super::*;

/// The largest prime below 2^50 that is 1 mod 2^16, so fit for every degree.
const LARGE: u64 = 1_125_899_904_679_937;

/// Primes from tiny to the limit for a degree.
fn primes(degree: usize) -> Vec<u64> {
    // Trial division by small primes, then Fermat: enough to pick test inputs.
    let is_prime = |n: u64| {
        let modulus = Modulus::new(n);
        [3, 5, 7].iter().all(|&d| !n.is_multiple_of(d))
            && [2, 3, 5, 7, 11].iter().all(|&g| modulus.pow(g, n - 1) == 1)
    };
    let order = 2 * degree as u64;
    let mut primes = vec![LARGE];
    for limit in [1u64 << 50, 1 << 41, 1 << 30, 1 << 20] {
        let mut candidate = (limit - 2) / order * order + 1;
        while candidate > order && !is_prime(candidate) {
            candidate -= order;
        }
        if candidate > order {
            primes.push(candidate);
        }
    }
    primes
}

fn polynomial(degree: usize, p: u64, mut state: u64) -> Vec<u64> {
    (0..degree)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match state >> 61 {
                0 => p - 1,
                1 => 0,
                _ => (state >> 8) % p,
            }
        })
        .collect()
}

#[test]
fn values_are_at_the_odd_powers_in_bit_reversed_order() {
    for degree in [2, 4, 16, 32, 128] {
        for p in primes(degree) {
            let table = NttTable::new(degree, p);
            let modulus = table.modulus();
            // Entry n/2 holds the power with the reversed exponent, 1.
            let psi = table.forward.value[degree / 2];
            assert_eq!(modulus.pow(psi, degree as u64), p - 1);
            let x = polynomial(degree, p, 1);
            let mut values = x.clone();
            table.forward(Arch::available()[0], &mut values);
            for (i, &value) in values.iter().enumerate() {
                let reversed = i.reverse_bits() >> (usize::BITS - degree.trailing_zeros());
                let point = modulus.pow(psi, 2 * reversed as u64 + 1);
                let horner = x
                    .iter()
                    .rev()
                    .fold(0, |sum, &x| modulus.add(modulus.mul(sum, point), x));
                assert_eq!(value, horner, "n={degree} p={p} i={i}");
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_values_and_inverts_them() {
    for exponent in 1..=15 {
        let degree = 1 << exponent;
        for p in primes(degree) {
            let table = NttTable::new(degree, p);
            for input in [
                polynomial(degree, p, exponent),
                vec![p - 1; degree],
                (0..degree as u64)
                    .map(|i| if i % 2 == 0 { p - 1 } else { 0 })
                    .collect(),
                vec![p / 2; degree],
            ] {
                let mut values = input.clone();
                table.forward(Arch::available()[0], &mut values);
                let mut coefficients = input.clone();
                table.inverse(Arch::available()[0], &mut coefficients);
                for arch in Arch::available() {
                    let mut x = input.clone();
                    table.forward(arch, &mut x);
                    assert!(x == values, "forward, {} n={degree} p={p}", arch.name());
                    table.inverse(arch, &mut x);
                    assert!(x == input, "round trip, {} n={degree} p={p}", arch.name());
                    table.inverse(arch, &mut x);
                    assert!(
                        x == coefficients,
                        "inverse, {} n={degree} p={p}",
                        arch.name()
                    );
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "power of two")]
fn odd_degrees_are_refused() {
    let _ = NttTable::new(12, LARGE);
}

#[test]
#[should_panic(expected = "root of unity")]
fn primes_without_roots_are_refused() {
    let _ = NttTable::new(1024, 12_289 + 2);
}

#[test]
#[should_panic(expected = "not a prime")]
fn composites_are_refused() {
    let _ = NttTable::new(8, 17 * 97 * 113);
}

#[test]
#[should_panic(expected = "length differs")]
fn wrong_lengths_are_refused() {
    NttTable::new(8, 17).forward(Arch::detect(), &mut [0; 16]);
}
