//! The client: connects, searches, reconnects.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use oboro_attest::Verifier;
use oboro_channel::{Identity, Trust};
use oboro_ckks::{MaskedDecryptor, MaskedProducts, Randomness, SecretKey};
use oboro_index::keys::ClientKey;
use oboro_protocol::{Reason, limits, v1, validate};
use oboro_quant::{Filter, Metric};
use prost::Message as _;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::{
    ClientError, IndexSummary, Neighbour, Rerank, SearchOptions, SearchResult, Stages,
    ranking::nearest,
    session::Session,
    transport::{late, within},
};

/// Who decrypts the tables.
#[derive(Clone)]
pub enum Keyholder {
    /// The keeper, asked by the searcher.
    Keeper,
    /// This client, which holds the secret key itself.
    Client(Arc<MaskedDecryptor>),
}

impl Keyholder {
    /// This client holds the key.
    #[must_use]
    pub fn client(key: SecretKey) -> Self {
        Self::Client(Arc::new(MaskedDecryptor::new(key)))
    }
}

/// What a client needs to connect.
pub struct ClientConfig {
    /// The searcher's `host:port`.
    pub address: String,
    /// This client's TLS identity.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// The owner's key for clients.
    pub client_key: ClientKey,
    /// Judges the searcher's evidence.
    pub verifier: Arc<dyn Verifier>,
    /// Who decrypts the tables.
    pub keyholder: Keyholder,
    /// Fresh from the system for every client; see [`ClientConfig::new`].
    pub seed: Zeroizing<[u8; 32]>,
    /// Longest time for connecting, and for each step of verification.
    pub connect_timeout: Duration,
}

impl ClientConfig {
    /// The usual settings: the keeper decrypts, 5 seconds to connect.
    ///
    /// # Security
    /// `seed` must be new for every client. Two queries encrypted with the same
    /// randomness would tell the searcher their difference.
    #[must_use]
    pub fn new(
        address: impl Into<String>,
        identity: Identity,
        trust: Trust,
        client_key: ClientKey,
        verifier: Arc<dyn Verifier>,
        seed: Zeroizing<[u8; 32]>,
    ) -> Self {
        Self {
            address: address.into(),
            identity,
            trust,
            client_key,
            verifier,
            keyholder: Keyholder::Keeper,
            seed,
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Searches one index; cheap to clone, clones share the connection.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClientConfig,
    randomness: Randomness,
    session: RwLock<Arc<Session>>,
    /// Held by the one task that connects anew.
    connecting: tokio::sync::Mutex<()>,
}

impl Client {
    /// Connects to the searcher, verifies its evidence and the owner's
    /// descriptor of the index.
    ///
    /// # Errors
    /// When the searcher cannot be reached or does not prove what it must, or
    /// the descriptor is not the owner's.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let randomness = Randomness::new(config.seed.clone());
        let session = Session::open(&config, None).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                randomness,
                session: RwLock::new(Arc::new(session)),
                connecting: tokio::sync::Mutex::default(),
            }),
        })
    }

    /// What is known about the index.
    #[must_use]
    pub fn index(&self) -> IndexSummary {
        self.inner.session().summary.clone()
    }

    /// The searcher's platform is simulated and protects nothing.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.inner.session().summary.simulated
    }

    /// The filter for vectors that have any of the tags `any` (if it names some),
    /// all of `all`, and none of `none`.
    ///
    /// # Errors
    /// When the index has no tags, or not one of these.
    ///
    /// # Security
    /// The searcher learns which bits a filter has, not what the tags are called.
    /// Who sees the network or the searcher's machine learns neither, nor whether
    /// there is a filter.
    pub fn filter<T: AsRef<str>>(
        &self,
        any: &[T],
        all: &[T],
        none: &[T],
    ) -> Result<Filter, ClientError> {
        let session = self.inner.session();
        let key = self.inner.config.client_key.descriptor_key();
        let bits = |names: &[T]| {
            names.iter().try_fold(0, |bits, name| {
                let name = name.as_ref();
                let bit = session.descriptor.tag_bit(key, name);
                let bit = bit.ok_or_else(|| match session.descriptor.has_tags() {
                    true => ClientError::UnknownTag(name.to_owned()),
                    false => ClientError::NoTags,
                })?;
                Ok(bits | 1_u64 << bit)
            })
        };
        Ok(Filter {
            any: bits(any)?,
            all: bits(all)?,
            none: bits(none)?,
        })
    }

    /// Finds the neighbours of `vector`. A broken connection is made anew
    /// once.
    ///
    /// # Errors
    /// When the query does not fit the index, the searcher refuses, or the
    /// time is over.
    pub async fn search(
        &self,
        vector: &[f32],
        options: &SearchOptions,
    ) -> Result<SearchResult, ClientError> {
        let start = Instant::now();
        let work = self.inner.search(vector, options);
        match tokio::time::timeout(options.deadline, work).await {
            // The timer ticks in milliseconds; late is late all the same.
            Ok(Ok(_)) | Err(_) if start.elapsed() > options.deadline => Err(late(options.deadline)),
            Ok(result) => result,
            Err(_) => Err(late(options.deadline)),
        }
    }

    /// Searches with many queries, `concurrency` at a time; results come in
    /// the order of the queries.
    ///
    /// # Errors
    /// The first error of a search; the others are given up.
    pub async fn search_many(
        &self,
        queries: Vec<Vec<f32>>,
        options: &SearchOptions,
        concurrency: usize,
    ) -> Result<Vec<SearchResult>, ClientError> {
        let queries = Arc::new(queries);
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..concurrency.clamp(1, queries.len().max(1)) {
            let (client, queries, next) = (self.clone(), Arc::clone(&queries), Arc::clone(&next));
            let options = *options;
            tasks.spawn(async move {
                let mut done = Vec::new();
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    let Some(query) = queries.get(index) else {
                        return Ok(done);
                    };
                    done.push((index, client.search(query, &options).await?));
                }
            });
        }
        let mut all: Vec<(usize, SearchResult)> = Vec::with_capacity(queries.len());
        while let Some(task) = tasks.join_next().await {
            all.extend(task.map_err(|error| ClientError::System(error.to_string()))??);
        }
        all.sort_unstable_by_key(|(index, _)| *index);
        Ok(all.into_iter().map(|(_, result)| result).collect())
    }
}

impl Inner {
    fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn search(
        &self,
        vector: &[f32],
        options: &SearchOptions,
    ) -> Result<SearchResult, ClientError> {
        let session = self.session();
        match self.attempt(&session, vector, options).await {
            Err(error) if worth_reconnecting(&error) => {
                tracing::info!(%error, "connecting again");
                let session = self.reconnect(&session).await?;
                self.attempt(&session, vector, options).await
            }
            result => result,
        }
    }

    /// A session newer than `old`.
    async fn reconnect(&self, old: &Arc<Session>) -> Result<Arc<Session>, ClientError> {
        let _one = self.connecting.lock().await;
        let current = self.session();
        if !Arc::ptr_eq(&current, old) {
            return Ok(current);
        }
        let fresh = Arc::new(Session::open(&self.config, Some(old)).await?);
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&fresh);
        Ok(fresh)
    }

    async fn attempt(
        &self,
        session: &Session,
        vector: &[f32],
        options: &SearchOptions,
    ) -> Result<SearchResult, ClientError> {
        let start = Instant::now();
        let asked = check(&session.summary, vector, options)?;
        let probes = probes(&session.summary, options)?;
        let (padded, lists) = session.prepare(vector, probes)?;
        let padded = Zeroizing::new(padded);
        let rng = &mut self.randomness.generator();
        let query = match &self.config.keyholder {
            Keyholder::Keeper => session.encryptor.encrypt(&padded, rng),
            // Who holds the secret key sends half the bytes.
            Keyholder::Client(key) => key.encrypt(&session.encryptor, &padded, rng),
        }
        .map_err(|error| ClientError::Encrypt(error.to_string()))?;
        let reranks = matches!(options.rerank, Rerank::Candidates(_));
        let mut request = v1::SearchRequest {
            index_id: session.summary.index_id.to_vec().into(),
            epoch: session.summary.epoch,
            query: query.to_bytes().into(),
            candidates: asked,
            with_records: reranks,
            with_ids: !reranks,
            with_scores: !reranks,
            filter: options.filter.to_bytes().to_vec().into(),
            // No index has more than 65,536.
            lists: validate::pack_lists(lists.iter().map(|&list| list as u16)).into(),
            padding: Vec::new(),
        };
        match &session.prepared {
            None => session.sizes.pad_search(&mut request),
            Some(_) => session.sizes.pad_begin(&mut request),
        }
        let encrypted = Instant::now();

        // The shape to check the reply against; the ciphertext is not needed.
        let shape = v1::SearchRequest {
            query: Bytes::new(),
            padding: Vec::new(),
            ..request.clone()
        };
        let mut traffic = Traffic::default();
        let mut decrypt = Duration::ZERO;
        let reply = match &session.prepared {
            None => {
                traffic.up(request.encoded_len());
                let mut client = session.client.clone();
                within(options.deadline, client.search(timed(request))).await?
            }
            Some(codebook) => {
                let (reply, spent) = self
                    .with_own_key(session, codebook, request, options, &mut traffic)
                    .await?;
                decrypt = spent;
                reply
            }
        };
        traffic.down(reply.encoded_len());
        let received = Instant::now();

        session
            .sizes
            .check_reply(&reply)
            .map_err(|failure| ClientError::Reply(failure.message))?;
        validate::reply(&shape, &reply).map_err(|failure| ClientError::Reply(failure.message))?;
        let candidates = match options.rerank {
            Rerank::Candidates(_) => open_all(session, vector, &reply)?,
            Rerank::Off => scored(&reply)?,
        };
        let neighbours = match options.rerank {
            Rerank::Candidates(_) => nearest(candidates, options.k),
            Rerank::Off => candidates,
        };
        let mut stages = searcher_stages(reply.timings.unwrap_or_default());
        stages.encrypt_us = micros(encrypted - start);
        stages.request_us = micros(received - encrypted);
        stages.decrypt_us = micros(decrypt);
        stages.rerank_us = micros(received.elapsed());
        Ok(SearchResult {
            neighbours,
            stages,
            bytes_up: traffic.up,
            bytes_down: traffic.down,
        })
    }

    /// A search in two halves, with the decryption here.
    async fn with_own_key(
        &self,
        session: &Session,
        codebook: &oboro_ckks::PreparedCodebook,
        request: v1::SearchRequest,
        options: &SearchOptions,
        traffic: &mut Traffic,
    ) -> Result<(v1::SearchReply, Duration), ClientError> {
        let Keyholder::Client(decryptor) = &self.config.keyholder else {
            return Err(ClientError::ForeignKey);
        };
        let refused = |error: oboro_ckks::CkksError| ClientError::Reply(error.to_string());
        let mut client = session
            .client
            .clone()
            .max_decoding_message_size(limits::MAX_REPLY_MESSAGE_BYTES);
        traffic.up(request.encoded_len());
        let begun = within(options.deadline, client.begin_search(timed(request))).await?;
        traffic.down(begun.encoded_len());
        let start = Instant::now();
        let products = MaskedProducts::from_bytes(&session.descriptor.packing, &begun.products)
            .map_err(refused)?;
        let share = decryptor
            .decrypt(codebook, &products, &mut self.randomness.generator())
            .map_err(refused)?;
        let request = v1::FinishSearchRequest {
            session: begun.session,
            share: share.to_bytes().into(),
        };
        let spent = start.elapsed();
        traffic.up(request.encoded_len());
        let reply = within(options.deadline, client.finish_search(timed(request))).await?;
        Ok((reply, spent))
    }
}

/// Message bytes of one search; each message has five bytes of gRPC framing.
#[derive(Default)]
struct Traffic {
    up: u64,
    down: u64,
}

impl Traffic {
    fn up(&mut self, message: usize) {
        self.up += message as u64 + 5;
    }

    fn down(&mut self, message: usize) {
        self.down += message as u64 + 5;
    }
}

/// A request with the deadline that all requests have on the wire, so that none
/// differs in length. The client's own is kept here: a call that is given up is
/// cancelled at the searcher.
fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limits::MAX_REQUEST_TIME);
    request
}

/// Errors that a new connection may mend: a broken one, a searcher that
/// serves a newer epoch or index, one that forgot a session.
fn worth_reconnecting(error: &ClientError) -> bool {
    matches!(error, ClientError::Broken(_))
        || matches!(
            error.reason(),
            Some(Reason::WrongEpoch | Reason::UnknownSession)
        )
}

/// Checks a query against the index; returns the number of candidates.
fn check(
    index: &IndexSummary,
    vector: &[f32],
    options: &SearchOptions,
) -> Result<u32, ClientError> {
    if vector.len() != index.dimension {
        return Err(ClientError::Dimension {
            found: vector.len(),
            expected: index.dimension,
        });
    }
    if let Some(position) = vector.iter().position(|value| !value.is_finite()) {
        return Err(ClientError::NotFinite { position });
    }
    let k = options.k;
    if k == 0 {
        return Err(ClientError::NoNeighbours);
    }
    if index.tags == 0 && !options.filter.is_empty() {
        return Err(ClientError::NoTags);
    }
    let candidates = match options.rerank {
        Rerank::Off => k,
        Rerank::Candidates(candidates) => candidates as usize,
    };
    if k > candidates {
        return Err(ClientError::MoreThanCandidates { k, candidates });
    }
    let most = index.candidates_max;
    // An index that gives all it has gives no more.
    let candidates = match index.vectors <= most.into() {
        true => candidates.min(most as usize),
        false => candidates,
    };
    u32::try_from(candidates)
        .ok()
        .filter(|&candidates| candidates <= most)
        .ok_or(ClientError::MoreThanIndex {
            what: if options.rerank == Rerank::Off {
                "neighbours"
            } else {
                "candidates"
            },
            asked: candidates,
            most: most as usize,
        })
}

/// How many lists to look at.
fn probes(index: &IndexSummary, options: &SearchOptions) -> Result<u32, ClientError> {
    let most = index.probes_max;
    match options.probes {
        None => Ok(most),
        Some(_) if index.lists == 0 => Err(ClientError::NoLists),
        Some(probes) if (1..=most).contains(&probes) => Ok(probes),
        Some(probes) => Err(ClientError::Probes { probes, most }),
    }
}

/// Opens the records of a reply and measures exact distances.
fn open_all(
    session: &Session,
    query: &[f32],
    reply: &v1::SearchReply,
) -> Result<Vec<Neighbour>, ClientError> {
    let opener = &session.opener;
    let length = reply.record_bytes as usize;
    if reply.records.is_empty() {
        return Ok(Vec::new());
    }
    if length != opener.wire_len() {
        return Err(ClientError::Reply(format!(
            "a record has {length} bytes where this index has {}",
            opener.wire_len()
        )));
    }
    let metric = session.descriptor.metric;
    let mut scratch = Vec::new();
    let mut vector = vec![0.0; query.len()];
    let mut ids = HashSet::with_capacity(reply.records.len() / length);
    let mut found = Vec::with_capacity(reply.records.len() / length);
    for record in reply.records.chunks_exact(length) {
        let refused = |error: oboro_index::IndexError| ClientError::Reply(error.to_string());
        let (_, _, id) = opener
            .open_into(record, &mut scratch, &mut vector)
            .map_err(refused)?;
        if !ids.insert(id) {
            return Err(ClientError::Reply("a candidate came twice".to_owned()));
        }
        let extra = opener.extra(&scratch).map_err(refused)?;
        found.push(Neighbour {
            id,
            distance: distance(metric, query, &vector),
            extra: (!extra.is_empty()).then_some(extra),
        });
    }
    Ok(found)
}

/// The exact distance as users see it: the cosine of a vector and itself may be rounded to
/// more than 1, and no distance is below 0.
fn distance(metric: Metric, query: &[f32], vector: &[f32]) -> f32 {
    let distance = metric.distance(query, vector);
    match metric == Metric::Cosine && distance < 0.0 {
        true => 0.0,
        false => distance,
    }
}

/// The ids of a reply in the order of their scores.
fn scored(reply: &v1::SearchReply) -> Result<Vec<Neighbour>, ClientError> {
    let scores =
        validate::unpack_scores(&reply.scores).map_err(|f| ClientError::Reply(f.message))?;
    if !scores.is_sorted() {
        return Err(ClientError::Reply(
            "the candidates are not in order".to_owned(),
        ));
    }
    let mut ids = HashSet::with_capacity(reply.ids.len());
    if !reply.ids.iter().all(|id| ids.insert(*id)) {
        return Err(ClientError::Reply("a candidate came twice".to_owned()));
    }
    let pairs = reply.ids.iter().zip(scores);
    Ok(pairs
        .map(|(&id, score)| Neighbour {
            id,
            distance: score.into(),
            extra: None,
        })
        .collect())
}

fn searcher_stages(timings: v1::SearchTimings) -> Stages {
    Stages {
        decode_us: timings.decode_us,
        evaluate_us: timings.evaluate_us,
        keeper_us: timings.keeper_us,
        unmask_us: timings.unmask_us,
        queue_us: timings.queue_us,
        scan_us: timings.scan_us,
        fetch_us: timings.fetch_us,
        searcher_us: timings.total_us,
        batch: timings.batch,
        ..Stages::default()
    }
}

fn micros(elapsed: Duration) -> u32 {
    u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cosine_distance_is_below_0() {
        let vectors: Vec<Vec<f32>> = (1..200_u16)
            .map(|seed| (0..7).map(|at| f32::from(seed * (at + 3) % 101)).collect())
            .collect();
        let below = |vector: &&Vec<f32>| Metric::Cosine.distance(vector, vector) < 0.0;
        assert!(vectors.iter().filter(below).count() > 0);
        for vector in &vectors {
            assert!(distance(Metric::Cosine, vector, vector) >= 0.0);
        }
        // Of another metric what is below 0 is meant so.
        assert_eq!(distance(Metric::InnerProduct, &[2.0], &[3.0]), -6.0);
        assert!(distance(Metric::Cosine, &[f32::MAX, 1.0], &[f32::MAX, 1.0]).is_nan());
    }
}
