//! What evidence is bound to.

use crate::AttestedRole;
use sha2::{Digest, Sha256, Sha512};

/// What an attester says about itself. The platform signs [`binding`](Self::binding), a
/// digest of all of it, beside its own measurement of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The role it plays.
    pub role: AttestedRole,
    /// Exporter value of the TLS session on which the evidence is given (RFC 8446,
    /// section 7.5): evidence of one session says nothing in another.
    pub session: [u8; 32],
    /// The verifier's fresh nonce.
    pub nonce: [u8; 32],
    /// SHA-256 of its TLS public key (DER of the SubjectPublicKeyInfo).
    pub channel_key: [u8; 32],
    /// What it serves and how it was set up.
    pub subject: Subject,
    /// Seconds since 1970.
    pub issued_at: u64,
}

/// What a role serves and how it was set up; the part of [`Claims`] that stays the same
/// from session to session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// [`key_set_digest`] of the CKKS public keys it decrypts for, or [`NO_CKKS_KEYS`].
    pub ckks_keys: [u8; 32],
    /// Digest of its configuration: the same program set up otherwise is another.
    pub configuration: [u8; 32],
    /// The index it serves; zero for none.
    pub index_id: [u8; 16],
    /// The epoch of that index; zero for none.
    pub epoch: u64,
}

impl Subject {
    /// A subject that serves no index and holds no CKKS key.
    #[must_use]
    pub const fn new(configuration: [u8; 32]) -> Self {
        Self {
            ckks_keys: NO_CKKS_KEYS,
            configuration,
            index_id: [0; 16],
            epoch: 0,
        }
    }
}

/// The value of `ckks_keys` for a role that holds no CKKS key.
pub const NO_CKKS_KEYS: [u8; 32] = [0; 32];

/// Digest of a set of CKKS public keys, given by their fingerprints in any order.
#[must_use]
pub fn key_set_digest(fingerprints: &[[u8; 32]]) -> [u8; 32] {
    let mut sorted = fingerprints.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut hash = Sha256::new_with_prefix(b"oboro ckks key set v1\0");
    for fingerprint in &sorted {
        hash.update(fingerprint);
    }
    hash.finalize().into()
}

impl Claims {
    /// Bytes of [`encode`](Self::encode).
    pub(crate) const BYTES: usize = 1 + 4 * 32 + 32 + 16 + 8 + 8;

    /// The 64 bytes that the platform signs as its caller's data: SHA-512 over a prefix
    /// and every claim.
    #[must_use]
    pub fn binding(&self) -> [u8; 64] {
        let mut hash = Sha512::new_with_prefix(b"oboro evidence binding v1\0");
        hash.update(self.encode());
        hash.finalize().into()
    }

    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let mut at = 0;
        let mut put = |part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        };
        put(&[self.role.number()]);
        put(&self.session);
        put(&self.nonce);
        put(&self.channel_key);
        put(&self.subject.ckks_keys);
        put(&self.subject.configuration);
        put(&self.subject.index_id);
        put(&self.subject.epoch.to_le_bytes());
        put(&self.issued_at.to_le_bytes());
        bytes
    }
}
