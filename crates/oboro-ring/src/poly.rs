//! Polynomials and their arithmetic.

use std::marker::PhantomData;

use aligned_vec::{AVec, CACHELINE_ALIGN};
use oboro_simd::modmul::{self, Modulus};
use zeroize::Zeroize;

use crate::ring::Ring;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Coefficient {}
    impl Sealed for super::Evaluation {}
}

/// In which form a polynomial is: [`Coefficient`] or [`Evaluation`].
pub trait Form: sealed::Sealed {}

/// Coefficients in natural order.
pub struct Coefficient;

/// Values at the odd powers of a 2N-th root of unity of each prime, in the
/// order of [`oboro_simd::ntt`].
pub struct Evaluation;

impl Form for Coefficient {}
impl Form for Evaluation {}

/// A polynomial of R_q: canonical residues, limb after limb, cache-aligned.
///
/// Methods take the ring it belongs to and panic when the sizes show that it
/// is of another. No `Debug`: it may be a secret.
pub struct Poly<F> {
    residues: AVec<u64>,
    degree: usize,
    form: PhantomData<F>,
}

impl<F> Clone for Poly<F> {
    fn clone(&self) -> Self {
        Self::from_residues(self.degree, self.residues.clone())
    }
}

/// Not in constant time: for public polynomials.
impl<F> PartialEq for Poly<F> {
    fn eq(&self, other: &Self) -> bool {
        self.degree == other.degree && self.residues == other.residues
    }
}

impl<F> Eq for Poly<F> {}

impl<F> Zeroize for Poly<F> {
    fn zeroize(&mut self) {
        self.residues.as_mut_slice().zeroize();
    }
}

impl<F> Poly<F> {
    /// The zero polynomial.
    #[must_use]
    pub fn zero(ring: &Ring) -> Self {
        let mut residues = AVec::with_capacity(CACHELINE_ALIGN, ring.degree() * ring.limbs());
        residues.resize(ring.degree() * ring.limbs(), 0);
        Self::from_residues(ring.degree(), residues)
    }

    /// Residues modulo prime `i`, one a coefficient.
    ///
    /// # Panics
    /// When there is no such limb.
    #[must_use]
    pub fn limb(&self, i: usize) -> &[u64] {
        &self.residues[i * self.degree..(i + 1) * self.degree]
    }

    /// Adds `other`.
    ///
    /// # Panics
    /// When either is of another ring.
    pub fn add_assign(&mut self, ring: &Ring, other: &Self) {
        other.check(ring);
        for (modulus, out, x) in self.zip(ring, other) {
            modmul::add_assign(ring.arch(), modulus, out, x);
        }
    }

    /// Subtracts `other`.
    ///
    /// # Panics
    /// When either is of another ring.
    pub fn sub_assign(&mut self, ring: &Ring, other: &Self) {
        other.check(ring);
        for (modulus, out, x) in self.zip(ring, other) {
            modmul::sub_assign(ring.arch(), modulus, out, x);
        }
    }

    /// Changes the sign.
    ///
    /// # Panics
    /// When `self` is of another ring.
    pub fn negate(&mut self, ring: &Ring) {
        for (modulus, out) in self.limbs_mut(ring) {
            modmul::negate(ring.arch(), modulus, out);
        }
    }

    pub(crate) const fn from_residues(degree: usize, residues: AVec<u64>) -> Self {
        Self {
            residues,
            degree,
            form: PhantomData,
        }
    }

    pub(crate) fn residues(&self) -> &[u64] {
        &self.residues
    }

    pub(crate) fn limbs<'a>(
        &'a self,
        ring: &'a Ring,
    ) -> impl Iterator<Item = (&'a Modulus, &'a [u64])> {
        self.check(ring);
        ring.moduli().zip(self.residues.chunks_exact(ring.degree()))
    }

    pub(crate) fn limbs_mut<'a>(
        &'a mut self,
        ring: &'a Ring,
    ) -> impl Iterator<Item = (&'a Modulus, &'a mut [u64])> {
        self.check(ring);
        ring.moduli()
            .zip(self.residues.chunks_exact_mut(ring.degree()))
    }

    fn zip<'a>(
        &'a mut self,
        ring: &'a Ring,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a Modulus, &'a mut [u64], &'a [u64])> {
        self.limbs_mut(ring)
            .zip(other.limbs(ring))
            .map(|((modulus, out), (_, x))| (modulus, out, x))
    }

    pub(crate) fn check(&self, ring: &Ring) {
        assert!(
            self.degree == ring.degree() && self.residues.len() == ring.degree() * ring.limbs(),
            "polynomial of another ring"
        );
    }

    fn cast<G>(self) -> Poly<G> {
        Poly::from_residues(self.degree, self.residues)
    }
}

impl Poly<Coefficient> {
    /// From N signed coefficients, each reduced modulo q.
    ///
    /// # Panics
    /// Unless there are exactly N.
    #[must_use]
    pub fn from_signed(ring: &Ring, coefficients: &[i64]) -> Self {
        Self::from_reduced(ring, coefficients, |modulus, x| {
            let magnitude = modulus.reduce(x.unsigned_abs());
            negate_if(modulus, magnitude, (x >> 63) as u64)
        })
    }

    /// From N signed coefficients, each reduced modulo q.
    ///
    /// # Panics
    /// Unless there are exactly N.
    #[must_use]
    pub fn from_signed_wide(ring: &Ring, coefficients: &[i128]) -> Self {
        Self::from_reduced(ring, coefficients, |modulus, x| {
            let magnitude = modulus.reduce_wide(x.unsigned_abs());
            negate_if(modulus, magnitude, (x >> 127) as u64)
        })
    }

    /// Adds N values of at most 127 in magnitude, such as noise.
    ///
    /// # Panics
    /// Unless there are exactly N, when a prime is below 256, or when `self`
    /// is of another ring.
    pub fn add_noise(&mut self, ring: &Ring, noise: &[i8]) {
        assert_eq!(noise.len(), ring.degree(), "one value a coefficient");
        let arch = ring.arch();
        for (modulus, limb) in self.limbs_mut(ring) {
            let p = modulus.value();
            assert!(p >= 256, "noise needs primes above it");
            arch.vectorize(
                #[inline(always)]
                || {
                    for (x, &e) in limb.iter_mut().zip(noise) {
                        // x + e + p lies in (0, 3 p): two reductions.
                        let sum = x.wrapping_add(p).wrapping_add_signed(i64::from(e));
                        let sum = sum.min(sum.wrapping_sub(p));
                        *x = sum.min(sum.wrapping_sub(p));
                    }
                },
            );
        }
    }

    /// To values, in place.
    ///
    /// # Panics
    /// When `self` is of another ring.
    #[must_use]
    pub fn into_evaluation(mut self, ring: &Ring) -> Poly<Evaluation> {
        self.check(ring);
        for (table, limb) in ring
            .tables()
            .iter()
            .zip(self.residues.chunks_exact_mut(ring.degree()))
        {
            table.forward(ring.arch(), limb);
        }
        self.cast()
    }

    /// Coefficient `index`, as the representative nearest zero.
    ///
    /// Same time whatever the coefficient; the index is taken as public.
    ///
    /// # Panics
    /// When there is no such coefficient, or `self` is of another ring.
    #[must_use]
    pub fn centered(&self, ring: &Ring, index: usize) -> i128 {
        self.check(ring);
        ring.composer().center(self.composed(ring, index))
    }

    /// The coefficients at these positions, in `[0, q)`.
    ///
    /// Same time whatever the coefficients; positions are taken as public.
    ///
    /// # Panics
    /// When there is no such coefficient, or `self` is of another ring.
    pub fn residues_at(&self, ring: &Ring, indexes: impl IntoIterator<Item = usize>) -> Vec<u128> {
        self.check(ring);
        let indexes = indexes.into_iter();
        if ring.limbs() == 1 {
            return indexes.map(|index| self.residues[index].into()).collect();
        }
        indexes.map(|index| self.composed(ring, index)).collect()
    }

    #[inline(always)]
    pub(crate) fn composed(&self, ring: &Ring, index: usize) -> u128 {
        assert!(index < self.degree, "no coefficient {index}");
        ring.composer()
            .compose(|limb| self.residues[limb * self.degree + index])
    }

    fn from_reduced<T: Copy>(
        ring: &Ring,
        coefficients: &[T],
        reduce: impl Fn(&Modulus, T) -> u64,
    ) -> Self {
        assert_eq!(coefficients.len(), ring.degree(), "one value a coefficient");
        let mut poly = Self::zero(ring);
        for (modulus, limb) in poly.limbs_mut(ring) {
            for (out, &x) in limb.iter_mut().zip(coefficients) {
                *out = reduce(modulus, x);
            }
        }
        poly
    }
}

impl Poly<Evaluation> {
    /// To coefficients, in place.
    ///
    /// # Panics
    /// When `self` is of another ring.
    #[must_use]
    pub fn into_coefficient(mut self, ring: &Ring) -> Poly<Coefficient> {
        self.check(ring);
        for (table, limb) in ring
            .tables()
            .iter()
            .zip(self.residues.chunks_exact_mut(ring.degree()))
        {
            table.inverse(ring.arch(), limb);
        }
        self.cast()
    }

    /// The product.
    ///
    /// # Panics
    /// When either is of another ring.
    #[must_use]
    pub fn mul(&self, ring: &Ring, other: &Self) -> Self {
        let mut out = Self::zero(ring);
        out.mul_accumulate(ring, &[(self, other)]);
        out
    }

    /// Adds the sum of the products of all pairs.
    ///
    /// # Panics
    /// When one is of another ring.
    pub fn mul_accumulate(&mut self, ring: &Ring, pairs: &[(&Self, &Self)]) {
        for pairs in pairs.chunks(modmul::MAX_PAIRS) {
            for (i, (modulus, out)) in self.limbs_mut(ring).enumerate() {
                modmul::inner_product(ring.arch(), modulus, out, &limb_pairs(ring, pairs, i));
            }
        }
    }
}

/// The first two parts of a sum of ciphertext products, accumulated.
///
/// For each query ciphertext `(b, a)` and block ciphertext `(b', a')` of the
/// same position, `out0 += b * b'` and `out1 += b * a' + a * b'`. The third
/// part, `a * a'`, is public and left to whoever holds the key.
///
/// # Panics
/// When one is of another ring, or there are not as many query as block
/// ciphertexts.
pub fn tensor(
    ring: &Ring,
    query: &[(&Poly<Evaluation>, &Poly<Evaluation>)],
    block: &[(&Poly<Evaluation>, &Poly<Evaluation>)],
    out0: &mut Poly<Evaluation>,
    out1: &mut Poly<Evaluation>,
) {
    assert_eq!(
        query.len(),
        block.len(),
        "as many query as block ciphertexts"
    );
    for (query, block) in query
        .chunks(modmul::MAX_PAIRS)
        .zip(block.chunks(modmul::MAX_PAIRS))
    {
        let outs = out0.limbs_mut(ring).zip(out1.limbs_mut(ring));
        for (i, ((modulus, out0), (_, out1))) in outs.enumerate() {
            let (query, block) = (limb_pairs(ring, query, i), limb_pairs(ring, block, i));
            modmul::tensor(ring.arch(), modulus, out0, out1, &query, &block);
        }
    }
}

/// Limb `i` of each polynomial.
fn limb_pairs<'a>(
    ring: &Ring,
    pairs: &[(&'a Poly<Evaluation>, &'a Poly<Evaluation>)],
    i: usize,
) -> Vec<modmul::Pair<'a>> {
    pairs
        .iter()
        .map(|(a, b)| {
            a.check(ring);
            b.check(ring);
            (a.limb(i), b.limb(i))
        })
        .collect()
}

/// `-x` where `mask` is all ones, `x` where it is zero.
#[inline(always)]
const fn negate_if(modulus: &Modulus, x: u64, mask: u64) -> u64 {
    (modulus.neg(x) & mask) | (x & !mask)
}
