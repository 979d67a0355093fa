//! Evidence of TPM 2.0 quotes.
//!
//! A quote says with which PCR values a TPM's machine was started and what has been
//! measured since; who verifies it learns what runs there as far as the boot chain
//! measures it. Firmware and boot loader measure up to the kernel and its initial file
//! system; that the program itself is part of what is measured (a unified kernel image, a
//! file system with verity) is the work of whoever builds the machine's image.
//!
//! The caller's data in a quote are 32 bytes that depend on the claims'
//! [`binding`](crate::Claims::binding): TPMs without SHA-512 do not take all its 64 bytes.
//!
//! # Security
//! A TPM keeps no memory from the host. Virtual TPMs of a confidential virtual machine do
//! protect it where the machine's own evidence says so, which is not looked at here.

mod attester;
mod endorsements;
mod rules;
mod statement;
mod verify;

pub use attester::{DEFAULT_PCRS, TpmAttester, TpmSealer, detect};
pub use endorsements::MAX_CERTIFICATES;
pub use rules::TpmRules;
pub use verify::TpmVerifier;

#[cfg(test)]
mod tests;
