//! Starting, serving and stopping a searcher.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use bytes::Bytes;
use oboro_attest::Attester;
use oboro_channel::{AcceptLimits, Identity, Trust, serve_incoming, tuned_server};
use oboro_ckks::{EncryptedQuery, Packing, Randomness, TableEvaluator, TableShare};
use oboro_index::Index;
use oboro_protocol::{
    limits,
    v1::{self, searcher_server},
};
use tokio::net::TcpListener;
use tonic_web::GrpcWebLayer;
use zeroize::Zeroizing;

use crate::{
    KeeperConfig, SearcherError, SearcherView, SessionLimits,
    engine::ScanEngine,
    link::{KeeperLink, Registration},
    metrics::Metrics,
    pool::Pool,
    search::Search,
    served::ServedIndex,
    service::{PERMITTED, SearcherService},
    sessions::Sessions,
};

/// How a searcher runs.
pub struct SearcherConfig {
    /// This searcher's TLS identity.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// Makes this searcher's evidence.
    pub attester: Arc<dyn Attester>,
    /// Where the keeper is; without one only clients that hold the key search.
    pub keeper: Option<KeeperConfig>,
    /// Fresh from the system at every start; see [`SearcherConfig::new`].
    pub seed: Zeroizing<[u8; 32]>,
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
    /// Loopback address of the Prometheus text.
    pub metrics_address: Option<SocketAddr>,
    /// How long running requests may go on after the shutdown began.
    pub grace: Duration,
}

impl SearcherConfig {
    /// The usual settings: all cores, 256 waiting tables, 32 encryptions of
    /// zero, no metrics address.
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
            keeper,
            seed,
            scan_threads: std::thread::available_parallelism().map_or(1, usize::from),
            queue_limit: 256,
            zero_pool: 32,
            requests_per_connection: 128,
            accept: AcceptLimits {
                http1: true,
                ..AcceptLimits::default()
            },
            sessions: SessionLimits::default(),
            metrics_address: None,
            grace: Duration::from_secs(5),
        }
    }
}

/// A searcher that is ready to serve one index.
pub struct SearcherServer {
    search: Arc<Search>,
    identity: Identity,
    trust: Trust,
    accept: AcceptLimits,
    requests_per_connection: usize,
    metrics_address: Option<SocketAddr>,
    grace: Duration,
}

impl SearcherServer {
    /// Prepares evaluation, scan and the link to the keeper. The keeper need
    /// not be there yet.
    ///
    /// # Errors
    /// When the index cannot be served or the system refuses a thread.
    pub fn new(index: Index, config: SearcherConfig) -> Result<Self, SearcherError> {
        let served = Arc::new(ServedIndex::new(index)?);
        let metrics = Arc::new(Metrics::default());
        let randomness = Arc::new(Randomness::new(config.seed));
        let evaluator = Arc::new(
            TableEvaluator::new(
                served.packing(),
                served.scale(),
                served.public_key().clone(),
                served.codebook()?,
            )
            .map_err(|error| SearcherError::Index(error.to_string()))?,
        );
        let masks = Bytes::from(evaluator.masks().to_bytes());
        let zeros = {
            let evaluator = Arc::clone(&evaluator);
            let mut rng = randomness.generator();
            Pool::start(config.zero_pool, move || evaluator.zero(&mut rng))
                .map_err(SearcherError::Thread)?
        };
        let engine = ScanEngine::start(
            Arc::clone(&served) as _,
            config.scan_threads.max(1),
            config.queue_limit.max(1),
            Arc::clone(&metrics),
        )?;
        let channel_key = config.identity.spki_sha256();
        let link = config.keeper.map(|keeper| {
            let registration = registration(&served, masks.clone());
            KeeperLink::new(
                keeper,
                config.identity.clone(),
                config.trust.clone(),
                registration,
                Arc::clone(&config.attester),
                Arc::clone(&randomness),
                Arc::clone(&metrics),
            )
        });
        let search = Search {
            index: served,
            evaluator,
            masks,
            engine,
            zeros,
            link,
            sessions: Sessions::new(config.sessions),
            metrics,
            randomness,
            attester: config.attester,
            channel_key,
            started: Instant::now(),
            cold: AtomicBool::new(false),
        };
        Ok(Self {
            search: Arc::new(search),
            identity: config.identity,
            trust: config.trust,
            accept: config.accept,
            requests_per_connection: config.requests_per_connection,
            metrics_address: config.metrics_address,
            grace: config.grace,
        })
    }

    /// The figures, shared with the running server.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.search.metrics)
    }

    /// What the searcher saw so far.
    #[must_use]
    pub fn view(&self) -> SearcherView {
        self.search.metrics.view()
    }

    /// Serves until `shutdown` completes, then lets running requests finish
    /// within the grace time.
    ///
    /// # Errors
    /// When the metrics address cannot be used or the transport fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), SearcherError> {
        let metrics_listener = match self.metrics_address {
            Some(address) => Some(oboro_telemetry::bind(address).await?),
            None => None,
        };
        let incoming = serve_incoming(
            listener,
            &self.identity,
            &self.trust,
            &PERMITTED,
            self.accept,
        )
        .map_err(|error| SearcherError::Serve(error.to_string()))?;
        let background = tokio::spawn(background(Arc::clone(&self.search), metrics_listener));

        let request_limit = request_limit(&self.search.index.packing());
        let service = searcher_server::SearcherServer::new(SearcherService {
            search: self.search,
        })
        .max_decoding_message_size(request_limit)
        .max_encoding_message_size(limits::MAX_REPLY_MESSAGE_BYTES);
        let (began, stopping) = tokio::sync::oneshot::channel();
        let server = tuned_server()
            .accept_http1(self.accept.http1)
            .timeout(limits::MAX_REQUEST_TIME)
            .concurrency_limit_per_connection(self.requests_per_connection)
            .layer(GrpcWebLayer::new())
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async move {
                shutdown.await;
                let _ = began.send(());
            });
        let grace = async {
            // An error means that the server ended first; then it decides.
            if stopping.await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(self.grace).await;
        };
        let result = tokio::select! {
            result = server => result.map_err(|error| SearcherError::Serve(error.to_string())),
            () = grace => Ok(()),
        };
        background.abort();
        result
    }
}

/// The largest honest request to this index and some room for the fields
/// around it: a larger one is refused before it is read, so that hostile peers
/// cannot fill the memory.
fn request_limit(packing: &Packing) -> usize {
    let largest = EncryptedQuery::encoded_len(packing).max(TableShare::encoded_len(packing));
    (largest + 4_096).min(limits::SEARCHER_REQUEST_LIMIT)
}

/// Brings the link to the keeper up, expires sessions, serves the metrics.
async fn background(search: Arc<Search>, metrics: Option<TcpListener>) {
    let link = async {
        if let Some(link) = &search.link {
            // A failure is logged there; searches try again.
            let _ = link.warm_up().await;
        }
    };
    let expire = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            search.sessions.expire(Instant::now());
        }
    };
    let text = async {
        if let Some(listener) = metrics {
            let metrics = Arc::clone(&search.metrics);
            oboro_telemetry::serve(listener, move || metrics.render()).await;
        }
    };
    tokio::join!(link, expire, text);
}

fn registration(index: &ServedIndex, masks: Bytes) -> Registration {
    let packing = index.packing();
    Registration {
        request: v1::PrepareRequest {
            index_id: index.id().to_vec().into(),
            epoch: index.epoch(),
            packing: Some(v1::PackingParameters {
                parameter_set: packing.set().name().to_owned(),
                subquantizers: packing.subquantizers() as u32,
                width: packing.width() as u32,
                centroids: packing.centroids() as u32,
                split: packing.split() as u32,
            }),
            scale: index.scale().to_bytes().to_vec().into(),
            masks,
            ..Default::default()
        },
        public_key_fingerprint: index.public_key().fingerprint(),
    }
}
