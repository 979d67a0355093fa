//! A TPM 2.0: quotes of its PCRs, keys bound to them, and counters that never go back.
//!
//! [`Tpm`] talks to the kernel's device or to a software TPM over a socket; there is no library
//! in between, so nothing but Rust is needed. [`AttestationKey`] signs quotes,
//! [`SealingRoot`] derives keys, [`NvCounter`] counts. [`QuoteStatement`],
//! [`QuoteSignature`] and [`AttestationPublic`] read what a TPM signed, on any machine.
//! The words are those of the TPM 2.0 Library Specification.
//!
//! # Security
//! Commands carry no session secrets: who can alter what travels between this program
//! and the TPM can alter answers, except quotes, which are signed. A verifier believes
//! signed statements only.

#![cfg(unix)]

mod counter;
mod error;
mod pcr;
mod public;
mod quote;
mod sealing;
mod statement;
mod tpm;
mod transport;

pub use counter::{CounterAuth, MonotonicCounter, NvCounter};
pub use error::TpmError;
pub use pcr::{PcrSelection, PcrValues};
pub use public::{AttestationPublic, MAX_PUBLIC_BYTES, PublicKey};
pub use quote::{AttestationKey, KeyChoice, MAX_EXTRA_BYTES, Quote};
pub use sealing::SealingRoot;
pub use statement::{MAX_SIGNATURE_BYTES, MAX_STATEMENT_BYTES, QuoteSignature, QuoteStatement};
pub use tpm::Tpm;
pub use transport::Address;
