use super::*;

/// Largest, smallest and middling moduli.
const MODULI: [u64; 6] = [
    3,
    17,
    12_289,
    (1 << 31) - 1,
    1_125_899_906_826_241,
    (1 << 50) - 1,
];

/// SplitMix64: test inputs need no more.
fn words(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn polynomials(count: usize, length: usize, p: u64, seed: u64) -> Vec<Vec<u64>> {
    let mut next = words(seed);
    let mut residue = move || match next() % 8 {
        0 => p - 1,
        1 => 0,
        2 => p / 2,
        _ => next() % p,
    };
    (0..count)
        .map(|_| (0..length).map(|_| residue()).collect())
        .collect()
}

#[test]
fn residues_agree_with_division() {
    let mut next = words(1);
    for p in MODULI {
        let modulus = Modulus::new(p);
        assert_eq!(modulus.value(), p);
        let edges = [0, 1, p - 1, p, p + 1, 2 * p, u64::MAX, u64::MAX - 1];
        for i in 0..2000 {
            let mut draw = || {
                let word = next();
                if i % 4 == 0 {
                    edges[word as usize % edges.len()]
                } else {
                    word
                }
            };
            let (x, y) = (draw(), draw());
            let wide = u128::from(x) << 64 | u128::from(y);
            assert_eq!(modulus.reduce(x), x % p);
            assert_eq!(u128::from(modulus.reduce_wide(wide)), wide % u128::from(p));
            let product = u128::from(x) * u128::from(y) % u128::from(p);
            assert_eq!(u128::from(modulus.mul(x, y)), product);
            let (a, b) = (x % p, y % p);
            assert_eq!(
                u128::from(modulus.mul_fixed(x, modulus.multiplier(b))),
                product
            );
            assert_eq!(modulus.add(a, b), (a + b) % p);
            assert_eq!(modulus.sub(a, b), (a + p - b) % p);
            assert_eq!(modulus.neg(a), (p - a) % p);
        }
    }
    let modulus = Modulus::new(12_289);
    assert_eq!(modulus.pow(11, 12_288), 1);
    assert_eq!(modulus.mul(modulus.inverse(1234), 1234), 1);
}

#[test]
fn element_wise_operations_agree_everywhere() {
    for p in MODULI {
        let modulus = Modulus::new(p);
        for length in [0, 1, 7, 64, 131] {
            let [a, b] = [0, 1].map(|i| polynomials(2, length, p, 2)[i].clone());
            for arch in Arch::available() {
                let apply = |f: &dyn Fn(&mut [u64])| {
                    let mut out = a.clone();
                    f(&mut out);
                    out
                };
                let expected = |f: &dyn Fn(u64, u64) -> u64| {
                    a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect::<Vec<_>>()
                };
                assert_eq!(
                    apply(&|out| add_assign(arch, &modulus, out, &b)),
                    expected(&|a, b| (a + b) % p)
                );
                assert_eq!(
                    apply(&|out| sub_assign(arch, &modulus, out, &b)),
                    expected(&|a, b| (a + p - b) % p)
                );
                assert_eq!(
                    apply(&|out| negate(arch, &modulus, out)),
                    expected(&|a, _| (p - a) % p)
                );
            }
        }
    }
}

/// By division, a product at a time.
fn sum_of_products(start: &[u64], pairs: &[Pair<'_>], p: u64) -> Vec<u64> {
    let p = u128::from(p);
    (0..start.len())
        .map(|i| {
            let terms = pairs
                .iter()
                .map(|(a, b)| u128::from(a[i]) * u128::from(b[i]) % p);
            ((u128::from(start[i]) + terms.sum::<u128>()) % p) as u64
        })
        .collect()
}

#[test]
fn sums_of_products_agree_with_division() {
    for p in MODULI {
        let modulus = Modulus::new(p);
        for (length, count) in [
            (0, 2),
            (3, 5),
            (4, 1),
            (12, 3),
            (24, 9),
            (64, 8),
            (104, 0),
            (200, 17),
            (8, MAX_PAIRS),
        ] {
            let polynomials = polynomials(4 * count + 2, length, p, count as u64);
            let pair = |i: usize| (&polynomials[i][..], &polynomials[i + 1][..]);
            let query: Vec<Pair<'_>> = (0..count).map(|i| pair(4 * i + 2)).collect();
            let block: Vec<Pair<'_>> = (0..count).map(|i| pair(4 * i + 4)).collect();
            let both = || query.iter().zip(&block);
            let direct: Vec<Pair<'_>> = both().map(|(q, c)| (q.0, c.0)).collect();
            let crossed: Vec<Pair<'_>> =
                both().flat_map(|(q, c)| [(q.0, c.1), (q.1, c.0)]).collect();
            let (start0, start1) = pair(0);
            let expected0 = sum_of_products(start0, &direct, p);
            let expected1 = sum_of_products(start1, &crossed, p);
            for arch in Arch::available() {
                let context = format!("{} p={p} n={length} m={count}", arch.name());
                let mut out = start0.to_vec();
                inner_product(arch, &modulus, &mut out, &direct);
                assert_eq!(out, expected0, "inner product, {context}");
                let (mut out0, mut out1) = (start0.to_vec(), start1.to_vec());
                tensor(arch, &modulus, &mut out0, &mut out1, &query, &block);
                assert_eq!(out0, expected0, "tensor, {context}");
                assert_eq!(out1, expected1, "tensor, {context}");
            }
        }
    }
}

#[test]
fn the_largest_sum_fits() {
    for p in MODULI {
        let modulus = Modulus::new(p);
        let largest = vec![p - 1; 72];
        let pairs: Vec<Pair<'_>> = vec![(&largest, &largest); MAX_PAIRS];
        let expected = ((p - 1) + (MAX_PAIRS as u64) % p) % p;
        let twice = ((p - 1) + (2 * MAX_PAIRS as u64) % p) % p;
        for arch in Arch::available() {
            let (mut out0, mut out1) = (largest.clone(), largest.clone());
            tensor(arch, &modulus, &mut out0, &mut out1, &pairs, &pairs);
            assert_eq!(out0, vec![expected; 72], "{} {p}", arch.name());
            assert_eq!(out1, vec![twice; 72], "{} {p}", arch.name());
        }
    }
}

#[test]
#[should_panic(expected = "exceed")]
fn too_many_pairs_are_refused() {
    let pairs: Vec<Pair<'_>> = vec![(&[1], &[1]); MAX_PAIRS + 1];
    inner_product(Arch::detect(), &Modulus::new(17), &mut [0], &pairs);
}

#[test]
#[should_panic(expected = "different lengths")]
fn ragged_pairs_are_refused() {
    inner_product(
        Arch::detect(),
        &Modulus::new(17),
        &mut [0; 8],
        &[(&[1; 8], &[1; 7])],
    );
}

#[test]
#[should_panic(expected = "not odd")]
fn wide_moduli_are_refused() {
    let _ = Modulus::new(MODULUS_LIMIT + 1);
}
