//! The state's payload.
//!
//! | bytes | content |
//! |---|---|
//! | 4 + n | the release key's text |
//! | 4, each 4 + n, 4 + n | key pairs, oldest first: secret key, public key |
//! | 4, each 64 | newest states: index id, epoch, generation, manifest digest |
//! | 4, each 4 + n | open rotations: index id, two fingerprints, attempts left, packing |

use super::cursor::{Cursor, append_field};
use super::keys::{KeyPair, KeySet};
use super::rotations::Rotations;
use super::versions::Versions;
use crate::KeeperError;
use oboro_index::ReleaseKey;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Most bytes of a release key's text.
const MAX_RELEASE_BYTES: usize = 256;

/// All that a keeper remembers.
#[derive(Clone)]
pub(super) struct Contents {
    pub(super) release: Arc<ReleaseKey>,
    pub(super) keys: KeySet,
    pub(super) versions: Versions,
    pub(super) rotations: Rotations,
}

impl Contents {
    pub(super) fn new(pair: KeyPair, release: ReleaseKey) -> Self {
        Self {
            release: Arc::new(release),
            keys: KeySet::of(pair),
            versions: Versions::default(),
            rotations: Rotations::default(),
        }
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it: what a growing buffer leaves behind is not wiped.
        let room = 4
            + MAX_RELEASE_BYTES
            + self.keys.encoded_len()
            + self.versions.encoded_len()
            + self.rotations.encoded_len();
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        append_field(&mut out, self.release.to_text().as_bytes());
        self.keys.append(&mut out);
        self.versions.append(&mut out);
        self.rotations.append(&mut out);
        debug_assert!(out.len() <= room);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, KeeperError> {
        let mut cursor = Cursor::new(bytes);
        let text = std::str::from_utf8(cursor.field(MAX_RELEASE_BYTES)?)
            .map_err(|_| KeeperError::StateFormat("its release key is no text"))?;
        let contents = Self {
            release: Arc::new(ReleaseKey::from_text(text)?),
            keys: KeySet::parse(&mut cursor)?,
            versions: Versions::parse(&mut cursor)?,
            rotations: Rotations::parse(&mut cursor)?,
        };
        cursor.end()?;
        Ok(contents)
    }
}
