//! How a keeper runs.

use oboro_attest::{Attester, Verifier};
use oboro_channel::{AcceptLimits, Clock, Identity, RateLimit, Trust};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// How a keeper runs.
pub struct KeeperConfig {
    /// This keeper's TLS identity.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// Makes this keeper's evidence.
    pub attester: Arc<dyn Attester>,
    /// Judges the evidence that every searcher must give when it connects.
    pub verifier: Arc<dyn Verifier>,
    /// Digest of how this keeper is set up; part of its evidence.
    pub configuration: [u8; 32],
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
    /// How long a connection lasts. Its peer then connects again, with fresh evidence
    /// under the policy of that time.
    pub connection_age: Duration,
    /// Bounds on connections and handshakes.
    pub accept: AcceptLimits,
    /// The clock for certificates and evidence.
    pub clock: Clock,
    /// Loopback address of the Prometheus text.
    pub metrics_address: Option<SocketAddr>,
    /// Count the values of received bytes, for [`KeeperView`](crate::KeeperView).
    pub record_view: bool,
    /// How long running requests may go on after the shutdown began.
    pub grace: Duration,
}

impl KeeperConfig {
    /// The usual settings: 16 codebooks, all cores, generous rates, connections of at most
    /// a day, no metrics address.
    ///
    /// # Security
    /// `seed` must be new for every start: the dither that protects the key from what
    /// tables tell is drawn from it.
    #[must_use]
    pub fn new(
        identity: Identity,
        trust: Trust,
        attester: Arc<dyn Attester>,
        verifier: Arc<dyn Verifier>,
        configuration: [u8; 32],
        seed: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            identity,
            trust,
            attester,
            verifier,
            configuration,
            seed,
            prepared_codebooks: 16,
            rate: RateLimit::default(),
            minimum_flooding_bits: 0.0,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            queue_limit: 256,
            requests_per_connection: 256,
            connection_age: Duration::from_secs(24 * 3600),
            accept: AcceptLimits::default(),
            clock: Clock::default(),
            metrics_address: None,
            record_view: false,
            grace: Duration::from_secs(5),
        }
    }
}
