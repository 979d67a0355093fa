//! How a keeper runs.

use oboro_attest::{Attester, Verifier};
use oboro_channel::{AcceptLimits, Identity, Trust};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A token bucket: `burst` requests at once, `per_second` in the long run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Tables per second in the long run.
    pub per_second: f64,
    /// Tables at once.
    pub burst: f64,
}

impl Default for RateLimit {
    /// 20,000 tables per second, which no two cores reach: a bound on an oracle, not a
    /// brake on service.
    fn default() -> Self {
        Self {
            per_second: 20_000.0,
            burst: 40_000.0,
        }
    }
}

/// How a keeper runs.
pub struct KeeperConfig {
    /// This keeper's TLS identity.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// Makes this keeper's evidence.
    pub attester: Arc<dyn Attester>,
    /// Judges the searcher's evidence. `None` accepts every searcher whose certificate
    /// the owner's authority has issued.
    pub searcher_verifier: Option<Arc<dyn Verifier>>,
    /// Fresh from the system at every start; see [`KeeperConfig::new`].
    pub seed: Zeroizing<[u8; 32]>,
    /// Codebooks held ready; the least recently used goes first.
    pub prepared_codebooks: usize,
    /// Tables per second for each searcher key.
    pub rate: RateLimit,
    /// Fewest bits between dither and noise that a codebook's scale must leave.
    pub minimum_flooding_bits: f64,
    /// Large decryptions at the same time; small ones run where they arrive.
    pub workers: usize,
    /// Large decryptions that may wait for a worker; more are answered with BUSY.
    pub queue_limit: usize,
    /// Requests served at the same time on one connection.
    pub requests_per_connection: usize,
    /// Bounds on connections and handshakes.
    pub accept: AcceptLimits,
    /// Loopback address of the Prometheus text.
    pub metrics_address: Option<SocketAddr>,
    /// Count the values of received bytes, for [`KeeperView`](crate::KeeperView).
    pub record_view: bool,
    /// How long running requests may go on after the shutdown began.
    pub grace: Duration,
}

impl KeeperConfig {
    /// The usual settings: 16 codebooks, all cores, generous rates, no metrics address.
    ///
    /// # Security
    /// `seed` must be new for every start: the dither that protects the key from what
    /// tables tell is drawn from it.
    #[must_use]
    pub fn new(
        identity: Identity,
        trust: Trust,
        attester: Arc<dyn Attester>,
        seed: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            identity,
            trust,
            attester,
            searcher_verifier: None,
            seed,
            prepared_codebooks: 16,
            rate: RateLimit::default(),
            minimum_flooding_bits: 0.0,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            queue_limit: 256,
            requests_per_connection: 256,
            accept: AcceptLimits::default(),
            metrics_address: None,
            record_view: false,
            grace: Duration::from_secs(5),
        }
    }
}
