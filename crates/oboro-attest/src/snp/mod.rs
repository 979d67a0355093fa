//! Evidence of AMD SEV-SNP.
//!
//! A report is signed with ECDSA P-384 by a key of the chip (VCEK) or of a cloud provider
//! (VLEK). Its certificate is issued by an authority of the product line (ASK, ASVK), and
//! that one's by AMD's root for the line (ARK), which is part of this program. Everything
//! that the report and the certificates say twice must agree: product, chip, TCB version.
//!
//! # Security
//! Signatures are checked over the bytes as they were received. A signature (r, s) has a
//! twin (r, n-s) that verifies as well; both give the same [`Identity`](crate::Identity),
//! and nothing else is made of the signature's bytes.

mod attest;
mod certificate;
mod product;
mod report;
mod rules;
pub mod table;
mod tcb;
mod verify;

#[cfg(test)]
mod roots_tests;

pub use attest::{SnpAttester, SnpSealer};
pub use product::Product;
pub use report::{GuestPolicy, REPORT_BYTES, Report, SigningKey};
pub use rules::{Revocation, SnpRules};
pub use tcb::Tcb;
pub use verify::{AMD_ROOTS, Root, SnpVerifier};
