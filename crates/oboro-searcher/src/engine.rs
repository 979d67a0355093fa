//! The scan engine: one queue of tables, passes over the codes shared by them.
//!
//! A pass reads every code once for all tables that take part. A lone query
//! gets all threads at once and so the lowest latency; when queries wait, up
//! to [`MAX_BATCH`] of them share the next pass, so that memory is read once
//! for all. The queue is bounded: beyond it a query is refused at once instead
//! of waiting for an answer that would come too late.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use oboro_quant::{BlockedCodes, QuantError, QuantizedTable, Scanner, SelectionPlan};
use tokio::sync::oneshot;

use crate::{
    SearcherError,
    merge::{FILLER, Key, merge_keep_best},
    metrics::Metrics,
};

/// Most tables in one pass: more would push the codes of a group out of the
/// second-level cache between tables and gain nothing.
pub const MAX_BATCH: usize = 8;

/// Plans kept for different numbers of candidates.
const MAX_PLANS: usize = 64;

/// What the engine searches: the codes of every segment.
pub(crate) trait Codes: Send + Sync + 'static {
    /// Number of segments.
    fn segments(&self) -> usize;
    /// The codes of segment `index`.
    fn codes(&self, index: usize) -> &BlockedCodes;
}

/// The candidates of one table, ascending, and how they came about.
pub(crate) struct Ranked {
    /// Exactly as many as asked for, filled up with [`FILLER`] where the index
    /// holds fewer.
    pub(crate) keys: Vec<Key>,
    /// Time from submission to the start of the pass.
    pub(crate) queue: Duration,
    /// Time of the pass.
    pub(crate) scan: Duration,
    /// Tables that shared the pass.
    pub(crate) batch: usize,
}

struct Job {
    table: QuantizedTable,
    candidates: usize,
    deadline: Instant,
    submitted: Instant,
    reply: Reply,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopping: bool,
    /// A pass is going on.
    busy: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
    limit: usize,
    metrics: Arc<Metrics>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns the threads that run the passes.
pub(crate) struct ScanEngine {
    shared: Arc<Shared>,
    threads: rayon::ThreadPool,
    /// Receives when the dispatcher has returned.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl ScanEngine {
    /// Starts the engine over `codes` with `threads` threads a pass and room
    /// for `limit` waiting tables.
    pub(crate) fn start(
        codes: Arc<dyn Codes>,
        threads: usize,
        limit: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SearcherError> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            arrived: Condvar::new(),
            limit,
            metrics,
        });
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("oboro-scan-{index}"))
            .build()
            .map_err(|error| SearcherError::Thread(io::Error::other(error)))?;
        let worker = Arc::clone(&shared);
        let (end, ended) = mpsc::channel();
        // The dispatcher is one of the pool's own threads: it takes part in the
        // pass itself, and a query costs one hand-off instead of two.
        pool.spawn(move || {
            dispatch(&worker, &*codes, threads);
            drop(end);
        });
        Ok(Self {
            shared,
            threads: pool,
            ended: Mutex::new(ended),
        })
    }

    /// Searches with one table and waits for its candidates.
    pub(crate) async fn scan(
        &self,
        table: QuantizedTable,
        candidates: usize,
        deadline: Instant,
    ) -> Result<Ranked, SearcherError> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            table,
            candidates,
            deadline,
            submitted: Instant::now(),
            reply,
        };
        {
            let mut queue = self.shared.lock();
            if queue.stopping {
                return Err(SearcherError::Stopping);
            }
            if queue.jobs.len() >= self.shared.limit {
                return Err(SearcherError::QueueFull {
                    waiting: queue.jobs.len(),
                });
            }
            queue.jobs.push_back(job);
        }
        self.shared.arrived.notify_one();
        // The sender is only dropped unanswered when the engine stops.
        answer.await.unwrap_or(Err(SearcherError::Stopping))
    }
}

impl Drop for ScanEngine {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.arrived.notify_all();
        // The pool ends by itself once the dispatcher has returned.
        if let Ok(ended) = self.ended.get_mut() {
            let _ = ended.recv();
        }
        tracing::debug!(
            threads = self.threads.current_num_threads(),
            "scan engine stopped"
        );
    }
}

fn dispatch(shared: &Shared, codes: &dyn Codes, threads: usize) {
    let scanner = Scanner::new();
    let mut plans: HashMap<usize, Arc<[SelectionPlan]>> = HashMap::new();
    while let Some(jobs) = next_batch(shared) {
        let candidates = jobs[0].candidates;
        if plans.len() >= MAX_PLANS {
            plans.clear();
        }
        let plan = match plans.get(&candidates) {
            Some(plan) => Ok(Arc::clone(plan)),
            None => make_plans(codes, candidates).inspect(|plan| {
                plans.insert(candidates, Arc::clone(plan));
            }),
        };
        match plan {
            Ok(plan) => pass(&scanner, shared, codes, &plan, jobs, threads),
            Err(error) => refuse(jobs.into_iter().map(|job| job.reply), &error),
        }
    }
}

type Reply = oneshot::Sender<Result<Ranked, SearcherError>>;

fn refuse(replies: impl Iterator<Item = Reply>, error: &QuantError) {
    for reply in replies {
        let _ = reply.send(Err(SearcherError::Scan(error.to_string())));
    }
}

/// Waits for work; takes the first job and those behind it that ask for as
/// many candidates. `None` when the engine stops.
fn next_batch(shared: &Shared) -> Option<Vec<Job>> {
    let mut queue = shared.lock();
    queue.busy = false;
    loop {
        if queue.stopping {
            queue.jobs.clear();
            return None;
        }
        let now = Instant::now();
        let mut batch: Vec<Job> = Vec::with_capacity(MAX_BATCH);
        let mut index = 0;
        while index < queue.jobs.len() && batch.len() < MAX_BATCH {
            let fits = batch
                .first()
                .is_none_or(|head| head.candidates == queue.jobs[index].candidates);
            if !fits {
                index += 1;
                continue;
            }
            let Some(job) = queue.jobs.remove(index) else {
                break;
            };
            if job.reply.is_closed() {
                // The client went away while it waited.
            } else if job.deadline <= now {
                let _ = job.reply.send(Err(SearcherError::Deadline));
            } else {
                batch.push(job);
            }
        }
        if !batch.is_empty() {
            queue.busy = true;
            return Some(batch);
        }
        queue = shared
            .arrived
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

fn make_plans(codes: &dyn Codes, candidates: usize) -> Result<Arc<[SelectionPlan]>, QuantError> {
    (0..codes.segments())
        .map(|segment| {
            let vectors = codes.codes(segment).len();
            SelectionPlan::new(vectors, candidates.min(vectors))
        })
        .collect()
}

fn pass(
    scanner: &Scanner,
    shared: &Shared,
    codes: &dyn Codes,
    plans: &[SelectionPlan],
    jobs: Vec<Job>,
    threads: usize,
) {
    let started = Instant::now();
    let candidates = jobs[0].candidates;
    let batch = jobs.len();
    let mut tables = Vec::with_capacity(batch);
    let mut waiting = Vec::with_capacity(batch);
    for job in jobs {
        tables.push(job.table);
        waiting.push((job.submitted, job.reply));
    }
    let width = candidates.next_power_of_two();
    let mut best: Vec<Vec<Key>> = Vec::new();
    for (segment, plan) in plans.iter().enumerate() {
        let found = match scanner.search(codes.codes(segment), &tables, plan, threads) {
            Ok(found) => found,
            Err(error) => return refuse(waiting.into_iter().map(|(_, reply)| reply), &error),
        };
        let lists = found.into_iter().map(|list| {
            let mut keys = Vec::with_capacity(width);
            keys.extend(
                list.iter()
                    .map(|c| Key::new(c.score, segment as u16, c.position)),
            );
            keys.resize(width, FILLER);
            keys
        });
        if segment == 0 {
            best = lists.collect();
        } else {
            for (kept, offered) in best.iter_mut().zip(lists) {
                merge_keep_best(kept, &offered);
            }
        }
    }
    let scan = started.elapsed();
    Metrics::add(&shared.metrics.passes, 1);
    Metrics::add(&shared.metrics.tables, batch);
    for ((submitted, reply), mut keys) in waiting.into_iter().zip(best) {
        keys.truncate(candidates);
        let queue = started.duration_since(submitted);
        // A client that went away meanwhile needs no answer.
        let _ = reply
            .send(Ok(Ranked {
                keys,
                queue,
                scan,
                batch,
            }))
            .is_ok();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    const M: usize = 4;
    const K: usize = 256;

    /// Segments of made-up codes; a pass waits while they are held.
    struct Made {
        segments: Vec<BlockedCodes>,
        held: AtomicBool,
    }

    impl Codes for Made {
        fn segments(&self) -> usize {
            self.segments.len()
        }

        fn codes(&self, index: usize) -> &BlockedCodes {
            while self.held.load(Relaxed) {
                std::thread::yield_now();
            }
            &self.segments[index]
        }
    }

    fn numbers(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        }
    }

    fn made(sizes: &[usize]) -> Arc<Made> {
        let mut next = numbers(1);
        let segments = sizes
            .iter()
            .map(|&n| {
                let rows: Vec<u8> = (0..n * M).map(|_| (next() % K as u64) as u8).collect();
                BlockedCodes::from_rows(&rows, M, 8).unwrap()
            })
            .collect();
        Arc::new(Made {
            segments,
            held: AtomicBool::new(false),
        })
    }

    fn table(seed: u64) -> QuantizedTable {
        let mut next = numbers(seed);
        let similarities: Vec<f32> = (0..M * K).map(|_| (next() % 1_000) as f32).collect();
        QuantizedTable::from_similarities(&similarities, M, K).unwrap()
    }

    fn expected(made: &Made, table: &QuantizedTable, candidates: usize) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for (segment, codes) in made.segments.iter().enumerate() {
            keys.extend((0..codes.len()).map(|position| {
                Key::new(
                    table.score(&codes.row(position)),
                    segment as u16,
                    position as u32,
                )
            }));
        }
        keys.sort();
        keys.truncate(candidates);
        keys
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn finds_the_best_of_all_segments() {
        for sizes in [&[5_000_usize][..], &[700, 3, 64, 1_000]] {
            let made = made(sizes);
            let metrics = Arc::new(Metrics::default());
            let engine = ScanEngine::start(Arc::clone(&made) as _, 2, 10, metrics).unwrap();
            for (seed, candidates) in [(1, 1), (2, 100), (3, 37), (4, 600)] {
                let found = engine.scan(table(seed), candidates, soon()).await.unwrap();
                assert_eq!(found.keys, expected(&made, &table(seed), candidates));
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn waiting_queries_share_passes_and_a_full_queue_refuses() {
        let made = made(&[2_000]);
        let metrics = Arc::new(Metrics::default());
        let engine = Arc::new(
            ScanEngine::start(Arc::clone(&made) as _, 1, 12, Arc::clone(&metrics)).unwrap(),
        );
        made.held.store(true, Relaxed);
        let ask = |seed: u64, candidates: usize| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.scan(table(seed), candidates, soon()).await })
        };
        let first = ask(0, 10);
        // The first is taken and held; then twelve may wait.
        while !engine.shared.lock().busy {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let waiting: Vec<_> = (1..=12)
            .map(|seed| ask(seed, if seed == 6 { 20 } else { 10 }))
            .collect();
        while engine.shared.lock().jobs.len() < 12 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let refused = engine.scan(table(13), 10, soon()).await;
        assert!(matches!(
            refused,
            Err(SearcherError::QueueFull { waiting: 12 })
        ));
        made.held.store(false, Relaxed);
        assert_eq!(first.await.unwrap().unwrap().batch, 1);
        let mut batches = Vec::new();
        for (seed, job) in (1..=12).zip(waiting) {
            let ranked = job.await.unwrap().unwrap();
            let candidates = if seed == 6 { 20 } else { 10 };
            assert_eq!(ranked.keys, expected(&made, &table(seed), candidates));
            batches.push(ranked.batch);
        }
        // Twelve waiting: eight of the eleven that ask for ten, the one that
        // asks for twenty alone, and the three left.
        assert_eq!(
            batches.iter().filter(|&&b| b == 8).count(),
            8,
            "{batches:?}"
        );
        assert_eq!(batches[5], 1, "{batches:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn late_and_abandoned_queries_are_not_scanned() {
        let made = made(&[2_000]);
        let metrics = Arc::new(Metrics::default());
        let engine = Arc::new(
            ScanEngine::start(Arc::clone(&made) as _, 1, 12, Arc::clone(&metrics)).unwrap(),
        );
        let late = engine.scan(table(1), 10, Instant::now()).await;
        assert!(matches!(late, Err(SearcherError::Deadline)));
        made.held.store(true, Relaxed);
        let first = {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.scan(table(0), 10, soon()).await })
        };
        while !engine.shared.lock().busy {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let abandoned = {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.scan(table(2), 10, soon()).await })
        };
        while engine.shared.lock().jobs.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        abandoned.abort();
        let _ = abandoned.await;
        made.held.store(false, Relaxed);
        first.await.unwrap().unwrap();
        engine.scan(table(3), 10, soon()).await.unwrap();
        assert_eq!(metrics.tables.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn stops_when_dropped() {
        let engine = ScanEngine::start(made(&[100]), 2, 12, Arc::default()).unwrap();
        engine.scan(table(1), 10, soon()).await.unwrap();
        drop(engine);
    }
}
