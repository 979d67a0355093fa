//! ChaCha20 key stream, sixteen blocks at a time.
//!
//! The variant with a 64-bit block counter and a 64-bit stream number (the
//! original one, as random number generators use it). The ring's samplers draw
//! tens of kilobytes a ciphertext, which makes the key stream, not the
//! arithmetic, their cost; wide vectors bring it down to that of a copy.

use crate::Arch;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Blocks of one [`Batch`].
pub const BATCH_BLOCKS: u64 = 16;

/// Key stream of sixteen consecutive blocks.
pub type Batch = [u8; 64 * BATCH_BLOCKS as usize];

/// "expand 32-byte k" as little-endian words.
const CONSTANT: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

const DOUBLE_ROUNDS: usize = 10;

/// Writes blocks `counter` to `counter + 15` (modulo 2^64) of a stream.
///
/// # Security
/// Constant time: additions, rotations and exclusive ors only.
pub fn fill(arch: Arch, key: &[u32; 8], stream: u64, counter: u64, out: &mut Batch) {
    match arch {
        #[cfg(target_arch = "x86_64")]
        Arch::Avx512(_) => {
            // SAFETY: an `Avx512` value proves the features of the kernel.
            unsafe { avx512::fill(key, stream, counter, out) }
        }
        #[cfg(target_arch = "x86_64")]
        Arch::Avx2(_) => {
            // SAFETY: an `Avx2` value proves the features of the kernel.
            unsafe { avx2::fill(key, stream, counter, out) }
        }
        _ => portable::fill(key, stream, counter, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: impl Fn(usize) -> u8) -> [u32; 8] {
        std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|j| bytes(4 * i + j))))
    }

    /// The published vectors for a zero key and for RFC 8439, section 2.3.2
    /// (whose 96-bit nonce and 32-bit counter give these 128 bits).
    #[test]
    fn known_answers() {
        for arch in Arch::available() {
            let mut out = [0; 1024];
            fill(arch, &[0; 8], 0, 0, &mut out);
            assert_eq!(
                out[..16],
                0x76b8_e0ad_a0f1_3d90_405d_6ae5_5386_bd28_u128.to_be_bytes(),
                "{}",
                arch.name()
            );
            let counter = 1 | 0x0900_0000 << 32;
            fill(arch, &key(|i| i as u8), 0x4a00_0000, counter, &mut out);
            assert_eq!(
                out[..16],
                0x10f1_e7e4_d13b_5915_500f_dd1f_a320_71c4_u128.to_be_bytes(),
                "{}",
                arch.name()
            );
        }
    }

    #[test]
    fn all_instruction_sets_agree_and_blocks_follow_each_other() {
        let key = key(|i| (i * 37 + 11) as u8);
        for counter in [0, 5, u64::from(u32::MAX) - 7, u64::MAX - 3] {
            let stream = 0x0123_4567_89ab_cdef;
            let run = |arch, counter| {
                let mut out = [0; 1024];
                fill(arch, &key, stream, counter, &mut out);
                out
            };
            let reference = run(Arch::available()[0], counter);
            for arch in Arch::available() {
                assert!(run(arch, counter) == reference, "{}", arch.name());
                let next = run(arch, counter.wrapping_add(1));
                assert!(next[..960] == reference[64..], "{}", arch.name());
            }
        }
    }
}
