//! Starting, serving and stopping a keeper.

use crate::KeeperError;
use crate::config::KeeperConfig;
use crate::gate::RoleGateLayer;
use crate::generation::GenerationService;
use crate::metrics::MetricsSnapshot;
use crate::service::Service;
use crate::shared::Shared;
use crate::state::{IndexState, KeeperState};
use crate::view::{ByteCounts, KeeperView};
use oboro_attest::AttestedRole;
use oboro_channel::{AcceptOptions, Demand, Identity, Role, Trust, serve_incoming, tuned_server};
use oboro_ckks::PublicKey;
use oboro_protocol::generation::{self, v1::keeper_generation_server::KeeperGenerationServer};
use oboro_protocol::{limits, v1::keeper_server};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Who may connect; [`crate::gate`] decides what each may ask.
const PERMITTED: [Role; 3] = [Role::Searcher, Role::Client, Role::Owner];

/// How often the number of tables per searcher goes to the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// A keeper. Clones share one state.
///
/// Searchers are let in with evidence only, demanded anew on every connection, and no
/// connection lasts longer than [`KeeperConfig::connection_age`]. The keeper's own
/// evidence names the set of keys it holds at the time; after a key was made or retired,
/// peers see the new set when they connect again. Codebooks prepared under a retired key
/// are forgotten: their searcher is answered `UNKNOWN_HANDLE`, and `BAD_REQUEST` when it
/// prepares them again.
#[derive(Clone)]
pub struct KeeperServer {
    shared: Arc<Shared>,
    identity: Identity,
    trust: Trust,
    accept: AcceptOptions,
    requests_per_connection: usize,
    connection_age: Duration,
    metrics_address: Option<SocketAddr>,
    grace: Duration,
}

impl KeeperServer {
    /// A keeper with the given state.
    ///
    /// # Errors
    /// [`KeeperError::Role`] for an identity of another role.
    pub fn new(state: KeeperState, config: KeeperConfig) -> Result<Self, KeeperError> {
        if config.identity.role() != Role::Keeper {
            return Err(KeeperError::Role(config.identity.role().name()));
        }
        let shared = Arc::new(Shared::new(state, &config));
        let demand = Demand::new(config.verifier, AttestedRole::Searcher);
        let accept = AcceptOptions {
            limits: config.accept,
            allowed: PERMITTED.to_vec(),
            offer: Some(shared.offer.clone()),
            demands: [(Role::Searcher, demand)].into(),
            clock: config.clock,
            ..AcceptOptions::default()
        };
        Ok(Self {
            shared,
            identity: config.identity,
            trust: config.trust,
            accept,
            requests_per_connection: config.requests_per_connection,
            connection_age: config.connection_age,
            metrics_address: config.metrics_address,
            grace: config.grace,
        })
    }

    /// Serves until `shutdown` completes, then lets running requests end within the
    /// configured grace.
    ///
    /// # Errors
    /// When the metrics address or the channel cannot be set up, or the transport fails.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), KeeperError> {
        let metrics = match self.metrics_address {
            Some(address) => Some(oboro_telemetry::bind(address).await?),
            None => None,
        };
        let incoming = serve_incoming(listener, &self.identity, &self.trust, self.accept.clone())?;
        let service = keeper_server::KeeperServer::new(Service(self.shared.clone()))
            .max_decoding_message_size(limits::KEEPER_REQUEST_LIMIT)
            .max_encoding_message_size(limits::MAX_MASKS_MESSAGE_BYTES);
        let generation = KeeperGenerationServer::new(GenerationService(self.shared.clone()))
            .max_decoding_message_size(generation::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(generation::MAX_MESSAGE_BYTES);
        let (stopping, stopped) = oneshot::channel();
        let signal = async move {
            shutdown.await;
            let _ = stopping.send(());
        };
        let server = tuned_server()
            .timeout(limits::MAX_REQUEST_TIME)
            .max_connection_age(self.connection_age)
            .concurrency_limit_per_connection(self.requests_per_connection)
            .layer(RoleGateLayer(self.shared.metrics.clone()))
            .add_service(service)
            .add_service(generation)
            .serve_with_incoming_shutdown(incoming, signal);
        let grace = async {
            match stopped.await {
                Ok(()) => tokio::time::sleep(self.grace).await,
                Err(_) => std::future::pending().await,
            }
        };
        let text = async {
            if let Some(listener) = metrics {
                let metrics = self.shared.metrics.clone();
                oboro_telemetry::serve(listener, move || metrics.render()).await;
            }
            std::future::pending::<()>().await;
        };
        tracing::info!("keeper serving; {}", self.shared.state.protection());
        let result = tokio::select! {
            result = server => result.map_err(KeeperError::from),
            () = grace => Ok(()),
            () = self.report() => Ok(()),
            () = text => Ok(()),
        };
        self.log_counts();
        result
    }

    /// The CKKS public keys whose secret halves this keeper holds, oldest first.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.shared.state.public_keys()
    }

    /// The newest state of an index that this keeper has seen.
    #[must_use]
    pub fn newest(&self, index_id: &[u8; 16]) -> Option<IndexState> {
        self.shared.state.newest(index_id)
    }

    /// One sentence on what protects this keeper's state from being put back.
    #[must_use]
    pub fn protection(&self) -> String {
        self.shared.state.protection()
    }

    /// All counters at this moment.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.shared.metrics.snapshot()
    }

    /// The counters as Prometheus text.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.shared.metrics.render()
    }

    /// What this keeper saw so far.
    #[must_use]
    pub fn view(&self) -> KeeperView {
        let metrics = self.metrics();
        KeeperView {
            tables: metrics.tables,
            bytes_received: metrics.bytes_received,
            bytes_sent: metrics.bytes_sent,
            uniformity: self.shared.byte_counts.as_ref().map(ByteCounts::uniformity),
        }
    }

    async fn report(&self) {
        let mut reported = 0;
        loop {
            tokio::time::sleep(REPORT_INTERVAL).await;
            self.shared.generations.expire(Instant::now());
            let tables = self.metrics().tables;
            if tables != reported {
                reported = tables;
                self.log_counts();
            }
        }
    }

    fn log_counts(&self) {
        for peer in self.metrics().peers {
            let key = peer.spki_sha256[..8]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>();
            tracing::info!(
                peer = key,
                tables = peer.tables,
                refused = peer.refused,
                "tables so far"
            );
        }
    }
}
