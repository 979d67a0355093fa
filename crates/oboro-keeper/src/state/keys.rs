//! The CKKS key pairs of a keeper.

use super::cursor::{Cursor, append_count, append_field};
use crate::KeeperError;
use bytes::Bytes;
use oboro_ckks::{MaskedDecryptor, ParameterSet, PublicKey, SecretKey};
use oboro_protocol::{Failure, Reason};
use std::sync::Arc;

/// Key pairs held at most: owners retire old ones.
pub(super) const MAX_KEYS: usize = 64;

const MAX_SECRET_BYTES: usize = 16 << 10;
const MAX_PUBLIC_BYTES: usize = 256 << 10;

/// A CKKS key pair.
pub(crate) struct KeyPair {
    pub(crate) decryptor: MaskedDecryptor,
    pub(crate) public: PublicKey,
    pub(crate) public_bytes: Bytes,
    pub(crate) fingerprint: [u8; 32],
}

impl KeyPair {
    pub(crate) fn new(secret: SecretKey, public: PublicKey) -> Result<Self, KeeperError> {
        if !secret.matches(&public) {
            return Err(KeeperError::KeyMismatch {
                secret: secret.parameter_set().name(),
                public: public.parameter_set().name(),
            });
        }
        Ok(Self {
            decryptor: MaskedDecryptor::new(secret),
            public_bytes: public.to_bytes().into(),
            fingerprint: public.fingerprint(),
            public,
        })
    }

    pub(crate) fn parameter_set(&self) -> ParameterSet {
        self.public.parameter_set()
    }
}

/// The pairs, oldest first.
#[derive(Clone)]
pub(crate) struct KeySet(Vec<Arc<KeyPair>>);

impl KeySet {
    pub(super) fn of(pair: KeyPair) -> Self {
        Self(vec![Arc::new(pair)])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<KeyPair>> {
        self.0.iter()
    }

    pub(crate) fn fingerprints(&self) -> Vec<[u8; 32]> {
        self.iter().map(|pair| pair.fingerprint).collect()
    }

    pub(super) fn find(&self, fingerprint: &[u8; 32]) -> Result<Arc<KeyPair>, Failure> {
        let found = self.iter().find(|pair| &pair.fingerprint == fingerprint);
        found.cloned().ok_or_else(|| {
            Failure::new(
                Reason::BadRequest,
                "the keeper does not hold the key that is named; it was retired, or the index was made for another keeper",
            )
        })
    }

    pub(super) fn add(&mut self, pair: Arc<KeyPair>) -> Result<(), Failure> {
        if self.0.len() >= MAX_KEYS {
            return Err(Failure::new(
                Reason::Limit,
                format!("the keeper holds {MAX_KEYS} key pairs; retire those that no index uses"),
            ));
        }
        self.0.push(pair);
        Ok(())
    }

    pub(super) fn retire(&mut self, fingerprint: &[u8; 32]) -> Result<(), Failure> {
        self.find(fingerprint)?;
        if self.0.len() == 1 {
            return Err(Failure::new(
                Reason::BadRequest,
                "this is the keeper's only key pair; rotate to a new one first",
            ));
        }
        self.0.retain(|pair| &pair.fingerprint != fingerprint);
        Ok(())
    }

    pub(super) fn encoded_len(&self) -> usize {
        let each = |pair: &Arc<KeyPair>| {
            8 + pair.decryptor.key().to_bytes().len() + pair.public_bytes.len()
        };
        4 + self.iter().map(each).sum::<usize>()
    }

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        append_count(out, self.0.len());
        for pair in self.iter() {
            append_field(out, &pair.decryptor.key().to_bytes());
            append_field(out, &pair.public_bytes);
        }
    }

    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, KeeperError> {
        let count = cursor.count(MAX_KEYS)?;
        let mut pairs: Vec<Arc<KeyPair>> = Vec::with_capacity(count);
        for _ in 0..count {
            let secret = SecretKey::from_bytes(cursor.field(MAX_SECRET_BYTES)?)?;
            let public = PublicKey::from_bytes(cursor.field(MAX_PUBLIC_BYTES)?)?;
            let pair = KeyPair::new(secret, public)?;
            if pairs.iter().any(|p| p.fingerprint == pair.fingerprint) {
                return Err(KeeperError::StateFormat("it holds a key twice"));
            }
            pairs.push(Arc::new(pair));
        }
        if pairs.is_empty() {
            return Err(KeeperError::StateFormat("it holds no key"));
        }
        Ok(Self(pairs))
    }
}
