//! Clients that connect, search for a while, and go.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use oboro_attest::{Policy, PolicyVerifier};
use oboro_channel::{Identity, Trust};
use oboro_client::{
    Client, ClientConfig, ClientError, Neighbour, Rerank, SearchOptions, SearchResult,
};
use oboro_index::keys::ClientKey;
use oboro_simulated::SimulatedVerifier;
use rand_core::{Rng, SeedableRng};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::Outcome;
use crate::data::{Data, TRUTH};
use crate::guests::{Guests, Seen, State};
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

    pub(crate) fn fault(&self, what: String) {
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
    guests: Arc<Guests>,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    rng: ChaCha20Rng,
}

impl Clients {
    pub(crate) fn start(
        runtime: &Runtime,
        count: usize,
        roles: &Roles,
        world: &World,
        seed: u64,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count)
            .map(|number| {
                let mut rng = ChaCha20Rng::seed_from_u64(seed);
                rng.set_stream(1 + number as u64);
                runtime.spawn(Task::new(roles, world, &stop, rng).run())
            })
            .collect();
        Self { tasks, stop }
    }

    /// Asks every query once, while nothing changes: each guest that should be there is.
    pub(crate) fn sweep(runtime: &Runtime, roles: &Roles, world: &World) -> Outcome<()> {
        let task = Task::new(roles, world, &Arc::default(), ChaCha20Rng::seed_from_u64(0));
        runtime.block_on(task.sweep())
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

/// What clients search in, and where they tell what they met.
pub(crate) struct World {
    pub(crate) data: Arc<Data>,
    pub(crate) guests: Arc<Guests>,
    pub(crate) tally: Arc<Tally>,
}

impl Task {
    fn new(roles: &Roles, world: &World, stop: &Arc<AtomicBool>, rng: ChaCha20Rng) -> Self {
        Self {
            address: roles.searcher_address().to_owned(),
            folder: roles.keys("client"),
            data: Arc::clone(&world.data),
            guests: Arc::clone(&world.guests),
            tally: Arc::clone(&world.tally),
            stop: Arc::clone(stop),
            rng,
        }
    }

    async fn sweep(mut self) -> Outcome<()> {
        let client = self.connect().await.map_err(|error| error.to_string())?;
        let options = SearchOptions {
            k: TRUTH,
            deadline: DEADLINE,
            ..SearchOptions::default()
        };
        for query in 0..self.data.queries.len() {
            let seen = self.guests.see_all();
            let result = client
                .search(&self.data.queries[query], &options)
                .await
                .map_err(|error| format!("in a calm: {error}"))?;
            self.judge(query, &options, &result, &seen);
        }
        self.tally.check()
    }

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
            ..SearchOptions::default()
        };
        let seen = self.guests.see_all();
        let begin = Instant::now();
        let found = client.search(&self.data.queries[query], &options);
        match tokio::time::timeout(HUNG, found).await {
            Ok(Ok(result)) => self.judge(query, &options, &result, &seen),
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

    /// `seen` are the guests as they were before the query went out.
    fn judge(&self, query: usize, options: &SearchOptions, result: &SearchResult, seen: &[Seen]) {
        let wrong = |what: &str| self.tally.fault(format!("a wrong answer: {what}"));
        let found = &result.neighbours;
        if found.len() != options.k {
            wrong("another number of neighbours than asked for");
        }
        self.tally.answers.fetch_add(1, Relaxed);
        let mut ids: Vec<u64> = found.iter().map(|neighbour| neighbour.id).collect();
        let truth = &self.data.truth[query][..options.k];
        let right = ids.iter().filter(|id| truth.contains(id)).count();
        let others = ids
            .iter()
            .filter(|id| self.guests.of(**id).is_none())
            .count();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != found.len() {
            wrong("one neighbour twice");
        }
        let reranked = matches!(options.rerank, Rerank::Candidates(_));
        if let Err(what) = self.judge_guests(query, found, seen, reranked) {
            wrong(what);
        }
        for neighbour in found {
            if self.guests.of(neighbour.id).is_some() {
                continue;
            }
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
            self.tally.neighbours.fetch_add(others as u64, Relaxed);
            self.tally.right.fetch_add(right as u64, Relaxed);
            if options.k == TRUTH && right < others / 2 {
                wrong("fewer than half of the true neighbours");
            }
        }
    }

    /// Nothing that was deleted or never committed is found, and what was committed is.
    fn judge_guests(
        &self,
        query: usize,
        found: &[Neighbour],
        seen: &[Seen],
        reranked: bool,
    ) -> Result<(), &'static str> {
        let sure = |guest: usize| {
            let still = self.guests.see(guest) == seen[guest];
            still.then(|| seen[guest].state())
        };
        for neighbour in found {
            let Some(guest) = self.guests.of(neighbour.id) else {
                continue;
            };
            let is_at = |version| {
                !reranked
                    || neighbour.distance == Guests::distance(&self.data, query, guest, version)
            };
            match sure(guest) {
                Some(State::Absent) => return Err("a vector that was deleted"),
                Some(State::Present(version)) if !is_at(version) => {
                    return Err("a vector that was replaced");
                }
                _ if !is_at(0) && !is_at(1) => return Err("a distance of no version of a vector"),
                _ => {}
            }
        }
        let nearest = found.first().map(|neighbour| neighbour.id);
        match sure(query) {
            Some(State::Present(_)) if reranked && nearest != Some(Guests::id(query)) => {
                Err("a vector that was committed is not found")
            }
            _ => Ok(()),
        }
    }
}
