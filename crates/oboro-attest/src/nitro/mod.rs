//! Evidence of AWS Nitro Enclaves: attestation documents.
//!
//! The statement is a document as the Nitro Secure Module signs it, a COSE_Sign1 object
//! (RFC 9052) around a CBOR map. There are no endorsements: the document brings its
//! certificates, which must end in the pinned root of AWS. The claims' binding is its
//! `user_data`; `nonce` and `public_key` stay unused and must be absent, so that nothing
//! signed goes unread.
//!
//! Reading is strict: one encoding of the COSE object, one algorithm, no unknown or
//! repeated key, AWS's own limits on every length, no certificate that is not part of
//! the chain. Time is an argument.
//!
//! In a policy file:
//!
//! ```
//! # let register = "5a".repeat(48);
//! # let text = format!(r#"
//! version = 1
//!
//! [[accept]]
//! platform = "nitro"
//! role = "keeper"
//! measurements = ["{register}"]      # PCR 0: the enclave image
//! pcr1 = ["{register}"]              # kernel and boot file system
//! pcr2 = ["{register}"]              # the program
//! max-document-age = 300             # seconds, the default
//! # "#);
//! # oboro_attest::Policy::from_toml(&text, std::path::Path::new(".")).unwrap();
//! ```
//!
//! # Security
//! AWS documents validation without revocation lists; instead the certificates of an
//! enclave live for hours, those above it for days. Verified offline against documents
//! that AWS signed; never run by us on such hardware.

mod attest;
mod document;
mod rules;
mod verify;

pub use attest::NitroAttester;
pub use document::Document;
pub use rules::NitroRules;
pub use verify::NitroVerifier;

/// AWS's root certificate for Nitro Enclaves, in DER.
pub const AWS_ROOT: &[u8] = include_bytes!("root/aws-nitro-enclaves-root-g1.der");
