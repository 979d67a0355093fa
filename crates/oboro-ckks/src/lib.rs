//! Encrypted distance tables of product quantization.
//!
//! A client encrypts a query, the searcher holds an encrypted codebook, and the
//! table of all inner products between the query's sub-vectors and the
//! centroids comes out of one level of ring multiplication: no
//! relinearization, no rotation, no rescaling, no evaluation keys.
//!
//! # The algebra
//! R = Z_q\[X\]/(X^N+1). A ciphertext is a pair (b, a) with b = m + e - a·s, so
//! that b + a·s = m + e. The product of a query (b_q, a_q) with a codebook block
//! (b_C, a_C) decrypts as c0 + c1·s + c2·s², where c0 = b_q·b_C,
//! c1 = b_q·a_C + a_q·b_C and c2 = a_q·a_C.
//!
//! # Who computes what
//! 1. The client encrypts under the public key ([`QueryEncryptor`]).
//! 2. The searcher multiplies, adds a fresh encryption of zero, **keeps c0** and
//!    sends c1 and a_q ([`TableEvaluator`]).
//! 3. The keeper computes the target coefficients of c1·s + c2·s², adds a
//!    dither and drops the low bits ([`MaskedDecryptor`]).
//! 4. The searcher adds the two shares and decodes ([`TableEvaluator::unmask`]).
//!
//! The table leaves the keeper as one of two additive shares modulo q. What
//! the keeper sees is c1, pseudorandom even to who holds s (it contains a·u with
//! a fresh u), and a_q, which the client drew at random: both are independent
//! of query and codebook.
//!
//! # Reading order
//! [`parameters`], [`packing`] (where each number lies), [`embedding`],
//! [`scale`] (noise), [`key`], [`query`], [`codebook`], [`evaluate`],
//! [`decrypt`], [`wire`]; [`mod@reencrypt`] rotates the key under a codebook,
//! [`randomness`] is where the roles get theirs. [`mod@batch`] encodes many
//! vectors in private, and [`mod@generation`] trains the codebook for that.

pub mod batch;
pub mod codebook;
pub mod decrypt;
pub mod embedding;
mod encrypt;
mod error;
pub mod evaluate;
pub mod generation;
pub mod key;
pub mod packing;
pub mod parameters;
pub mod query;
pub mod randomness;
pub mod reencrypt;
pub mod scale;
pub mod wire;

pub use batch::assign::Nearest;
pub use batch::codebook::{BatchCodebook, BatchCodebookMasks};
pub use batch::decrypt::PreparedBatchCodebook;
pub use batch::encrypt::{BatchEncryptor, EncryptedBatch};
pub use batch::evaluate::{BatchEvaluator, BatchSearcherShare};
pub use batch::packing::BatchPacking;
pub use batch::scale::{BatchScale, CodebookOrigin};
pub use batch::wire::{BatchTableShare, MaskedBatch};
pub use codebook::{CodebookMasks, EncryptedCodebook};
pub use decrypt::{MaskedDecryptor, PreparedCodebook};
pub use error::CkksError;
pub use evaluate::{SearcherShare, TableEvaluator, ZeroEncryption};
pub use generation::{
    BlindTrainer, DerivedRandomness, GenerationPlan, Labels, MaskSeed, MaskedBatchCodebook,
    MaskedOffsets, MeanShares, OffsetKeep, SampleBounds, SampleShares, Step, TrainedCodebook,
    TrainingPlan, TrainingSample, Work, WorkRows,
};
pub use key::{PublicKey, SecretKey};
pub use packing::Packing;
pub use parameters::ParameterSet;
pub use query::{EncryptedQuery, QueryEncryptor};
pub use randomness::Randomness;
pub use reencrypt::{CodebookMasking, MAX_ROTATIONS, MaskKeep, MaskedCodebook, reencrypt};
pub use scale::TableScale;
pub use wire::{MaskedProducts, TableShare};

/// Functions whose instruction and address trace must not depend on secrets;
/// the checks of `cargo xtask` look for these names in the emitted code.
pub const OBLIVIOUS_FUNCTIONS: &[&str] = &[
    "oblivious_unmask_block",
    "oblivious_drop_low_bits",
    "oblivious_unmask_batch",
    "oblivious_assign_block",
];
