//! What the fuzz targets do with bytes.
//!
//! Each case feeds bytes to one decoder, or a family of them, and checks what must hold
//! for every input: it does not panic, and what it accepts it encodes to the same bytes
//! again. `fuzz/fuzz_targets` hands the cases to the fuzzer; `tests/replay.rs` replays
//! the seeds and the stored corpus as ordinary tests.

pub mod attest;
pub mod channel;
pub mod ckks;
pub mod config;
pub mod index;
pub mod keeper;
pub mod keys;
#[cfg(feature = "learn")]
pub mod learn;
pub mod protocol;
pub mod records;
pub mod seeds;
pub mod vectors;

// The decoders of `oboro learn` come with the feature `learn`, which tests have and the
// fuzzer has on demand: it builds all that trains networks.

/// Feeds bytes to a decoder; panics where something that must hold does not.
pub type Case = fn(&[u8]);

/// All cases by the name of their fuzz target.
pub const CASES: &[(&str, Case)] = &[
    ("evidence", attest::evidence),
    ("evidence_snp", attest::snp),
    ("evidence_dcap", attest::dcap),
    ("evidence_nitro", attest::nitro),
    ("evidence_tpm", attest::tpm),
    ("policy", attest::policy),
    ("certificates", channel::certificates),
    ("handshake", channel::handshake),
    ("ciphertexts", ckks::ciphertexts),
    ("ckks_keys", ckks::keys),
    ("messages", protocol::messages),
    ("manifest", index::manifest),
    ("descriptor", index::descriptor),
    ("segments", index::segments),
    ("record", index::record),
    ("index_parts", index::parts),
    ("key_files", keys::key_files),
    ("backup", keys::backup),
    ("keeper_state", keeper::state),
    ("configuration", config::configuration),
    ("vector_files", vectors::vector_files),
    ("records", records::records),
    ("parquet", records::parquet),
    ("arrow", records::arrow),
    #[cfg(feature = "learn")]
    ("learn_sets", learn::sets),
    #[cfg(feature = "learn")]
    ("learn_images", learn::images),
    #[cfg(feature = "learn")]
    ("learn_weights", learn::weights),
    #[cfg(feature = "learn")]
    ("learn_checkpoint", learn::checkpoint),
    #[cfg(feature = "learn")]
    ("learn_recipe", learn::recipe),
];
