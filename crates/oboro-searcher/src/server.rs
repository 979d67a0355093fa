//! Starting, serving and stopping a searcher.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use oboro_attest::{AttestedRole, Subject};
use oboro_channel::{
    AcceptLimits, AcceptOptions, Demand, Identity, Offer, RateLimiter, Role, Trust, serve_incoming,
    tuned_server,
};
use oboro_ckks::Randomness;
use oboro_index::{Index, StorageKey};
use oboro_protocol::limits;
use tokio::net::TcpListener;
use tonic_web::GrpcWebLayer;

use crate::{
    SearcherConfig, SearcherError, SearcherView,
    changes::Changes,
    compaction::Compactor,
    epoch::{Epoch, Workshop},
    gate::Gate,
    generation::EncoderGate,
    keeper::KeeperAccess,
    link::KeeperLink,
    metrics::Metrics,
    open_files::OpenFiles,
    rotation::Rotations,
    searcher::Searcher,
    sessions::Sessions,
    shelf::Shelf,
    start, takeover,
};

/// A searcher of one index.
pub struct SearcherServer {
    searcher: Arc<Searcher>,
    identity: Identity,
    trust: Trust,
    accept: AcceptLimits,
    requests_per_connection: usize,
    metrics_address: Option<SocketAddr>,
    grace: Duration,
}

impl SearcherServer {
    /// A searcher of the index in `folder`, whose storage key has `key` as this
    /// searcher's part.
    ///
    /// An index that opens with the keeper's part only is opened by
    /// [`serve`](Self::serve), for which the keeper need not be there yet; any
    /// other one is opened here.
    ///
    /// # Errors
    /// When there is no index, it cannot be served, or the system refuses a
    /// thread.
    pub fn new(
        folder: impl Into<PathBuf>,
        key: StorageKey,
        config: SearcherConfig,
    ) -> Result<Self, SearcherError> {
        let folder = folder.into();
        let found = Index::peek(&folder)?;
        if found.released && config.keeper.is_none() {
            return Err(SearcherError::Index(
                "the index opens only with its keeper's part of the key; start the searcher with the keeper's address"
                    .to_owned(),
            ));
        }
        let metrics = Arc::new(Metrics::default());
        let subject = Subject::new(config.configuration);
        let offer = Offer::new(config.attester, AttestedRole::Searcher, subject);
        let link = config.keeper.map(|keeper| {
            let access = KeeperAccess {
                demand: Demand::new(Arc::clone(&keeper.verifier), AttestedRole::Keeper),
                identity: config.identity.clone(),
                trust: config.trust.clone(),
                offer: offer.clone(),
                config: keeper,
            };
            KeeperLink::new(access, Arc::clone(&metrics))
        });
        let searcher = Searcher {
            folder,
            key,
            found,
            shelf: Shelf::default(),
            link,
            offer,
            workshop: Workshop {
                scan_threads: config.scan_threads,
                queue_limit: config.queue_limit,
                zero_pool: config.zero_pool,
                randomness: Arc::new(Randomness::new(config.seed)),
                metrics,
            },
            sessions: Sessions::new(config.sessions),
            rotations: Rotations::default(),
            changes: Changes::default(),
            compactor: Compactor::new(config.compaction),
            open_files: OpenFiles::new(config.open_files),
            rates: RateLimiter::new(config.rate),
            started: Instant::now(),
            cold: AtomicBool::new(false),
        };
        if !found.released {
            let key = || searcher.key.for_epoch(None, &found.index_id, found.epoch);
            let index = searcher.changes.folder.open(&searcher.folder, key)?;
            searcher.serve_first(Arc::new(Epoch::new(index, &searcher.workshop)?));
        }
        Ok(Self {
            searcher: Arc::new(searcher),
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
        Arc::clone(&self.searcher.workshop.metrics)
    }

    /// What the searcher saw so far.
    #[must_use]
    pub fn view(&self) -> SearcherView {
        self.searcher.metrics().view()
    }

    /// Completes once the index is open and requests are answered.
    pub fn opened(&self) -> impl Future<Output = ()> + Send + 'static {
        self.searcher.shelf.opened()
    }

    /// Serves until `shutdown` completes, then lets running requests finish
    /// within the grace time. Until the keeper has released the index, requests
    /// are answered with what is missing.
    ///
    /// # Errors
    /// When the metrics address cannot be used, the transport fails, the index
    /// does not open, or the keeper knows a newer state of it.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), SearcherError> {
        let metrics_listener = match self.metrics_address {
            Some(address) => Some(oboro_telemetry::bind(address).await?),
            None => None,
        };
        let options = AcceptOptions {
            limits: self.accept,
            allowed: vec![Role::Client, Role::Owner],
            offer: Some(self.searcher.offer.clone()),
            // Clients run where they like; what they may do is in their certificates.
            demands: HashMap::new(),
            ..AcceptOptions::default()
        };
        let incoming = serve_incoming(listener, &self.identity, &self.trust, options)
            .map_err(|error| SearcherError::Serve(error.to_string()))?;
        let _closing = Closing(Arc::clone(&self.searcher));
        let background = tokio::spawn(background(Arc::clone(&self.searcher), metrics_listener));
        let start = tokio::spawn({
            let searcher = Arc::clone(&self.searcher);
            async move { start::start(&searcher).await }
        });

        let (began, stopping) = tokio::sync::oneshot::channel();
        let server = tuned_server()
            .accept_http1(self.accept.http1)
            // The gate bounds each kind of request by itself.
            .timeout(limits::MAX_COMPACTION_TIME)
            .concurrency_limit_per_connection(self.requests_per_connection)
            .layer(GrpcWebLayer::new())
            .add_service(Gate::new(Arc::clone(&self.searcher)))
            .add_service(EncoderGate::new(self.searcher))
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
        let starting = start.abort_handle();
        let failed = async {
            match start.await {
                Ok(Err(error)) => error,
                _ => std::future::pending().await,
            }
        };
        let result = tokio::select! {
            result = server => result.map_err(|error| SearcherError::Serve(error.to_string())),
            () = grace => Ok(()),
            error = failed => Err(error),
        };
        starting.abort();
        background.abort();
        result
    }
}

/// Lets go of the index when the server ends, however it ends: another process
/// may change it then, though connections here may be open still.
struct Closing(Arc<Searcher>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.compactor.cancel();
        self.0.changes.close();
    }
}

/// Ends sessions, stages, rotations and epochs whose time is over, merges
/// segments, tells the keeper what it missed, serves the metrics.
async fn background(searcher: Arc<Searcher>, metrics: Option<TcpListener>) {
    let expire = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = Instant::now();
            searcher.sessions.expire(now);
            searcher.changes.stages.expire(now);
            searcher.rotations.expire(now);
            for epoch in searcher.shelf.expire(now) {
                if let Some(link) = &searcher.link {
                    link.forget(&epoch);
                }
                tracing::info!(epoch = epoch.number(), "epoch no longer served");
            }
        }
    };
    let text = async {
        if let Some(listener) = metrics {
            let metrics = Arc::clone(&searcher.workshop.metrics);
            oboro_telemetry::serve(listener, move || metrics.render()).await;
        }
    };
    let record = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            searcher.record_later().await;
        }
    };
    let compactions = Arc::clone(&searcher).compactions();
    let takeover = takeover::watch(&searcher);
    tokio::join!(expire, text, record, compactions, takeover);
}
