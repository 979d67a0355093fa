//! Private vector search: search vectors on servers that you do not trust.
//!
//! An owner builds an encrypted index; a *searcher* evaluates and scans it
//! without any decryption key; a *keeper* decrypts masked tables without any
//! index; clients send queries that neither can read. `ARCHITECTURE.md` tells
//! how, `SECURITY.md` what is claimed and what is not.
//!
//! This crate is the command `oboro`, and the parts under one roof for
//! programs:
//!
//! | part | for |
//! |---|---|
//! | [`owner`] | building indexes |
//! | [`client`] | searching |
//! | [`session`] | blind builds, and changes of an index that is served |
//! | [`searcher`], [`keeper`], [`server`] | running the roles |
//! | [`index`] | keys, formats |
//! | [`channel`], [`attest`] | TLS identities, evidence |
//! | [`quant`], [`ckks`] | metrics and quantization, encrypted tables |
//! | [`vectors`] | files of vectors |
//!
//! # Example
//!
//! An owner's side: keys, an index of 300 small vectors, and what it holds.
//!
//! ```
//! use oboro::ckks::{ParameterSet, SecretKey};
//! use oboro::index::{Index, OwnerKey};
//! use oboro::owner::{BuildOptions, Owner, Rows};
//! use rand_core::SeedableRng;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut seed = [0; 32];
//! getrandom::fill(&mut seed)?;
//! let mut rng = chacha20::ChaCha20Rng::from_seed(seed);
//!
//! let owner_key = OwnerKey::generate(&mut rng);
//! let keeper_key = SecretKey::generate(ParameterSet::N2048Q50, &mut rng);
//! let public_key = keeper_key.public_key(&mut rng);
//!
//! let vectors: Vec<f32> = (0..300 * 8).map(|i| (i * 37 % 101) as f32).collect();
//! let folder = tempfile::tempdir()?;
//! let out = folder.path().join("example.oboro");
//! let options = BuildOptions { centroids: 16, ..BuildOptions::default() };
//! // The searcher's half of the keys of indexes, and the keeper's.
//! let (storage_key, release_key) = (owner_key.storage_key(), owner_key.release_key());
//! let report = Owner::new(owner_key, public_key).build(
//!     &mut Rows::new(&vectors, 8)?,
//!     &out,
//!     &options,
//!     &mut rng,
//! )?;
//! assert_eq!(report.encryption.security_bits, 139);
//!
//! let state = report.state;
//! let share = release_key.share(&state.index_id, state.epoch);
//! let key = storage_key.for_epoch(Some(&share), &state.index_id, state.epoch);
//! let index = Index::open(&out, &key)?;
//! assert_eq!(index.vectors(), 300);
//! # Ok(())
//! # }
//! ```

pub use oboro_attest as attest;
pub use oboro_channel as channel;
pub use oboro_ckks as ckks;
pub use oboro_client as client;
pub use oboro_index as index;
pub use oboro_keeper as keeper;
pub use oboro_owner as owner;
pub use oboro_quant as quant;
pub use oboro_searcher as searcher;
pub use oboro_server as server;
pub use oboro_session as session;
pub use oboro_vectors as vectors;
