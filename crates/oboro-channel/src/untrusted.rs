//! Doors for the fuzz targets to what a peer sends before it is believed.

use crate::certificate::Facts;
use crate::exchange::decode_frames;
use rustls_pki_types::CertificateDer;

/// Frames of the exchange, one after the other.
pub fn frames(bytes: &[u8]) {
    decode_frames(bytes);
}

/// A certificate as it comes from the peer.
pub fn certificate(der: &[u8]) {
    let _ = Facts::of(&CertificateDer::from(der));
}
