//! One file for each verb.

pub(crate) mod attest;
pub(crate) mod backup;
pub(crate) mod bench;
mod bench_build;
mod bench_insert;
pub(crate) mod bench_measured;
mod blind;
pub(crate) mod build;
mod built;
pub(crate) mod compact;
pub(crate) mod connection;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod doctor;
mod enclave;
mod estimate;
pub(crate) mod eval;
mod filter;
pub(crate) mod generator;
pub(crate) mod grant;
pub(crate) mod insert;
pub(crate) mod inspect;
pub(crate) mod keeper;
pub(crate) mod keygen;
#[cfg(feature = "learn")]
pub(crate) mod learn;
#[cfg(not(feature = "learn"))]
#[path = "learn_absent.rs"]
pub(crate) mod learn;
mod lorentz;
mod low_recall;
mod recalls;
mod registry;
pub(crate) mod renew;
pub(crate) mod restore;
pub(crate) mod revoke;
pub(crate) mod rotate;
mod saved_words;
pub(crate) mod search;
pub(crate) mod searcher;
pub(crate) mod serve;
mod trials;
pub(crate) mod verify;
