//! Clients that connect, search for a while, and go.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use oboro_attest::{Policy, PolicyVerifier};
use oboro_channel::{Identity, Trust};
use oboro_client::{Client, ClientConfig, ClientError, Rerank, SearchOptions, SearchResult};
use oboro_index::keys::ClientKey;
use oboro_simulated::SimulatedVerifier;
use rand_core::{Rng, SeedableRng};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::Outcome;
use crate::data::{Data, TRUTH};
use crate::roles::Roles;

/// A search may take this long, keeper away or not.
const DEADLINE: Duration = Duration::from_secs(10);
/// A search that has not come back by then hangs.
const HUNG: Duration = Duration::from_secs(20);

/// What all clients met.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answers: AtomicU64,
    neighbours: AtomicU64,
    right: AtomicU64,
    connections: AtomicU64,
    again: AtomicU64,
    fault: Mutex<Option<String>>,
}

impl Tally {
    /// The first fault, if there was one.
    pub(crate) fn check(&self) -> Outcome<()> {
        match &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault.clone()),
            None => Ok(()),
        }
    }

    fn fault(&self, what: String) {
        self.fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(what);
    }

    pub(crate) fn recall(&self) -> f64 {
        self.right.load(Relaxed) as f64 / self.neighbours.load(Relaxed).max(1) as f64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} answers, {TRUTH}-recall@{TRUTH} {:.4}, {} connections, {} requests tried again",
            self.answers.load(Relaxed),
            self.recall(),
            self.connections.load(Relaxed),
            self.again.load(Relaxed)
        )
    }
}

/// The clients' tasks.
pub(crate) struct Clients {
    tasks: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

struct Task {
    address: String,
    folder: PathBuf,
    data: Arc<Data>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    rng: ChaCha20Rng,
}

impl Clients {
    pub(crate) fn start(
        runtime: &Runtime,
        count: usize,
        roles: &Roles,
        data: &Arc<Data>,
        tally: &Arc<Tally>,
        seed: u64,
    ) -> Outcome<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count)
            .map(|number| {
                let mut rng = ChaCha20Rng::seed_from_u64(seed);
                rng.set_stream(1 + number as u64);
                let task = Task {
                    address: roles.searcher_address().to_owned(),
                    folder: roles.keys("client"),
                    data: Arc::clone(data),
                    tally: Arc::clone(tally),
                    stop: Arc::clone(&stop),
                    rng,
                };
                runtime.spawn(task.run())
            })
            .collect();
        Ok(Self { tasks, stop })
    }

    /// Asks all to stop; the number that did not.
    pub(crate) fn stop(self, runtime: &Runtime) -> usize {
        self.stop.store(true, Relaxed);
        runtime.block_on(async {
            let mut hung = 0;
            for task in self.tasks {
                if tokio::time::timeout(2 * HUNG, task).await.is_err() {
                    hung += 1;
                }
            }
            hung
        })
    }
}

impl Task {
    async fn run(mut self) {
        while !self.stop.load(Relaxed) {
            let client = match self.connect().await {
                Ok(client) => client,
                Err(error) => {
                    self.trouble("connect", &error).await;
                    continue;
                }
            };
            self.tally.connections.fetch_add(1, Relaxed);
            let searches = 1 + self.rng.next_u32() % 300;
            for _ in 0..searches {
                if self.stop.load(Relaxed) {
                    return;
                }
                self.search(&client).await;
            }
        }
    }

    async fn connect(&mut self) -> Result<Client, ClientError> {
        let unusable = |error: &dyn fmt::Display| ClientError::System(error.to_string());
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| unusable(&error))?;
        let read = |name: &str| self.folder.join(name);
        let config = ClientConfig::new(
            self.address.clone(),
            Identity::read_file(&read("identity.pem")).map_err(|error| unusable(&error))?,
            Trust::read_file(&read("trust.pem")).map_err(|error| unusable(&error))?,
            ClientKey::read(read("client.key")).map_err(|error| unusable(&error))?,
            Arc::new(PolicyVerifier::new(
                Policy::default().allowing_simulated(),
                vec![Arc::new(SimulatedVerifier)],
            )),
            seed,
        );
        match tokio::time::timeout(HUNG, Client::connect(config)).await {
            Ok(connected) => connected,
            Err(_) => {
                self.tally.fault(format!("connecting hung for {HUNG:?}"));
                Err(ClientError::System("it hangs".to_owned()))
            }
        }
    }

    async fn search(&mut self, client: &Client) {
        let query = self.rng.next_u32() as usize % self.data.queries.len();
        let rerank = match self.rng.next_u32() % 4 {
            0 => Rerank::Off,
            1 => Rerank::Candidates(200),
            _ => Rerank::Candidates(100),
        };
        let options = SearchOptions {
            k: 1 + self.rng.next_u32() as usize % TRUTH,
            rerank,
            deadline: DEADLINE,
        };
        let begin = Instant::now();
        let found = client.search(&self.data.queries[query], &options);
        match tokio::time::timeout(HUNG, found).await {
            Ok(Ok(result)) => self.judge(query, &options, &result),
            Ok(Err(error)) => self.trouble("search", &error).await,
            Err(_) => self
                .tally
                .fault(format!("a search hung for {:?}", begin.elapsed())),
        }
    }

    /// Errors that trying again gets over are what a storm is about; others are faults.
    async fn trouble(&mut self, what: &str, error: &ClientError) {
        let passing =
            error.is_unreachable() || error.reason().is_some_and(|reason| reason.is_transient());
        if !passing {
            self.tally.fault(format!("{what}: {error}"));
        }
        self.tally.again.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn judge(&self, query: usize, options: &SearchOptions, result: &SearchResult) {
        let wrong = |what: &str| self.tally.fault(format!("a wrong answer: {what}"));
        let found = &result.neighbours;
        if found.len() != options.k {
            wrong("another number of neighbours than asked for");
        }
        self.tally.answers.fetch_add(1, Relaxed);
        let mut ids: Vec<u64> = found.iter().map(|neighbour| neighbour.id).collect();
        let truth = &self.data.truth[query][..options.k];
        let right = ids.iter().filter(|id| truth.contains(id)).count();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != found.len() {
            wrong("one neighbour twice");
        }
        for neighbour in found {
            let distance = self.data.distance(query, neighbour.id);
            match options.rerank {
                _ if distance.is_none() => wrong("an id that no vector has"),
                Rerank::Candidates(_) if distance != Some(neighbour.distance) => {
                    wrong("a distance that is not the exact one");
                }
                _ => {}
            }
        }
        if matches!(options.rerank, Rerank::Candidates(_)) {
            if !found.is_sorted_by(|a, b| a.distance <= b.distance) {
                wrong("neighbours out of order");
            }
            self.tally.neighbours.fetch_add(options.k as u64, Relaxed);
            self.tally.right.fetch_add(right as u64, Relaxed);
            if options.k == TRUTH && right < TRUTH / 2 {
                wrong("fewer than half of the true neighbours");
            }
        }
    }
}
