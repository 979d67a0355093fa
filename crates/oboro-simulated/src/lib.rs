//! The simulated platform: evidence for trials.
//!
//! Its evidence has, byte for byte, the shape of AMD SEV-SNP's: a report of 1,184 bytes
//! signed with P-384, a certificate of that key with AMD's extensions, two authorities
//! with RSA-PSS above it and a revocation list. The code that verifies it is the code that
//! verifies SEV-SNP; only the root differs.
//!
//! # Security
//! It protects nothing and proves nothing: the signing key is part of this crate, so
//! whoever has the source can sign such evidence. Policies refuse it unless told
//! otherwise, and a release build of the servers does not contain this crate. A program
//! that does contains [`DEVELOPMENT_MARKER`].

use oboro_attest::snp::table::{self, EntryKind};
use oboro_attest::snp::{Product, REPORT_BYTES, Report, Root, SnpRules, SnpVerifier};
use oboro_attest::{
    AttestError, Attester, Claims, Evidence, Platform, PlatformVerifier, Rules, Sealer, Verified,
};
use p384::ecdsa::{Signature, SigningKey, signature::Signer};
use p384::pkcs8::DecodePrivateKey;
use std::sync::LazyLock;
use zeroize::Zeroizing;

/// A text that every program with this crate in it contains: the name of its root.
pub const DEVELOPMENT_MARKER: &str = "OBORO DEVELOPMENT ROOT - PROTECTS NOTHING";

/// The signing key; public on purpose.
const KEY: &[u8] = include_bytes!("../chain/vcek.key.der");
const LEAF: &[u8] = include_bytes!("../chain/vcek.der");
const INTERMEDIATE: &[u8] = include_bytes!("../chain/ask.der");
const ROOT: &[u8] = include_bytes!("../chain/ark.der");
const REVOCATION_LIST: &[u8] = include_bytes!("../chain/crl.der");

/// The simulated platform's measurement of a program: 48 bytes of BLAKE3.
#[must_use]
pub fn measure(program: &[u8]) -> [u8; 48] {
    let mut measurement = [0; 48];
    let mut hasher = blake3::Hasher::new_derive_key("oboro simulated measurement v1");
    hasher.update(program);
    hasher.finalize_xof().fill(&mut measurement);
    measurement
}

static SIGNING_KEY: LazyLock<SigningKey> = LazyLock::new(|| {
    SigningKey::from_pkcs8_der(KEY).expect("the development key is part of the program")
});

/// Signs evidence with the development key.
pub struct SimulatedAttester {
    measurement: [u8; 48],
}

impl SimulatedAttester {
    /// An attester that claims `measurement`, for which [`measure`] of the program's own
    /// file is the natural choice.
    #[must_use]
    pub fn new(measurement: [u8; 48]) -> Self {
        Self { measurement }
    }

    /// A signed report over `data`, as the firmware of a processor would make it.
    fn report(&self, data: &[u8; 64]) -> Vec<u8> {
        /// The TCB version and the chip that the certificate names.
        const TCB: [u8; 8] = [4, 0, 0, 0, 0, 0, 24, 219];
        const CHIP: [u8; 64] = [0x4f; 64];
        /// Ends of the signed part and of r.
        const SIGNED: usize = 0x2A0;
        const S: usize = SIGNED + 72;

        let mut report = vec![0; REPORT_BYTES];
        let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &3_u32.to_le_bytes());
        // Policy: the bit that must be set, and shared cores.
        put(0x08, &0x3_0000_u64.to_le_bytes());
        put(0x34, &1_u32.to_le_bytes());
        for tcb in [0x38, 0x180, 0x1E0, 0x1F0] {
            put(tcb, &TCB);
        }
        put(0x50, data);
        put(0x90, &self.measurement);
        // Family, model and stepping of a Milan.
        put(0x188, &[0x19, 0x01, 0x01]);
        put(0x1A0, &CHIP);
        let signature: Signature = SIGNING_KEY.sign(&report[..SIGNED]);
        let (r, s) = signature.split_bytes();
        for (at, scalar) in [(SIGNED, r), (S, s)] {
            for (to, from) in report[at..].iter_mut().zip(scalar.iter().rev()) {
                *to = *from;
            }
        }
        report
    }
}

impl Attester for SimulatedAttester {
    fn platform(&self) -> Platform {
        Platform::Simulated
    }

    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError> {
        Evidence {
            platform: Platform::Simulated,
            claims: *claims,
            statement: self.report(&claims.binding()),
            endorsements: table::encode(&[
                (EntryKind::Vcek, LEAF),
                (EntryKind::Intermediate, INTERMEDIATE),
                (EntryKind::RevocationList, REVOCATION_LIST),
            ])?,
        }
        .encode()
    }
}

/// Verifies evidence of [`SimulatedAttester`].
pub struct SimulatedVerifier;

impl PlatformVerifier for SimulatedVerifier {
    fn platform(&self) -> Platform {
        Platform::Simulated
    }

    fn verify(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        let Rules::Simulated(rules) = rules else {
            return Err(AttestError::Unsupported(Platform::Simulated));
        };
        let measurements = if rules.measurements.is_empty() {
            // Any program: the one that the report itself names.
            vec![Report::parse(statement)?.measurement.to_vec()]
        } else {
            rules.measurements.clone()
        };
        let rules = SnpRules {
            measurements,
            ..SnpRules::default()
        };
        let mut verified = SnpVerifier::with_roots(&[Root {
            product: Product::Milan,
            root: ROOT,
            intermediate: INTERMEDIATE,
        }])?
        .verify_report(statement, endorsements, &rules, now)?;
        verified
            .remarks
            .push("the simulated platform protects nothing".to_owned());
        Ok(verified)
    }
}

/// Derives keys that anyone can derive.
pub struct SimulatedSealer {
    measurement: [u8; 48],
}

impl SimulatedSealer {
    /// A sealer of the program with `measurement`.
    #[must_use]
    pub fn new(measurement: [u8; 48]) -> Self {
        Self { measurement }
    }
}

impl Sealer for SimulatedSealer {
    fn platform(&self) -> Platform {
        Platform::Simulated
    }

    fn sealing_key(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, AttestError> {
        let mut hasher = blake3::Hasher::new_derive_key("oboro simulated sealing v1");
        hasher.update(KEY);
        hasher.update(&self.measurement);
        hasher.update(purpose.as_bytes());
        Ok(Zeroizing::new(*hasher.finalize().as_bytes()))
    }
}
