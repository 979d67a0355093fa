//! `oboro bench --insert`: inserts while clients search.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oboro_client::{Client, SearchOptions};
use oboro_owner::{Changed, InsertOptions, InsertReport, VectorSource};
use oboro_vectors::{Ids, Matrix, Records, Refusal, VectorsError};
use serde::Serialize;

use super::connection::Connection;
use super::doctor;
use crate::failure::{Failure, Outcome};
use crate::figures::{median, round};
use crate::or_failure::{IntoFailure, OrFailure};
use crate::output;
use crate::place::Place;
use crate::progress::Progress;
use crate::roles;

/// How to measure.
pub(super) struct Settings {
    /// Searching clients.
    pub(super) clients: usize,
    /// Seconds of each part of a round.
    pub(super) seconds: u64,
    /// Rounds of which the medians count.
    pub(super) rounds: usize,
    /// Rows of a commit.
    pub(super) batch: usize,
    /// Most vectors a second, if bounded.
    pub(super) rate: Option<u32>,
}

/// What was measured. The names are a contract.
#[derive(Serialize)]
pub(super) struct Inserting {
    clients: usize,
    seconds: u64,
    rounds: usize,
    batch: usize,
    /// Vectors a second that were to be inserted, if bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    /// Vectors a second that searches find, over whole rounds, merges included.
    vectors_per_second: f64,
    /// Searches a second of all clients, nobody inserting.
    quiet_qps: f64,
    /// The same while vectors are inserted.
    inserting_qps: f64,
    /// The second over the first.
    ratio: f64,
    latency_p50_ms: f64,
    inserting_latency_p50_ms: f64,
    vectors_inserted: u64,
    segments_at_end: u64,
}

/// Vectors under new ids, for as long as somebody takes them.
struct Endless<'a> {
    base: &'a Matrix<f32>,
    next: u64,
    until: Instant,
    pace: Pace,
}

/// When vectors are given, so that no more than so many come in a second.
struct Pace {
    begin: Instant,
    rate: Option<u32>,
    given: u64,
}

impl Pace {
    const fn new(begin: Instant, rate: Option<u32>) -> Self {
        Self {
            begin,
            rate,
            given: 0,
        }
    }

    /// When `count` more may be given: once the time of those before is over.
    fn give(&mut self, count: u64) -> Instant {
        let at = match self.rate {
            None => self.begin,
            Some(rate) => {
                let seconds = self.given as f64 / f64::from(rate.max(1));
                self.begin + Duration::from_secs_f64(seconds)
            }
        };
        self.given += count;
        at
    }
}

impl VectorSource for Endless<'_> {
    fn rows(&self) -> usize {
        usize::MAX
    }

    fn dimension(&self) -> usize {
        self.base.dimension()
    }

    fn tag_names(&self) -> &[String] {
        &[]
    }

    fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError> {
        let at = self.pace.give(most as u64);
        if Instant::now().max(at) >= self.until {
            return Ok(None);
        }
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let rows = self.next..self.next + most as u64;
        self.next = rows.end;
        let vector = |row: u64| self.base.row((row % self.base.rows() as u64) as usize);
        Ok(Some(Records {
            dimension: self.base.dimension(),
            rows: rows.clone().collect(),
            vectors: rows.clone().flat_map(vector).copied().collect(),
            ids: Ids::Numbers(rows.collect()),
            tags: Vec::new(),
            payloads: Vec::new(),
            refused: Vec::new(),
        }))
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        Ok(())
    }

    fn error(&self, refusal: &Refusal) -> VectorsError {
        VectorsError::Refused {
            path: "the base".into(),
            row: refusal.row,
            why: refusal.why.clone(),
        }
    }
}

/// Searches a second of all clients, and the median time of one in milliseconds.
struct Searched {
    per_second: f64,
    p50_ms: f64,
}

/// Measures searching alone and beside inserts, one after the other, some rounds.
pub(super) fn run(
    place: &Place,
    connection: &Connection,
    base: &Matrix<f32>,
    queries: &[Vec<f32>],
    settings: &Settings,
    progress: &Progress,
) -> Outcome<Inserting> {
    let runtime = roles::runtime(doctor::cores())?;
    let options = connection.search_options(10)?;
    let clients = (0..settings.clients.max(1))
        .map(|_| {
            runtime
                .block_on(Client::connect(connection.config()?))
                .or_failure()
        })
        .collect::<Outcome<Vec<_>>>()?;
    let (mut place, key) = place.open()?;
    let encoder = place.encoder(key)?;
    let queries: Arc<[Vec<f32>]> = queries.into();
    let time = Duration::from_secs(settings.seconds.max(1));
    let mut next = 1_u64 << 40;
    let (mut quiet, mut beside) = (Vec::new(), Vec::new());
    let (mut rates, mut inserted) = (Vec::new(), 0);
    let bar = progress.bar("inserts beside searches", Some(settings.rounds as u64));
    // The first round warms up.
    for number in 0..=settings.rounds.max(1) {
        let alone = runtime.block_on(searching(&clients, &queries, &options, Until::time(time)))?;
        let done = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let search = runtime.spawn({
            let (clients, queries, options) = (clients.clone(), Arc::clone(&queries), options);
            async move { searching(&clients, &queries, &options, Until::flag(flag)).await }
        });
        let begin = Instant::now();
        let mut source = Endless {
            base,
            next,
            until: begin + time,
            pace: Pace::new(begin, settings.rate),
        };
        let insert = InsertOptions {
            batch: settings.batch,
            ..InsertOptions::default()
        };
        let report = place.insert(&*encoder, &mut source, &insert, IntoFailure::into_failure);
        let seconds = begin.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        let searched = runtime.block_on(search).map_err(Failure::failed)??;
        let InsertReport {
            changed: Changed {
                inserted: count, ..
            },
            ..
        } = report?;
        next = source.next;
        if number > 0 {
            quiet.push(alone);
            beside.push(searched);
            rates.push(count as f64 / seconds);
            inserted += count;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let of = |all: &[Searched], pick: fn(&Searched) -> f64| median(all.iter().map(pick).collect());
    let (before, during) = (of(&quiet, |s| s.per_second), of(&beside, |s| s.per_second));
    Ok(Inserting {
        clients: settings.clients,
        seconds: settings.seconds,
        rounds: settings.rounds,
        batch: settings.batch,
        rate: settings.rate,
        vectors_per_second: round(median(rates), 4),
        quiet_qps: round(before, 4),
        inserting_qps: round(during, 4),
        ratio: round(during / before.max(1e-9), 3),
        latency_p50_ms: round(of(&quiet, |s| s.p50_ms), 3),
        inserting_latency_p50_ms: round(of(&beside, |s| s.p50_ms), 3),
        vectors_inserted: inserted,
        segments_at_end: place.state()?.segments,
    })
}

/// How long clients search.
#[derive(Clone)]
struct Until {
    time: Option<Instant>,
    flag: Arc<AtomicBool>,
}

impl Until {
    fn time(time: Duration) -> Self {
        Self {
            time: Some(Instant::now() + time),
            flag: Arc::default(),
        }
    }

    fn flag(flag: Arc<AtomicBool>) -> Self {
        Self { time: None, flag }
    }

    fn is_over(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.time.is_some_and(|end| Instant::now() >= end)
    }
}

async fn searching(
    clients: &[Client],
    queries: &Arc<[Vec<f32>]>,
    options: &SearchOptions,
    until: Until,
) -> Outcome<Searched> {
    let next = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in clients {
        let (client, queries, next) = (client.clone(), Arc::clone(queries), Arc::clone(&next));
        let (options, until) = (*options, until.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            while !until.is_over() {
                let number = next.fetch_add(1, Ordering::Relaxed) as usize;
                let start = Instant::now();
                client
                    .search(&queries[number % queries.len()], &options)
                    .await?;
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, oboro_client::ClientError>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(task) = tasks.join_next().await {
        times.extend(task.map_err(Failure::failed)?.or_failure()?);
    }
    Ok(Searched {
        per_second: times.len() as f64 / begin.elapsed().as_secs_f64(),
        p50_ms: median(times),
    })
}

impl Inserting {
    pub(super) fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut line = |what: &str, value: String| writeln!(out, "  {what:44} {value}");
        line(
            &format!("inserts beside {} searching clients", self.clients),
            format!(
                "{:.0} vectors a second, {} in a commit",
                self.vectors_per_second, self.batch
            ),
        )?;
        line(
            "searches beside inserts, and alone",
            format!(
                "{:.0} and {:.0} a second ({:.0} %); medians {:.2} and {:.2} ms",
                self.inserting_qps,
                self.quiet_qps,
                100.0 * self.ratio,
                self.inserting_latency_p50_ms,
                self.latency_p50_ms
            ),
        )?;
        line(
            "vectors inserted, segments at the end",
            format!(
                "{}, {}",
                output::count(self.vectors_inserted),
                output::count(self.segments_at_end)
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_gives_what_was_asked_for_and_no_more() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin, Some(20_000));
        let times: Vec<_> = (0..4).map(|_| pace.give(8_000)).collect();
        let after = |ms| begin + Duration::from_millis(ms);
        assert_eq!(times, [begin, after(400), after(800), after(1_200)]);
        let mut free = Pace::new(begin, None);
        assert!((0..4).all(|_| free.give(8_000) == begin));
    }
}
