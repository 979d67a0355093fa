//! What a search takes and gives.

use std::time::Duration;

use oboro_index::Extra;
use oboro_protocol::limits::DEFAULT_SEARCH_DEADLINE;
use oboro_quant::Filter;

/// Whether and from how many candidates the client ranks exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerank {
    /// Ids in the order of the quantized scores; no original leaves the
    /// searcher, and none is read from its disk. As many bytes travel.
    Off,
    /// The sealed originals of this many candidates come to the client, which
    /// opens them and ranks them by exact distance.
    Candidates(u32),
}

impl Default for Rerank {
    /// 100 candidates.
    fn default() -> Self {
        Self::Candidates(100)
    }
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchOptions {
    /// Number of neighbours.
    pub k: usize,
    /// Exact ranking by the client.
    pub rerank: Rerank,
    /// Which vectors may be found, by their tags; the default lets all pass.
    /// [`Client::filter`](crate::Client::filter) makes one from names.
    pub filter: Filter,
    /// Lists to look at, where the index has lists: at most, and `None` for, as many as
    /// it allows. Fewer take less time and find less; the searcher sees which they are.
    pub probes: Option<u32>,
    /// Longest time for one search, a reconnection included.
    pub deadline: Duration,
}

impl Default for SearchOptions {
    /// Ten neighbours out of 100 re-ranked candidates within 10 seconds.
    fn default() -> Self {
        Self {
            k: 10,
            rerank: Rerank::default(),
            filter: Filter::default(),
            probes: None,
            deadline: DEFAULT_SEARCH_DEADLINE,
        }
    }
}

/// One neighbour.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// The id the owner gave to the vector, or the number that stands for its
    /// string id.
    pub id: u64,
    /// With re-ranking, the exact distance in the index's metric, smaller is
    /// nearer; without, the quantized score, which compares within one result
    /// only.
    pub distance: f32,
    /// String id and payload of the vector, where it has any; they come with
    /// its record, so only with re-ranking.
    pub extra: Option<Extra>,
}

/// Where the time of one search went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// Client: preparing and encrypting the query.
    pub encrypt_us: u32,
    /// Client: from sending to having the reply, the network and everything
    /// below included.
    pub request_us: u32,
    /// Client: playing the keeper; 0 when there is one.
    pub decrypt_us: u32,
    /// Client: opening records and exact ranking.
    pub rerank_us: u32,
    /// Searcher: checking and decoding the query.
    pub decode_us: u32,
    /// Searcher: the encrypted table.
    pub evaluate_us: u32,
    /// Searcher: the keeper's answer, round trip.
    pub keeper_us: u32,
    /// Searcher: decoding and quantizing the table.
    pub unmask_us: u32,
    /// Searcher: waiting for a pass over the codes.
    pub queue_us: u32,
    /// Searcher: the pass over the codes, selection included.
    pub scan_us: u32,
    /// Searcher: collecting records or ids.
    pub fetch_us: u32,
    /// Searcher: everything.
    pub searcher_us: u32,
    /// Queries that shared the pass.
    pub batch: u32,
}

/// The answer to one search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult {
    /// The `k` nearest, nearest first, ties by id; fewer where the index has not
    /// so many that pass the filter, in the lists that were looked at.
    pub neighbours: Vec<Neighbour>,
    /// Where the time went.
    pub stages: Stages,
    /// Bytes of the messages sent (TLS and HTTP/2 framing not counted).
    pub bytes_up: u64,
    /// Bytes of the messages received (TLS and HTTP/2 framing not counted).
    pub bytes_down: u64,
}

/// What a client knows about the index it is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSummary {
    /// The index.
    pub index_id: [u8; 16],
    /// Its epoch.
    pub epoch: u64,
    /// Vectors in it when the connection was made, as the searcher says:
    /// nothing authenticates it.
    pub vectors: u64,
    /// Tags that a filter can ask for.
    pub tags: usize,
    /// Bytes of each record for a string id and a payload.
    pub extra_bytes: u32,
    /// Values of one vector.
    pub dimension: usize,
    /// Name of the metric.
    pub metric: &'static str,
    /// Sub-quantizers M.
    pub subquantizers: usize,
    /// Centroids K of one sub-quantizer.
    pub centroids: usize,
    /// Queries are turned by a matrix that was learned from the vectors.
    pub opq: bool,
    /// Lists that vectors are in; 0 for none.
    pub lists: u32,
    /// Most lists that one search looks at, and the usual number.
    pub probes_max: u32,
    /// Most candidates one search may ask for.
    pub candidates_max: u32,
    /// Name of the CKKS parameter set.
    pub parameter_set: &'static str,
    /// Estimated bits of security of that set.
    pub security_bits: u32,
    /// Platform that the searcher's evidence names.
    pub platform: &'static str,
    /// The platform is simulated: its evidence protects nothing.
    pub simulated: bool,
    /// What the policy accepted and people should know all the same, one sentence
    /// each.
    pub remarks: Vec<String>,
    /// Bytes of one encrypted query.
    pub query_bytes: usize,
}
