//! The producing side: attesters and sealers.

use crate::{AttestError, Claims, Platform};
use zeroize::Zeroizing;

/// Produces evidence about the program it runs in.
pub trait Attester: Send + Sync {
    /// The platform whose evidence this attester produces.
    fn platform(&self) -> Platform;

    /// Encoded evidence that binds `claims` to this program. May block for as long as
    /// the platform takes, some milliseconds.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where the platform gives no evidence.
    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError>;
}

/// Derives keys that only this program on this machine can derive.
pub trait Sealer: Send + Sync {
    /// The platform whose root the keys derive from.
    fn platform(&self) -> Platform;

    /// A key for one purpose. The same program on the same machine gets the same key
    /// for the same `purpose`; another program or machine another.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where the platform derives no keys.
    fn sealing_key(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, AttestError>;
}

/// Seconds since 1970 of a point in time; 0 before.
#[must_use]
pub fn unix_seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
