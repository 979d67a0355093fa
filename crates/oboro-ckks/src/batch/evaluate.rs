//! The searcher's side: products, re-randomization, its share, decoding.

use std::ops::Range;
use std::sync::Arc;

use oboro_ring::{Coefficient, Poly, Ring, tensor};
use oboro_simd::{Arch, taint};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::assign::{Best, Nearest, oblivious_assign_block, oblivious_unmask_batch};
use super::wire::check_blocks;
use crate::embedding::{Embedding, Rows};
use crate::evaluate::ZeroBlock;
use crate::scale::LIMIT;
use crate::{
    BatchCodebook, BatchPacking, BatchScale, BatchTableShare, CkksError, EncryptedBatch,
    MaskedBatch, PublicKey,
};

/// The searcher's share of a batch's tables: c0 of every block, modulo q.
///
/// # Security
/// Together with the keeper's share it is the tables; zeroized on drop.
pub struct BatchSearcherShare {
    packing: BatchPacking,
    blocks: Range<usize>,
    values: Vec<u64>,
}

impl Drop for BatchSearcherShare {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl ZeroizeOnDrop for BatchSearcherShare {}

/// Evaluates the tables of batches against one codebook.
///
/// It has no state besides: any number of threads may share it.
pub struct BatchEvaluator {
    scale: BatchScale,
    key: PublicKey,
    codebook: BatchCodebook,
    ring: Arc<Ring>,
    embedding: Embedding,
}

impl BatchEvaluator {
    /// An evaluator for a codebook.
    ///
    /// # Errors
    /// When the parts belong to different parameter sets or packings.
    pub fn new(
        scale: BatchScale,
        key: PublicKey,
        codebook: BatchCodebook,
    ) -> Result<Self, CkksError> {
        if scale.set() != key.parameter_set() {
            return Err(CkksError::Mismatch {
                left: "the batch scale",
                right: "the public key",
            });
        }
        if codebook.packing() != scale.packing() {
            return Err(CkksError::Mismatch {
                left: "the batch codebook",
                right: "the batch scale",
            });
        }
        Ok(Self {
            ring: scale.set().ring(),
            embedding: Embedding::new(scale.packing().slots()),
            scale,
            key,
            codebook,
        })
    }

    /// The shape of batches and tables.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        self.scale.packing()
    }

    /// The scales.
    #[must_use]
    pub const fn scale(&self) -> &BatchScale {
        &self.scale
    }

    /// The codebook that is evaluated.
    #[must_use]
    pub const fn codebook(&self) -> &BatchCodebook {
        &self.codebook
    }

    /// Multiplies, re-randomizes, and splits: the share stays here, the masked
    /// products go to the keeper.
    ///
    /// The codebook is larger than the caches, so several batches are taken
    /// through it in one pass: four or eight are a good number. Each has its
    /// own generator, so that what comes out does not depend on the grouping.
    ///
    /// # Errors
    /// When there are not as many generators as batches, the blocks are none of
    /// the codebook's, or a batch belongs to another packing.
    ///
    /// # Security
    /// Every block takes a fresh encryption of zero from the generator. A
    /// generator must never be used for two different products.
    pub fn evaluate<R: CryptoRng>(
        &self,
        batches: &[&EncryptedBatch],
        blocks: Range<usize>,
        rngs: &mut [R],
    ) -> Result<Vec<(BatchSearcherShare, MaskedBatch)>, CkksError> {
        let p = self.packing();
        check_blocks(p, &blocks)?;
        if batches.len() != rngs.len() {
            return Err(CkksError::Length {
                what: "the list of generators",
                actual: rngs.len(),
                expected: batches.len(),
            });
        }
        if batches.iter().any(|batch| batch.packing() != p) {
            return Err(CkksError::Mismatch {
                left: "the batch",
                right: "the codebook",
            });
        }
        let degree = self.ring.degree();
        let mut outputs: Vec<(Vec<u64>, Vec<u8>)> = batches
            .iter()
            .map(|batch| {
                let length = MaskedBatch::encoded_len(p, blocks.len());
                let mut bytes = Vec::with_capacity(length);
                for part in &batch.parts {
                    part.a.pack(&self.ring, &mut bytes);
                }
                (Vec::with_capacity(blocks.len() * degree), bytes)
            })
            .collect();
        let left: Vec<Vec<_>> = batches
            .iter()
            .map(|batch| batch.parts.iter().map(|part| (&part.b, &part.a)).collect())
            .collect();
        let (drop_bits, bytes_each) = p.set().truncation();
        for block in blocks.clone() {
            let right: Vec<_> = self.codebook.blocks[block]
                .iter()
                .map(|part| (&part.b, &part.a))
                .collect();
            for ((left, rng), (share, bytes)) in left.iter().zip(&mut *rngs).zip(&mut outputs) {
                let zero = ZeroBlock::draw(&self.ring, degree, rng);
                let (mut c0, mut c1) = (Poly::zero(&self.ring), Poly::zero(&self.ring));
                tensor(&self.ring, left, &right, &mut c0, &mut c1);
                c0.mul_accumulate(&self.ring, &[(self.key.b(), &zero.u)]);
                c1.mul_accumulate(&self.ring, &[(self.key.a(), &zero.u)]);
                let mut c0 = c0.into_coefficient(&self.ring);
                c0.add_noise(&self.ring, &zero.e0);
                words(&self.ring, &c0, p.set().share_shift(), share);
                c0.zeroize();
                let mut c1 = c1.into_coefficient(&self.ring);
                c1.add_noise(&self.ring, &zero.e1);
                bytes.extend(c1.truncate(&self.ring, drop_bits, bytes_each)?);
            }
        }
        Ok(outputs
            .into_iter()
            .map(|(values, bytes)| {
                let share = BatchSearcherShare {
                    packing: *p,
                    blocks: blocks.clone(),
                    values,
                };
                (share, MaskedBatch::new(*p, blocks.clone(), bytes))
            })
            .collect())
    }

    /// Adds the shares and decodes the tables of all B vectors,
    /// `[vector][subquantizer][centroid]`; centroids outside the range of
    /// blocks stay zero.
    ///
    /// # Errors
    /// When the shares belong to another packing or other blocks, or the result
    /// lies outside its proven range: another key, or an altered message.
    pub fn tables(
        &self,
        share: &BatchSearcherShare,
        keeper: &BatchTableShare,
    ) -> Result<Vec<f32>, CkksError> {
        let p = *self.packing();
        let (m, k, batch) = (p.subquantizers(), p.centroids(), p.batch());
        let mut tables = vec![0f32; batch * p.table_len()];
        let outcome = self.decode(share, keeper, |block, rows, kernel| {
            let largest = oblivious_unmask_batch(kernel, rows);
            for (slot, (re, im)) in rows
                .re
                .chunks_exact(batch)
                .zip(rows.im.chunks_exact(batch))
                .take(m)
                .enumerate()
            {
                for (plane, centroid) in [(re, 2 * block), (im, 2 * block + 1)] {
                    if centroid < k {
                        for (v, &value) in plane.iter().enumerate() {
                            tables[(v * m + slot) * k + centroid] = value as f32;
                        }
                    }
                }
            }
            largest
        });
        if let Err(error) = outcome {
            tables.zeroize();
            return Err(error);
        }
        Ok(tables)
    }

    /// Adds the shares, decodes, and keeps for each vector and sub-space the
    /// centroid with the largest inner product plus offset
    /// (`[subquantizer][centroid]`, -|c|²/2 for the nearest centroid). Of equal
    /// ones the first wins.
    ///
    /// # Errors
    /// As [`BatchEvaluator::tables`]; also when the offsets have a wrong length.
    ///
    /// # Security
    /// Addresses and branches depend on the shape alone.
    pub fn assign(
        &self,
        share: &BatchSearcherShare,
        keeper: &BatchTableShare,
        offsets: &[f32],
    ) -> Result<Nearest, CkksError> {
        let p = *self.packing();
        if offsets.len() != p.table_len() {
            return Err(CkksError::Length {
                what: "the offsets",
                actual: offsets.len(),
                expected: p.table_len(),
            });
        }
        let mut best = Best::new(&p);
        self.decode(share, keeper, |block, rows, kernel| {
            oblivious_assign_block(kernel, rows, offsets, block, &p, &mut best)
        })?;
        Ok(best.finish(&p))
    }

    /// Runs `block` on every block; it gives the largest coefficient back.
    fn decode(
        &self,
        share: &BatchSearcherShare,
        keeper: &BatchTableShare,
        mut block: impl FnMut(usize, &mut Rows, &Kernel<'_>) -> i64,
    ) -> Result<(), CkksError> {
        let p = self.packing();
        if share.packing != *p || keeper.packing() != p || share.blocks != keeper.blocks() {
            return Err(CkksError::Mismatch {
                left: "the keeper's share",
                right: "the searcher's share",
            });
        }
        let degree = p.set().degree();
        let shift = p.set().share_shift();
        let modulus = (self.ring.modulus() >> shift) as u64;
        let mut rows = Rows::zero(p.slots(), p.batch());
        let mut largest = 0;
        let shares = share
            .values
            .chunks_exact(degree)
            .zip(keeper.values.chunks_exact(degree));
        for (index, (share, keeper)) in share.blocks.clone().zip(shares) {
            let kernel = Kernel {
                arch: Arch::detect(),
                embedding: &self.embedding,
                share,
                keeper,
                shift: self.scale.dropped_bits() - shift,
                modulus,
                factor: f64::from(shift).exp2() / self.scale.product_scale(),
            };
            largest = largest.max(block(index, &mut rows, &kernel));
        }
        rows.re.zeroize();
        rows.im.zeroize();
        // One bit leaves: the shares fit together, or the answer is an error.
        if taint::declassify(largest as f64 > LIMIT * modulus as f64) {
            return Err(CkksError::OutOfRange);
        }
        Ok(())
    }
}

/// The plain numbers that decoding one block takes.
pub(super) struct Kernel<'a> {
    pub(super) arch: Arch,
    pub(super) embedding: &'a Embedding,
    pub(super) share: &'a [u64],
    pub(super) keeper: &'a [u16],
    pub(super) shift: u32,
    pub(super) modulus: u64,
    pub(super) factor: f64,
}

/// Appends every coefficient without its `shift` low bits.
fn words(ring: &Ring, poly: &Poly<Coefficient>, shift: u32, out: &mut Vec<u64>) {
    if ring.limbs() == 1 {
        out.extend(poly.limb(0).iter().map(|&x| x >> shift));
        return;
    }
    let mut residues = poly.residues_at(ring, 0..ring.degree());
    out.extend(residues.iter().map(|&x| (x >> shift) as u64));
    residues.zeroize();
}
