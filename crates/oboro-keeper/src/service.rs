//! The four requests a keeper answers.

use crate::admission::Admission;
use crate::config::KeeperConfig;
use crate::metrics::{Metrics, Stage};
use crate::prepared::{Entry, Handle, PreparedCodebooks};
use crate::rate::RateLimiter;
use crate::view::ByteCounts;
use bytes::Bytes;
use oboro_attest::{AttestedRole, Attester, Claims, unix_seconds};
use oboro_channel::{Identity, PeerInfo, Role, peer};
use oboro_ckks::{
    CkksError, CodebookMasks, MaskedDecryptor, MaskedProducts, Packing, ParameterSet, PublicKey,
    Randomness, TableScale, TableShare,
};
use oboro_protocol::{Failure, PROTOCOL_VERSION, Reason, v1, validate};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// Decryptions of at most this many ring products (about half a millisecond) run on the
/// task that received them: handing over costs two wake-ups, on busy machines as much
/// time as the usual decryption itself.
const INLINE_PRODUCTS: usize = 512;

pub(crate) struct Shared {
    decryptor: MaskedDecryptor,
    public_key: Bytes,
    fingerprint: [u8; 32],
    identity: Identity,
    attester: Arc<dyn Attester>,
    admission: Admission,
    randomness: Randomness,
    prepared: PreparedCodebooks,
    rate: RateLimiter,
    minimum_flooding_bits: f64,
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue_limit: usize,
    started: Instant,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) byte_counts: Option<ByteCounts>,
}

impl Shared {
    pub(crate) fn new(
        decryptor: MaskedDecryptor,
        public_key: &PublicKey,
        config: &KeeperConfig,
    ) -> Self {
        Self {
            decryptor,
            public_key: public_key.to_bytes().into(),
            fingerprint: public_key.fingerprint(),
            identity: config.identity.clone(),
            attester: config.attester.clone(),
            admission: Admission::new(config.searcher_verifier.clone()),
            randomness: Randomness::new(config.seed.clone()),
            prepared: PreparedCodebooks::new(config.prepared_codebooks),
            rate: RateLimiter::new(config.rate),
            minimum_flooding_bits: config.minimum_flooding_bits,
            workers: Arc::new(Semaphore::new(config.workers.max(1))),
            waiting: AtomicUsize::new(0),
            queue_limit: config.queue_limit,
            started: Instant::now(),
            metrics: Arc::new(Metrics::default()),
            byte_counts: config.record_view.then(ByteCounts::new),
        }
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn prepare(&self, request: &v1::PrepareRequest, peer: &PeerInfo) -> Result<Handle, Failure> {
        let (packing, scale) = self.shape(request)?;
        let handle = handle_of(&packing, &scale, &request.masks);
        if self.prepared.find(&handle).is_some() {
            return Ok(handle);
        }
        let masks = CodebookMasks::from_bytes(&packing, &request.masks).map_err(malformed)?;
        let codebook = self
            .decryptor
            .prepare(packing, scale, &masks)
            .map_err(malformed)?;
        let entry = Arc::new(Entry { packing, codebook });
        self.prepared.insert(handle, peer.spki_sha256, entry);
        Ok(handle)
    }

    fn shape(&self, request: &v1::PrepareRequest) -> Result<(Packing, TableScale), Failure> {
        let named = validate::packing(request.packing.as_ref())?;
        let held = self.decryptor.parameter_set();
        if ParameterSet::from_name(&named.parameter_set) != Some(held) {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "the codebook is for another parameter set than this keeper's {}",
                    held.name()
                ),
            ));
        }
        let packing = Packing::new(
            held,
            named.subquantizers as usize,
            named.width as usize,
            named.centroids as usize,
            named.split as usize,
        )
        .map_err(malformed)?;
        let scale = TableScale::from_bytes(&packing, &request.scale).map_err(malformed)?;
        if scale.flooding_bits() < self.minimum_flooding_bits {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "the codebook's scale leaves {:.1} bits of flooding; this keeper asks for {:.1}",
                    scale.flooding_bits(),
                    self.minimum_flooding_bits
                ),
            ));
        }
        Ok((packing, scale))
    }

    fn decrypt(
        &self,
        entry: &Entry,
        products: &MaskedProducts,
    ) -> Result<(TableShare, Duration), Failure> {
        let begin = Instant::now();
        let rng = &mut self.randomness.generator();
        let share = self
            .decryptor
            .decrypt(&entry.codebook, products, rng)
            .map_err(malformed)?;
        let elapsed = begin.elapsed();
        self.metrics.record(Stage::Decrypt, elapsed);
        Ok((share, elapsed))
    }

    /// A worker's turn, or BUSY when too many wait already.
    async fn turn(&self) -> Result<tokio::sync::OwnedSemaphorePermit, Failure> {
        let waiting = Waiting::enter(&self.waiting);
        if waiting.before >= self.queue_limit {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "{} requests wait for the keeper; try again shortly",
                    self.queue_limit
                ),
            ));
        }
        self.workers
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Failure::new(Reason::Internal, "the keeper is stopping"))
    }
}

/// Counts a waiting request, also when its task is dropped while it waits.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Relaxed);
        Self { count, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

fn handle_of(packing: &Packing, scale: &TableScale, masks: &[u8]) -> Handle {
    let mut hasher = blake3::Hasher::new_derive_key("oboro keeper codebook handle v1");
    hasher.update(&packing.to_bytes());
    hasher.update(&scale.to_bytes());
    hasher.update(masks);
    *hasher.finalize().as_bytes()
}

fn malformed(error: CkksError) -> Failure {
    Failure::new(Reason::BadRequest, error.to_string())
}

/// Ring products of one decryption.
fn products_of(packing: &Packing) -> usize {
    let set = packing.set();
    let units = set.degree() * set.primes().len() / 2_048;
    packing.blocks() * (packing.split() + 4) * units
}

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Shared>);

impl Service {
    async fn prepare_checked(
        &self,
        request: v1::PrepareRequest,
        peer: PeerInfo,
    ) -> Result<Handle, Failure> {
        validate::index_id(&request.index_id)?;
        let now = unix_seconds(SystemTime::now());
        self.0
            .admission
            .present(&peer.spki_sha256, &request.evidence, now)?;
        let permit = self.0.turn().await?;
        let shared = self.0.clone();
        let work = move || {
            let _permit = permit;
            shared.prepare(&request, &peer)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Failure::new(Reason::Internal, "the keeper failed; see its log"))?
    }

    async fn decrypt_checked(
        &self,
        request: v1::DecryptRequest,
        peer: &PeerInfo,
        begin: Instant,
    ) -> Result<v1::DecryptReply, Failure> {
        let shared = &self.0;
        if !shared
            .rate
            .admit(&peer.spki_sha256, shared.uptime().as_secs_f64())
        {
            shared.metrics.rate_limited.fetch_add(1, Relaxed);
            return Err(Failure::new(
                Reason::RateLimited,
                "this searcher has used up its rate of tables; try again shortly",
            ));
        }
        shared.admission.check(&peer.spki_sha256)?;
        let handle = validate::handle(&request.handle)?;
        let entry = shared.prepared.find(&handle).ok_or_else(|| {
            Failure::new(
                Reason::UnknownHandle,
                "the keeper does not hold this codebook; prepare it again",
            )
        })?;
        let received = request.products.len();
        let products =
            MaskedProducts::from_bytes(&entry.packing, &request.products).map_err(malformed)?;
        shared.metrics.record(Stage::Receive, begin.elapsed());
        if let Some(counts) = &shared.byte_counts {
            counts.record(&request.products);
        }
        let (share, elapsed) = if products_of(&entry.packing) <= INLINE_PRODUCTS {
            shared.decrypt(&entry, &products)?
        } else {
            let permit = shared.turn().await?;
            let shared = shared.clone();
            let work = move || {
                let _permit = permit;
                shared.decrypt(&entry, &products)
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| Failure::new(Reason::Internal, "the keeper failed; see its log"))??
        };
        let share = Bytes::from(share.to_bytes());
        shared
            .metrics
            .table(&peer.spki_sha256, received, share.len());
        shared.metrics.record(Stage::Total, begin.elapsed());
        Ok(v1::DecryptReply {
            share,
            decrypt_us: u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX),
        })
    }

    fn refused(&self, peer: &PeerInfo, failure: Failure) -> Status {
        self.0.metrics.refuse(&peer.spki_sha256);
        tracing::debug!(
            searcher = peer.short_key(),
            reason = failure.reason.name(),
            "request refused"
        );
        failure.into()
    }
}

#[tonic::async_trait]
impl v1::keeper_server::Keeper for Service {
    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::KeeperDescription>, Status> {
        let peer = peer(&request)?;
        let shared = &self.0;
        let nonce = validate::nonce(&request.get_ref().nonce)
            .map_err(|failure| self.refused(&peer, failure))?;
        let claims = Claims {
            role: AttestedRole::Keeper,
            channel_key: shared.identity.spki_sha256(),
            ckks_key: shared.fingerprint,
            nonce,
            issued_at: unix_seconds(SystemTime::now()),
        };
        let evidence = shared.attester.attest(&claims).map_err(|error| {
            tracing::error!(%error, "evidence could not be made");
            let sentence = "the keeper could not make its evidence; see its log";
            self.refused(&peer, Failure::new(Reason::Internal, sentence))
        })?;
        let challenge = if peer.role == Role::Searcher {
            let fresh = shared.randomness.bytes();
            shared.admission.challenge(&peer.spki_sha256, fresh)
        } else {
            None
        };
        Ok(Response::new(v1::KeeperDescription {
            protocol_version: PROTOCOL_VERSION,
            public_key: shared.public_key.clone(),
            evidence: evidence.into(),
            challenge: challenge.map_or_else(Bytes::new, |fresh| fresh.to_vec().into()),
        }))
    }

    async fn prepare(
        &self,
        request: Request<v1::PrepareRequest>,
    ) -> Result<Response<v1::PrepareReply>, Status> {
        let peer = peer(&request)?;
        let handle = self
            .prepare_checked(request.into_inner(), peer)
            .await
            .map_err(|failure| self.refused(&peer, failure))?;
        self.0.metrics.prepared.fetch_add(1, Relaxed);
        tracing::info!(searcher = peer.short_key(), "codebook prepared");
        Ok(Response::new(v1::PrepareReply {
            handle: handle.to_vec().into(),
        }))
    }

    async fn decrypt(
        &self,
        request: Request<v1::DecryptRequest>,
    ) -> Result<Response<v1::DecryptReply>, Status> {
        let begin = Instant::now();
        let peer = peer(&request)?;
        self.decrypt_checked(request.into_inner(), &peer, begin)
            .await
            .map(Response::new)
            .map_err(|failure| self.refused(&peer, failure))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::KeeperStatus>, Status> {
        peer(&request)?;
        let shared = &self.0;
        Ok(Response::new(v1::KeeperStatus {
            tables: shared.metrics.tables.load(Relaxed),
            refused: shared.metrics.refused.load(Relaxed),
            prepared: u32::try_from(shared.prepared.len()).unwrap_or(u32::MAX),
            uptime_seconds: shared.uptime().as_secs(),
        }))
    }
}
