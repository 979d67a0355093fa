//! How a searcher runs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use oboro_attest::{Attester, Verifier};
use oboro_channel::{AcceptLimits, Identity, RateLimit, Trust};
use oboro_protocol::limits;
use zeroize::Zeroizing;

use crate::{SessionLimits, open_files};

/// Where the keeper is and what it must prove.
#[derive(Clone)]
pub struct KeeperConfig {
    /// `host:port`.
    pub address: String,
    /// Appraises the keeper's evidence.
    pub verifier: Arc<dyn Verifier>,
    /// Longest time for connecting.
    pub connect_timeout: Duration,
    /// Longest time for one table.
    pub decrypt_timeout: Duration,
    /// Shortest time between two attempts to connect.
    pub retry_pause: Duration,
}

impl KeeperConfig {
    /// The keeper at `address` (`host:port`), judged by `verifier`: 2 seconds
    /// to connect, 2 for a table, 250 ms between attempts.
    #[must_use]
    pub fn new(address: impl Into<String>, verifier: Arc<dyn Verifier>) -> Self {
        Self {
            address: address.into(),
            verifier,
            connect_timeout: Duration::from_secs(2),
            decrypt_timeout: limits::KEEPER_DEADLINE,
            retry_pause: Duration::from_millis(250),
        }
    }
}

/// How segments are merged in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionConfig {
    /// After each commit, look whether there is something to merge. Where this is
    /// off, segments are merged only when a writer asks for it.
    pub automatic: bool,
    /// Most bytes written in a second, so that searches go on; 0 for no bound.
    pub bytes_per_second: u64,
    /// How long after one that failed, by a full disk for instance, the next is begun
    /// without being asked for; twice as long each time, up to five minutes.
    pub retry_pause: Duration,
}

impl Default for CompactionConfig {
    /// On, 64 MiB a second, a second after the first failure.
    fn default() -> Self {
        Self {
            automatic: true,
            bytes_per_second: 64 << 20,
            retry_pause: Duration::from_secs(1),
        }
    }
}

/// How a searcher runs.
pub struct SearcherConfig {
    /// This searcher's TLS identity.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// Makes this searcher's evidence, for clients and for the keeper.
    pub attester: Arc<dyn Attester>,
    /// Digest of the configuration that the evidence names.
    pub configuration: [u8; 32],
    /// Where the keeper is; without one only clients that hold the key search,
    /// and only an index built for them opens.
    pub keeper: Option<KeeperConfig>,
    /// Fresh from the system at every start; see [`SearcherConfig::new`].
    pub seed: Zeroizing<[u8; 32]>,
    /// Requests per second for each client key.
    pub rate: RateLimit,
    /// Threads of one pass over the codes.
    pub scan_threads: usize,
    /// Tables that may wait for a pass.
    pub queue_limit: usize,
    /// Encryptions of zero kept ready.
    pub zero_pool: usize,
    /// Requests served at the same time on one connection.
    pub requests_per_connection: usize,
    /// Bounds on connections and handshakes.
    pub accept: AcceptLimits,
    /// Bounds on searches of clients that hold the key.
    pub sessions: SessionLimits,
    /// How segments are merged in the background.
    pub compaction: CompactionConfig,
    /// Files that the process may have open: half of them are for segments.
    pub open_files: u64,
    /// Loopback address of the Prometheus text.
    pub metrics_address: Option<SocketAddr>,
    /// How long running requests may go on after the shutdown began.
    pub grace: Duration,
}

impl SearcherConfig {
    /// The usual settings: all cores, 256 waiting tables, 32 encryptions of
    /// zero, generous rates, no metrics address, a configuration of all zeros,
    /// as many open files as the system allows now.
    ///
    /// # Security
    /// `seed` must be new for every start. Re-randomization drawn from the same
    /// seed twice would let the keeper see differences between queries.
    #[must_use]
    pub fn new(
        identity: Identity,
        trust: Trust,
        attester: Arc<dyn Attester>,
        keeper: Option<KeeperConfig>,
        seed: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            identity,
            trust,
            attester,
            configuration: [0; 32],
            keeper,
            seed,
            rate: RateLimit::default(),
            scan_threads: std::thread::available_parallelism().map_or(1, usize::from),
            queue_limit: 256,
            zero_pool: 32,
            requests_per_connection: 128,
            accept: AcceptLimits {
                http1: true,
                ..AcceptLimits::default()
            },
            sessions: SessionLimits::default(),
            compaction: CompactionConfig::default(),
            open_files: open_files::limit(),
            metrics_address: None,
            grace: Duration::from_secs(5),
        }
    }
}
