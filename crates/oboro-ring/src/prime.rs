//! Primes with roots of unity for the transform. Public values, variable time.

/// Whether `n` is prime: Miller-Rabin with the bases that decide all 64-bit
/// numbers.
#[must_use]
pub fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 {
        return false;
    }
    for base in BASES {
        if n.is_multiple_of(base) {
            return n == base;
        }
    }
    let mul = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(n)) as u64;
    let shift = (n - 1).trailing_zeros();
    let odd = (n - 1) >> shift;
    BASES.iter().all(|&base| {
        let (mut x, mut square, mut exponent) = (1, base, odd);
        while exponent > 0 {
            if exponent & 1 == 1 {
                x = mul(x, square);
            }
            square = mul(square, square);
            exponent >>= 1;
        }
        if x == 1 || x == n - 1 {
            return true;
        }
        (1..shift).any(|_| {
            x = mul(x, x);
            x == n - 1
        })
    })
}

/// The `count` largest primes below 2^`bits` that are 1 mod 2·`degree`, in
/// descending order; fewer if there are not as many.
///
/// # Panics
/// When `bits` is over 62 or `degree` is zero or above 2^32.
#[must_use]
pub fn largest_ntt_primes(degree: usize, bits: u32, count: usize) -> Vec<u64> {
    assert!(bits <= 62, "primes of {bits} bits are not supported");
    assert!(
        (1..=1 << 32).contains(&degree),
        "degree {degree} is not supported"
    );
    let order = 2 * degree as u64;
    let steps = ((1u64 << bits) - 1).saturating_sub(1) / order;
    (1..=steps)
        .rev()
        .map(|step| step * order + 1)
        .filter(|&candidate| is_prime(candidate))
        .take(count)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_sieve() {
        let mut composite = vec![false; 20_000];
        for n in 2..composite.len() {
            assert_eq!(is_prime(n as u64), !composite[n], "{n}");
            for multiple in (n * n..composite.len()).step_by(n) {
                composite[multiple] = true;
            }
        }
        assert!(!is_prime(0) && !is_prime(1));
    }

    #[test]
    fn known_primes_and_pseudoprimes() {
        for prime in [(1 << 61) - 1, u64::MAX - 58, 1_000_000_007] {
            assert!(is_prime(prime), "{prime}");
        }
        // Strong pseudoprimes to the first bases, and Carmichael numbers.
        for composite in [
            3_215_031_751,
            3_474_749_660_383,
            341_550_071_728_321,
            561,
            1_729,
        ] {
            assert!(!is_prime(composite), "{composite}");
        }
    }

    #[test]
    fn ntt_primes_are_the_largest() {
        let primes = largest_ntt_primes(2048, 50, 3);
        assert_eq!(primes.len(), 3);
        let mut candidate = 1u64 << 50;
        for prime in primes {
            loop {
                candidate -= 1;
                if candidate % 4096 == 1 && is_prime(candidate) {
                    break;
                }
            }
            assert_eq!(prime, candidate);
        }
        assert_eq!(largest_ntt_primes(8, 5, 9), [17]);
        assert!(largest_ntt_primes(8, 0, 9).is_empty());
    }
}
