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
//! In a policy file:
//!
//! ```
//! # let register = "5a".repeat(48);
//! # let text = format!(r#"
//! version = 1
//!
//! [[accept]]
//! platform = "tdx"
//! role = "keeper"
//! measurements = ["{register}"]      # MRTD: the firmware
//! rtmr1 = ["{register}"]             # boot loader and kernel
//! rtmr2 = ["{register}"]             # command line and initial file system
//! minimum-tcb-evaluation = 20        # tcbEvaluationDataNumber of today's collateral
//! tcb-status = ["UpToDate"]          # the default
//! advisories-allowed = []            # the default
//! allow-smt = true                   # most clouds run two threads on a core,
//! allow-dynamic-platform = true      # on platforms that can be extended,
//! allow-cached-keys = true           # whose keys the vendor keeps
//! # "#);
//! # oboro_attest::Policy::from_toml(&text, std::path::Path::new(".")).unwrap();
//! ```
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
