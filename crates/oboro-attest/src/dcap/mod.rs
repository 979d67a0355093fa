//! Evidence of Intel TDX and SGX: DCAP quotes.
//!
//! The statement is a quote: version 4 or 5 for TDX, version 3 for SGX. The
//! endorsements are *collateral*: Intel's signed TCB information, the identity of its
//! quoting enclave and two revocation lists, as the JSON object that the crate
//! `dcap-qvl` and the tools around it use. It comes with the evidence or lies beside the
//! policy ([`DcapRules::collateral`]). Nothing here uses a network or reads a clock.
//!
//! `dcap-qvl` verifies signatures, certificates, revocation, the quoting enclave and the
//! TCB level, with this crate's pinned root certificate and `aws-lc-rs`. On top of it:
//!
//! - the layout of a quote is strict: nothing may follow it, no length leaves a gap, the
//!   certificates are in one form of text, and the last one is the pinned root;
//! - debugging, profiling, migration, service domains, reserved bits, and a missing
//!   SEPT_VE_DISABLE are refused;
//! - the status is judged by rules, with a lowest TCB evaluation data number and a list
//!   of advisories that may apply;
//! - report data of zero are refused.
//!
//! There is an attester for TDX. There is none for SGX, because no program of Oboro runs
//! as an SGX enclave; the verifier is there for programs that a library operating system
//! runs in one.
//!
//! # Security
//! Verified offline against quotes that Intel's keys signed; never run by us on such
//! hardware.

mod attest;
mod collateral;
mod crypto;
mod layout;
mod rules;
mod verify;

pub use attest::TdxAttester;
pub use rules::{DcapRules, TcbStatus};
pub use verify::{SgxVerifier, TdxVerifier};

/// Intel's root certificate for SGX and TDX, in DER.
pub const INTEL_ROOT: &[u8] = include_bytes!("root/intel-sgx-root-ca.der");
