//! The searcher's side: products, re-randomization, its share, decoding.

use std::sync::Arc;

use oboro_ring::{Coefficient, Evaluation, Poly, Ring, sample, tensor};
use oboro_simd::{Arch, taint};
use rand_core::CryptoRng;
use zeroize::Zeroize;

use crate::embedding::{Embedding, Rows};
use crate::scale::LIMIT;
use crate::{
    CkksError, CodebookMasks, EncryptedCodebook, EncryptedQuery, MaskedProducts, Packing,
    PublicKey, TableScale, TableShare,
};

/// Fresh encryptions of zero for one query, one a block, made ahead of time.
///
/// # Security
/// [`TableEvaluator::evaluate`] takes it by value: it cannot be used twice.
/// Zeroized on drop.
pub struct ZeroEncryption {
    blocks: Vec<ZeroBlock>,
}

/// What one block's encryption of zero is made of.
pub(crate) struct ZeroBlock {
    /// The ephemeral secret, in evaluation form.
    pub(crate) u: Poly<Evaluation>,
    /// Error of the a-part, added after the inverse transform.
    pub(crate) e1: Vec<i8>,
    /// Errors of the b-part, at the targets only.
    pub(crate) e0: Vec<i8>,
}

impl ZeroBlock {
    pub(crate) fn draw(ring: &Ring, targets: usize, rng: &mut impl CryptoRng) -> Self {
        Self {
            u: sample::ternary(ring, rng).into_evaluation(ring),
            e1: sample::gaussian_values(ring.degree(), rng),
            e0: sample::gaussian_values(targets, rng),
        }
    }
}

impl Drop for ZeroBlock {
    fn drop(&mut self) {
        self.u.zeroize();
        self.e1.zeroize();
        self.e0.zeroize();
    }
}

/// The searcher's share of a table: c0 at the targets, modulo q.
///
/// # Security
/// Together with the keeper's share it is the table; zeroized on drop.
pub struct SearcherShare {
    packing: Packing,
    values: Vec<u64>,
}

impl Drop for SearcherShare {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

/// Evaluates encrypted distance tables for one index.
pub struct TableEvaluator {
    packing: Packing,
    scale: TableScale,
    key: PublicKey,
    codebook: EncryptedCodebook,
    ring: Arc<Ring>,
    embedding: Embedding,
    indexes: Vec<usize>,
}

impl TableEvaluator {
    /// An evaluator for an index.
    ///
    /// # Errors
    /// When the parts belong to different parameter sets or packings.
    pub fn new(
        packing: Packing,
        scale: TableScale,
        key: PublicKey,
        codebook: EncryptedCodebook,
    ) -> Result<Self, CkksError> {
        if packing.set() != key.parameter_set() || packing.set() != scale.set() {
            return Err(CkksError::Mismatch {
                left: "the packing",
                right: "the public key",
            });
        }
        if *codebook.packing() != packing {
            return Err(CkksError::Mismatch {
                left: "the codebook",
                right: "the packing",
            });
        }
        Ok(Self {
            packing,
            scale,
            key,
            codebook,
            ring: packing.set().ring(),
            embedding: Embedding::new(packing.slots()),
            indexes: packing.target_indexes().collect(),
        })
    }

    /// The shape of queries and tables.
    #[must_use]
    pub const fn packing(&self) -> &Packing {
        &self.packing
    }

    /// The codebook that is evaluated.
    #[must_use]
    pub const fn codebook(&self) -> &EncryptedCodebook {
        &self.codebook
    }

    /// What the keeper has to register before it can answer.
    #[must_use]
    pub fn masks(&self) -> CodebookMasks {
        self.codebook.masks()
    }

    /// Draws the encryptions of zero for one query.
    #[must_use]
    pub fn zero(&self, rng: &mut impl CryptoRng) -> ZeroEncryption {
        let targets = self.packing.targets_per_block();
        let blocks = (0..self.packing.blocks())
            .map(|_| ZeroBlock::draw(&self.ring, targets, rng))
            .collect();
        ZeroEncryption { blocks }
    }

    /// Multiplies, re-randomizes, and splits: the share stays here, the
    /// masked products go to the keeper.
    ///
    /// # Errors
    /// When the query or the encryption of zero belongs to another packing.
    pub fn evaluate(
        &self,
        query: &EncryptedQuery,
        zero: ZeroEncryption,
    ) -> Result<(SearcherShare, MaskedProducts), CkksError> {
        let p = &self.packing;
        if query.packing() != p || zero.blocks.len() != p.blocks() {
            return Err(CkksError::Mismatch {
                left: "the query",
                right: "the index",
            });
        }
        let mut values = Vec::with_capacity(p.blocks() * p.targets_per_block());
        let mut bytes = Vec::with_capacity(MaskedProducts::encoded_len(p));
        for part in &query.parts {
            part.a.pack(&self.ring, &mut bytes);
        }
        let (drop_bits, bytes_each) = p.set().truncation();
        for (block, zero) in zero.blocks.iter().enumerate() {
            let (c0, c1) = self.product(query, block, Some(&zero.u));
            let c0 = c0.into_coefficient(&self.ring);
            self.share(&c0, &zero.e0, &mut values);
            let mut c1 = c1.into_coefficient(&self.ring);
            c1.add_noise(&self.ring, &zero.e1);
            bytes.extend(c1.truncate(&self.ring, drop_bits, bytes_each)?);
        }
        Ok((
            SearcherShare {
                packing: *p,
                values,
            },
            MaskedProducts { packing: *p, bytes },
        ))
    }

    /// (c0, c1) of one block, in evaluation form; without `u` it is not yet
    /// fit for the keeper's eyes.
    fn product(
        &self,
        query: &EncryptedQuery,
        block: usize,
        u: Option<&Poly<Evaluation>>,
    ) -> (Poly<Evaluation>, Poly<Evaluation>) {
        let block = &self.codebook.blocks[block];
        let (mut c0, mut c1) = match &block.offsets {
            Some(offsets) => (offsets.b.clone(), offsets.a.clone()),
            None => (Poly::zero(&self.ring), Poly::zero(&self.ring)),
        };
        let left: Vec<_> = query.parts.iter().map(|part| (&part.b, &part.a)).collect();
        let right: Vec<_> = block.parts.iter().map(|part| (&part.b, &part.a)).collect();
        tensor(&self.ring, &left, &right, &mut c0, &mut c1);
        if let Some(u) = u {
            c0.mul_accumulate(&self.ring, &[(self.key.b(), u)]);
            c1.mul_accumulate(&self.ring, &[(self.key.a(), u)]);
        }
        (c0, c1)
    }

    /// c0 + e0 at the targets, shifted so that it fits 50 bits.
    fn share(&self, c0: &Poly<Coefficient>, e0: &[i8], out: &mut Vec<u64>) {
        let shift = self.packing.set().share_shift();
        let modulus = self.ring.modulus();
        let mut residues = c0.residues_at(&self.ring, self.indexes.iter().copied());
        out.extend(residues.iter().zip(e0).map(|(&x, &e)| {
            // x + e mod q without a branch: e is below q in absolute value.
            let sum = x as i128 + i128::from(e);
            let sum = sum + (modulus as i128 & (sum >> 127));
            let reduced = sum - modulus as i128;
            let sum = reduced + (modulus as i128 & (reduced >> 127));
            (sum as u128 >> shift) as u64
        }));
        residues.zeroize();
    }

    /// Adds the shares and decodes the table, `[subquantizer][centroid]`:
    /// inner product plus offset, **larger is nearer**.
    ///
    /// # Errors
    /// When the share belongs to another packing, or the result lies outside
    /// its proven range: another key, or an altered message.
    pub fn unmask(
        &self,
        share: &SearcherShare,
        keeper: &TableShare,
    ) -> Result<Vec<f32>, CkksError> {
        let p = &self.packing;
        if share.packing != *p || keeper.packing() != p {
            return Err(CkksError::Mismatch {
                left: "the table share",
                right: "the index",
            });
        }
        let arch = Arch::detect();
        let shift = p.set().share_shift();
        let targets = p.targets_per_block();
        let mut table = vec![0f32; p.table_len()];
        let mut rows = Rows::zero(p.slots(), p.positions());
        let mut largest = 0i64;
        let modulus = (self.ring.modulus() >> shift) as u64;
        for block in 0..p.blocks() {
            let range = block * targets..(block + 1) * targets;
            let at_block = oblivious_unmask_block(
                arch,
                &self.embedding,
                &share.values[range.clone()],
                &keeper.values[range],
                self.scale.dropped_bits() - shift,
                modulus,
                (f64::from(shift)).exp2() / self.scale.product_scale(),
                &mut rows,
            );
            largest = largest.max(at_block);
            let first = block * p.centroids_per_block();
            for (slot, entries) in table.chunks_exact_mut(p.centroids()).enumerate() {
                let row = slot * p.positions()..(slot + 1) * p.positions();
                for (plane, start) in [(&rows.re, first), (&rows.im, first + p.positions())] {
                    for (entry, &value) in entries.iter_mut().skip(start).zip(&plane[row.clone()]) {
                        *entry = value as f32;
                    }
                }
            }
        }
        rows.re.zeroize();
        rows.im.zeroize();
        // One bit leaves: the shares fit together, or the answer is an error.
        if taint::declassify(largest as f64 > LIMIT * modulus as f64) {
            table.zeroize();
            return Err(CkksError::OutOfRange);
        }
        Ok(table)
    }
}

/// Adds two shares of a block modulo q, centres, scales and embeds them into
/// `rows`; returns the largest absolute coefficient.
#[allow(
    clippy::too_many_arguments,
    reason = "a kernel: every value is a plain number"
)]
#[inline(never)]
fn oblivious_unmask_block(
    arch: Arch,
    embedding: &Embedding,
    share: &[u64],
    keeper: &[u16],
    shift: u32,
    modulus: u64,
    factor: f64,
    rows: &mut Rows,
) -> i64 {
    arch.vectorize(
        #[inline(always)]
        || {
            let half = share.len() / 2;
            let mut largest = 0i64;
            let add = |x: u64, v: u16| {
                // The keeper's value may lie one step above q, so reduce twice.
                let sum = x + (u64::from(v) << shift);
                let sum = sum.min(sum.wrapping_sub(modulus));
                let sum = sum.min(sum.wrapping_sub(modulus));
                // Above q/2 stands for a negative number.
                let negative = ((modulus / 2).wrapping_sub(sum) as i64) >> 63;
                sum as i64 - (modulus as i64 & negative)
            };
            for (plane, shares, values) in [
                (&mut rows.re, &share[..half], &keeper[..half]),
                (&mut rows.im, &share[half..], &keeper[half..]),
            ] {
                for ((out, &x), &v) in plane.iter_mut().zip(shares).zip(values) {
                    let centred = add(x, v);
                    largest = largest.max(centred.abs());
                    *out = centred as f64 * factor;
                }
            }
            embedding.to_slots(rows);
            largest
        },
    )
}

#[cfg(test)]
mod tests;
