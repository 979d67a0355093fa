//! Why the figures cannot be served.

use std::{io, net::SocketAddr};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The address can be reached from other machines.
    #[error("the metrics address {0} is not loopback; use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The address cannot be bound.
    #[error("cannot listen for metrics on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

impl TelemetryError {
    /// The address that was asked for is at fault, not the system.
    #[must_use]
    pub fn is_bad_address(&self) -> bool {
        matches!(self, Self::NotLoopback(_))
    }
}
