//! The scan engine: one queue of tables, passes over the codes shared by them.
//!
//! A pass reads every code once for all tables that take part. A lone query
//! gets all threads at once and so the lowest latency; when queries wait, up
//! to [`MAX_BATCH`] of them share the next pass, so that memory is read once
//! for all. The queue is bounded: beyond it a query is refused at once instead
//! of waiting for an answer that would come too late.
//!
//! What is searched can be replaced at any time. A pass works on the snapshot
//! that was newest when it began, and hands it out with what it found: segment
//! and position mean something in that snapshot only.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, mpsc},
    time::{Duration, Instant},
};

use oboro_quant::QuantError;
use tokio::sync::oneshot;

use crate::{
    SearcherError,
    merge::Key,
    metrics::Metrics,
    pass::{Asked, Pass},
    snapshot::Codes,
};

/// Most tables in one pass: more would push the codes of a group out of the
/// second-level cache between tables and gain nothing.
pub const MAX_BATCH: usize = 8;

/// The candidates of one table, ascending, and how they came about.
pub(crate) struct Ranked<S> {
    /// Exactly as many as asked for, filled up with keys that are
    /// [missing](Key::is_missing) where fewer vectors may be candidates.
    pub(crate) keys: Vec<Key>,
    /// Where they were found.
    pub(crate) snapshot: Arc<S>,
    /// Time from submission to the start of the pass.
    pub(crate) queue: Duration,
    /// Time of the pass.
    pub(crate) scan: Duration,
    /// Tables that shared the pass.
    pub(crate) batch: usize,
}

struct Job<S> {
    asked: Asked,
    deadline: Instant,
    submitted: Instant,
    reply: Reply<S>,
}

struct Queue<S> {
    jobs: VecDeque<Job<S>>,
    stopping: bool,
    /// A pass is going on.
    busy: bool,
}

struct Shared<S> {
    queue: Mutex<Queue<S>>,
    arrived: Condvar,
    limit: usize,
    /// What the next pass searches.
    newest: RwLock<Arc<S>>,
    metrics: Arc<Metrics>,
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Arc<S> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Owns the threads that run the passes.
pub(crate) struct ScanEngine<S> {
    shared: Arc<Shared<S>>,
    threads: rayon::ThreadPool,
    /// Receives when the dispatcher has returned.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl<S: Codes> ScanEngine<S> {
    /// Starts the engine over `snapshot` with `threads` threads a pass and room
    /// for `limit` waiting tables.
    pub(crate) fn start(
        snapshot: Arc<S>,
        threads: usize,
        limit: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, SearcherError> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                stopping: false,
                busy: false,
            }),
            arrived: Condvar::new(),
            limit,
            newest: RwLock::new(snapshot),
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
            dispatch(&worker, threads);
            drop(end);
        });
        Ok(Self {
            shared,
            threads: pool,
            ended: Mutex::new(ended),
        })
    }

    /// What passes that begin now search.
    pub(crate) fn snapshot(&self) -> Arc<S> {
        self.shared.snapshot()
    }

    /// Replaces what is searched: a query that comes after this returned finds
    /// nothing of the snapshot before.
    pub(crate) fn replace(&self, snapshot: Arc<S>) {
        let mut newest = self
            .shared
            .newest
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *newest, snapshot);
        drop(newest);
        // Freeing what nobody else holds takes time: not under the lock.
        drop(before);
    }

    /// Searches with one table and waits for its candidates.
    pub(crate) async fn scan(
        &self,
        asked: Asked,
        deadline: Instant,
    ) -> Result<Ranked<S>, SearcherError> {
        let (reply, answer) = oneshot::channel();
        let job = Job {
            asked,
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

impl<S> Drop for ScanEngine<S> {
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

fn dispatch<S: Codes>(shared: &Shared<S>, threads: usize) {
    let mut pass = Pass::new(threads);
    while let Some(jobs) = next_batch(shared) {
        let started = Instant::now();
        // Taken after the jobs: each is searched on what was newest when it
        // came, or on something newer.
        let snapshot = shared.snapshot();
        let batch = jobs.len();
        let mut asked = Vec::with_capacity(batch);
        let mut waiting = Vec::with_capacity(batch);
        for job in jobs {
            asked.push(job.asked);
            waiting.push((job.submitted, job.reply));
        }
        let found = match pass.run(&*snapshot, asked) {
            Ok(found) => found,
            Err(error) => {
                refuse(waiting.into_iter().map(|(_, reply)| reply), &error);
                continue;
            }
        };
        let scan = started.elapsed();
        Metrics::add(&shared.metrics.passes, 1);
        Metrics::add(&shared.metrics.tables, batch);
        for ((submitted, reply), keys) in waiting.into_iter().zip(found) {
            // A client that went away meanwhile needs no answer.
            let _ = reply
                .send(Ok(Ranked {
                    keys,
                    snapshot: Arc::clone(&snapshot),
                    queue: started.duration_since(submitted),
                    scan,
                    batch,
                }))
                .is_ok();
        }
    }
}

type Reply<S> = oneshot::Sender<Result<Ranked<S>, SearcherError>>;

fn refuse<S>(replies: impl Iterator<Item = Reply<S>>, error: &QuantError) {
    for reply in replies {
        let _ = reply.send(Err(SearcherError::Scan(error.to_string())));
    }
}

/// Waits for work; takes the first job and those behind it that ask for as
/// many candidates. `None` when the engine stops.
fn next_batch<S>(shared: &Shared<S>) -> Option<Vec<Job<S>>> {
    let mut queue = shared.lock();
    queue.busy = false;
    loop {
        if queue.stopping {
            queue.jobs.clear();
            return None;
        }
        let now = Instant::now();
        let mut batch: Vec<Job<S>> = Vec::with_capacity(MAX_BATCH);
        let mut index = 0;
        while index < queue.jobs.len() && batch.len() < MAX_BATCH {
            let fits = batch
                .first()
                .is_none_or(|head| head.asked.candidates == queue.jobs[index].asked.candidates);
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

#[cfg(test)]
mod tests;
