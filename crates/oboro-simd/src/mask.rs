//! Masks: which vectors of a block may become candidates.
//!
//! A mask is one 64-bit word a block; bit `i` stands for vector `i`.
//! [`passing`] makes masks from tags, [`hide`] applies them to scores. Which
//! instructions run and which addresses they touch does not depend on masks,
//! tags or filter.

use crate::Arch;
use crate::scan::{BLOCK, ROW};
use crate::select::NO_SCORE;
use std::hint::black_box;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// Turns the score of every vector whose bit is not set into [`NO_SCORE`].
///
/// * `masks`: a word a block,
/// * `scores`: 64 scores a block, ordered by [`crate::scan::position`].
///
/// # Panics
/// When the lengths do not fit together.
pub fn hide(arch: Arch, masks: &[u64], scores: &mut [u16]) {
    assert_eq!(scores.len(), masks.len() * BLOCK, "masks do not fit");
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernel.
        Arch::Avx512(_) => unsafe { avx512::oblivious_hide_avx512(masks, scores) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx2` value proves the features of the kernel.
        Arch::Avx2(_) => unsafe { avx2::oblivious_hide_avx2(masks, scores) },
        _ => oblivious_hide_portable(masks, scores),
    }
}

/// What tags must be like: see [`passing`].
#[derive(Clone, Copy)]
pub struct Wanted {
    /// At least one of these bits, unless this is zero.
    pub any: u64,
    /// All of these bits.
    pub all: u64,
    /// None of these bits.
    pub none: u64,
}

impl Wanted {
    /// All ones where `any` asks for nothing, otherwise zero.
    #[inline(always)]
    fn anything(&self) -> u64 {
        // Were it known that this is one of two values, the compiler would
        // make two loops of a loop that uses it, and a branch between them.
        black_box(((self.any | self.any.wrapping_neg()) >> 63).wrapping_sub(1))
    }
}

/// Takes the bits of those vectors out of `masks` whose tags are not as
/// wanted: bit `i` of a block's mask stays if it was set and, with `t` the
/// tags of vector `i`, `(any == 0 || t & any != 0) && t & all == all &&
/// t & none == 0`. Bits beyond the last vector are taken out.
///
/// # Panics
/// When `masks` has not one word for each 64 tags, rounded up.
pub fn passing(arch: Arch, tags: &[u64], wanted: &Wanted, masks: &mut [u64]) {
    assert_eq!(masks.len(), tags.len().div_ceil(BLOCK), "masks do not fit");
    let (blocks, rest) = tags.as_chunks::<BLOCK>();
    let (whole, last) = masks.split_at_mut(blocks.len());
    passing_blocks(arch, blocks, wanted, whole);
    if !rest.is_empty() {
        let mut block = [[0; BLOCK]];
        block[0][..rest.len()].copy_from_slice(rest);
        passing_blocks(arch, &block, wanted, last);
        last[0] &= (1 << rest.len()) - 1;
    }
}

fn passing_blocks(arch: Arch, tags: &[[u64; BLOCK]], wanted: &Wanted, masks: &mut [u64]) {
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernel.
        Arch::Avx512(_) => unsafe { avx512::oblivious_passing_avx512(tags, wanted, masks) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx2` value proves the features of the kernel.
        Arch::Avx2(_) => unsafe { avx2::oblivious_passing_avx2(tags, wanted, masks) },
        _ => oblivious_passing_portable(tags, wanted, masks),
    }
}

#[inline(never)]
fn oblivious_hide_portable(masks: &[u64], scores: &mut [u16]) {
    let (scores, _) = scores.as_chunks_mut::<BLOCK>();
    for (&mask, scores) in masks.iter().zip(scores) {
        let (even, odd) = scores.split_at_mut(ROW);
        for lane in 0..ROW {
            let hidden = |bit: usize| NO_SCORE * u16::from(mask >> bit & 1 == 0);
            even[lane] |= hidden(2 * lane);
            odd[lane] |= hidden(2 * lane + 1);
        }
    }
}

#[inline(never)]
fn oblivious_passing_portable(tags: &[[u64; BLOCK]], wanted: &Wanted, masks: &mut [u64]) {
    let anything = wanted.anything();
    for (tags, mask) in tags.iter().zip(masks) {
        let (mut hit, mut wrong) = (0, 0);
        for (i, &tags) in tags.iter().enumerate() {
            hit |= u64::from(tags & wanted.any != 0) << i;
            // What is asked for and missing, or there and not wanted.
            let against = !tags & wanted.all | tags & wanted.none;
            wrong |= u64::from(against != 0) << i;
        }
        *mask &= (hit | anything) & !wrong;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::position;

    struct Words(u64);

    impl Words {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    #[test]
    fn hidden_scores_agree_with_a_plain_loop_on_every_arch() {
        let mut words = Words(11);
        for blocks in [1, 2, 3, 8, 33] {
            let mut masks: Vec<u64> = (0..blocks).map(|_| words.next()).collect();
            masks[0] = 1 << (words.next() % 64);
            masks[blocks / 2] = u64::MAX;
            masks[blocks - 1] &= words.next() & words.next();
            let scores: Vec<u16> = (0..blocks * BLOCK).map(|_| words.next() as u16).collect();
            let mut expected = scores.clone();
            for (row, scores) in expected.chunks_exact_mut(ROW).enumerate() {
                for (lane, score) in scores.iter_mut().enumerate() {
                    let at = position(row, lane);
                    if masks[at / BLOCK] >> (at % BLOCK) & 1 == 0 {
                        *score = NO_SCORE;
                    }
                }
            }
            for arch in Arch::available() {
                let mut scores = scores.clone();
                hide(arch, &masks, &mut scores);
                assert_eq!(scores, expected, "{} {blocks}", arch.name());
            }
        }
    }

    #[test]
    fn passing_tags_agree_with_a_plain_loop_on_every_arch() {
        let mut words = Words(5);
        for len in [0usize, 1, 63, 64, 65, 127, 128, 200, 1000] {
            for case in 0..64 {
                // Few tags, so that each condition holds now and then.
                let tags: Vec<u64> = (0..len)
                    .map(|_| (words.next() & words.next()).rotate_left(case))
                    .collect();
                let mut bits = |used: bool| {
                    let one = 1 << (words.next() % 64) | 1u64 << (words.next() % 64);
                    if used { one } else { 0 }
                };
                let wanted = Wanted {
                    any: bits(case & 1 != 0),
                    all: bits(case & 2 != 0),
                    none: bits(case & 4 != 0),
                };
                let start: Vec<u64> = (0..len.div_ceil(BLOCK))
                    .map(|_| {
                        if case & 8 != 0 {
                            words.next()
                        } else {
                            u64::MAX
                        }
                    })
                    .collect();
                let mut expected = vec![0; start.len()];
                for (i, t) in tags.iter().enumerate() {
                    let pass = start[i / BLOCK] >> (i % BLOCK) & 1 == 1
                        && (wanted.any == 0 || t & wanted.any != 0)
                        && t & wanted.all == wanted.all
                        && t & wanted.none == 0;
                    expected[i / BLOCK] |= u64::from(pass) << (i % BLOCK);
                }
                for arch in Arch::available() {
                    let mut masks = start.clone();
                    passing(arch, &tags, &wanted, &mut masks);
                    assert_eq!(masks, expected, "{} {len} {case}", arch.name());
                }
            }
        }
    }

    #[test]
    fn a_bit_both_wanted_and_unwanted_lets_nothing_pass() {
        let wanted = Wanted {
            any: 0,
            all: 6,
            none: 4,
        };
        for arch in Arch::available() {
            let mut masks = [u64::MAX; 2];
            passing(
                arch,
                &[0, 2, 4, 6, u64::MAX].repeat(16),
                &wanted,
                &mut masks,
            );
            assert_eq!(masks, [0, 0], "{}", arch.name());
        }
    }
}
