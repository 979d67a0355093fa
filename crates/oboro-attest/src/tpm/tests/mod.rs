//! Quotes made by hand, signed with a key of the test's own: what no TPM would say can be
//! said with a correct signature.

#![allow(clippy::unwrap_used)]

mod chain;
mod quotes;
mod rules;
mod vendor;

use super::rules::TpmRules;
use super::statement::{Statement, extra_data};
use super::{TpmVerifier, endorsements};
use crate::{AttestError, PlatformVerifier, Rules, Verified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use oboro_tpm::{PcrSelection, PcrValues, Quote};
use sha2::{Digest, Sha256};

const NOW: u64 = 1_800_000_000;
const BINDING: [u8; 64] = [0x5a; 64];

/// What a quote by hand consists of; tests change one thing.
#[derive(Clone)]
struct Made {
    magic: [u8; 4],
    kind: [u8; 2],
    attributes: [u8; 4],
    extra: Vec<u8>,
    pcrs: PcrValues,
    /// Another digest than that of the values.
    digest: Option<[u8; 32]>,
    binding: [u8; 64],
}

impl Default for Made {
    fn default() -> Self {
        Self {
            magic: [0xff, b'T', b'C', b'G'],
            kind: [0x80, 0x18],
            // Fixed to its TPM and parent, made by it, used with its password, restricted
            // to signing.
            attributes: [0, 5, 0, 0x72],
            extra: extra_data(&BINDING).to_vec(),
            pcrs: values([0, 4, 7, 11]),
            digest: None,
            binding: BINDING,
        }
    }
}

/// Each PCR's value is its number and one, 32 times.
fn values<const N: usize>(numbers: [u32; N]) -> PcrValues {
    let selection = PcrSelection::new(numbers).unwrap();
    PcrValues::new(selection, numbers.map(|n| [n as u8 + 1; 32]).to_vec()).unwrap()
}

/// A key that stands for a TPM's.
struct Key {
    pair: EcdsaKeyPair,
    /// The same for `rcgen`.
    certified: rcgen::KeyPair,
}

impl Key {
    fn new() -> Self {
        let certified = rcgen::KeyPair::generate().unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &certified.serialize_der())
                .unwrap();
        Self { pair, certified }
    }

    fn public(&self, attributes: [u8; 4]) -> Vec<u8> {
        let point = &self.pair.public_key().as_ref()[1..];
        let mut bytes = vec![0x00, 0x23, 0x00, 0x0b];
        bytes.extend(attributes);
        bytes.extend([0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 0x03, 0, 0x10]);
        for number in point.chunks(32) {
            bytes.extend([0, 32]);
            bytes.extend(number);
        }
        bytes
    }

    fn name(&self) -> [u8; 32] {
        Sha256::digest(self.public(Made::default().attributes)).into()
    }

    fn quote(&self, made: &Made) -> Statement {
        let mut statement = made.magic.to_vec();
        statement.extend(made.kind);
        statement.extend([0, 0]);
        statement.extend((made.extra.len() as u16).to_be_bytes());
        statement.extend(&made.extra);
        statement.extend(1_000_u64.to_be_bytes());
        statement.extend(3_u32.to_be_bytes());
        statement.extend(0_u32.to_be_bytes());
        statement.push(1);
        statement.extend(0x0102_u64.to_be_bytes());
        statement.extend([0, 0, 0, 1, 0, 0x0b, 3]);
        statement.extend(&made.pcrs.selection().bits().to_le_bytes()[..3]);
        statement.extend([0, 32]);
        statement.extend(made.digest.unwrap_or(made.pcrs.digest()));
        let raw = self.pair.sign(&SystemRandom::new(), &statement).unwrap();
        Statement {
            binding: made.binding,
            quote: Quote {
                statement,
                signature: encode_signature(raw.as_ref()),
                public: self.public(made.attributes),
                pcrs: made.pcrs.clone(),
            },
        }
    }

    /// Rules that accept [`Made::default`] from this key.
    fn rules(&self) -> TpmRules {
        TpmRules {
            pcrs: [(4, vec![[5; 32]]), (7, vec![[9; 32], [8; 32]])].into(),
            attestation_keys: vec![self.name()],
            ..TpmRules::default()
        }
    }
}

fn encode_signature(raw: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x18, 0x00, 0x0b];
    for number in raw.chunks(32) {
        bytes.extend([0, 32]);
        bytes.extend(number);
    }
    bytes
}

fn verify(statement: &Statement, rules: &TpmRules) -> Result<Verified, AttestError> {
    verify_bytes(&statement.encode().unwrap(), &[], rules)
}

fn verify_bytes(
    statement: &[u8],
    certificates: &[Vec<u8>],
    rules: &TpmRules,
) -> Result<Verified, AttestError> {
    let endorsements = endorsements::encode(certificates).unwrap();
    TpmVerifier.verify(statement, &endorsements, &Rules::Tpm(rules.clone()), NOW)
}
