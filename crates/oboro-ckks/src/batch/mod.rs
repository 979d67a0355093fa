//! Tables of many vectors at once, for encoding them in private.
//!
//! The protocol is that of a query (see the crate's page) with another packing:
//! every coefficient of every ciphertext carries a number that is needed, so a
//! vector costs least, and nobody waits for a single one.
//!
//! 1. The owner encrypts batches of B vectors ([`crate::BatchEncryptor`]).
//! 2. The searcher multiplies with the codebook, adds a fresh encryption of
//!    zero to every block, keeps c0, and sends c1 and the a-parts of the batch
//!    ([`crate::BatchEvaluator::evaluate`]).
//! 3. The keeper returns its share, dithered
//!    ([`crate::MaskedDecryptor::decrypt_batches`]).
//! 4. The searcher adds the shares and keeps the nearest centroid of each
//!    sub-space: the code ([`crate::BatchEvaluator::assign`]).
//!
//! # What it costs
//! | N2048_Q50, M = 16, d = 8, K = 256 | a batch of 64 | a vector |
//! |---|---|---|
//! | owner to searcher | 205 KB | 3.2 KB |
//! | searcher to keeper | 889 KB | 13.9 KB |
//! | keeper to searcher | 524 KB | 8.2 KB |
//! | tensor products | 1,024 | 16 |
//!
//! # Security
//! As for queries: the keeper's view is pseudorandom even to the holder of the
//! key; the searcher sees tables in plaintext: codes, and with lengths and
//! products of centroids all that [`mod@crate::generation`] says. Offsets
//! (-|c|²/2) are known to the searcher and added after decoding.
//!
//! [`mod@scale`] has the noise. [`mod@crate::generation`] makes the codebook.

pub mod assign;
pub mod codebook;
pub mod decrypt;
pub mod encrypt;
pub mod evaluate;
pub mod packing;
pub mod scale;
pub mod wire;

#[cfg(test)]
mod tests;
