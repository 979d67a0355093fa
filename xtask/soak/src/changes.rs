//! Inserts, replacements, deletes and compactions, all the time, through the command.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use oboro_vectors::{Matrix, write_fvecs};
use rand_core::{Rng, SeedableRng};

use crate::Outcome;
use crate::clients::Tally;
use crate::data::{DIMENSION, Data};
use crate::guests::{Guests, State};
use crate::roles::Verbs;

/// Most guests of one change.
const MOST: usize = 24;
/// A change whose answer was lost may still be under way for so long.
const LATE: Duration = Duration::from_secs(4);
/// After a storm, an unsure change must be settled by then.
const SETTLED: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

/// What was done.
#[derive(Default)]
pub(crate) struct Counts {
    inserted: AtomicU64,
    replaced: AtomicU64,
    deleted: AtomicU64,
    compacted: AtomicU64,
    lost: AtomicU64,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} vectors inserted, {} replaced, {} deleted, {} compactions; {} changes without an answer",
            self.inserted.load(SeqCst),
            self.replaced.load(SeqCst),
            self.deleted.load(SeqCst),
            self.compacted.load(SeqCst),
            self.lost.load(SeqCst)
        )
    }
}

/// The thread that changes the index.
pub(crate) struct Changes {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    /// Nothing disturbs the roles now: a change that fails is a fault.
    pub(crate) calm: Arc<AtomicBool>,
    pub(crate) counts: Arc<Counts>,
}

struct Changer {
    verbs: Verbs,
    data: Arc<Data>,
    guests: Arc<Guests>,
    tally: Arc<Tally>,
    counts: Arc<Counts>,
    calm: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    rng: ChaCha20Rng,
}

impl Changes {
    pub(crate) fn start(
        verbs: Verbs,
        data: &Arc<Data>,
        guests: &Arc<Guests>,
        tally: &Arc<Tally>,
        seed: u64,
    ) -> Self {
        let (stop, calm) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let counts = Arc::new(Counts::default());
        let changer = Changer {
            verbs,
            data: Arc::clone(data),
            guests: Arc::clone(guests),
            tally: Arc::clone(tally),
            counts: Arc::clone(&counts),
            calm: Arc::clone(&calm),
            stop: Arc::clone(&stop),
            rng: ChaCha20Rng::seed_from_u64(seed ^ 0x6775_6573),
        };
        Self {
            thread: std::thread::spawn(move || changer.run()),
            stop,
            calm,
            counts,
        }
    }

    /// Ends after the change under way.
    pub(crate) fn stop(self) -> Outcome<()> {
        self.stop.store(true, SeqCst);
        self.thread
            .join()
            .map_err(|_| "the thread that changes the index panicked".to_owned())
    }
}

impl Changer {
    fn run(mut self) {
        while !self.stop.load(SeqCst) {
            if let Err(fault) = self.one() {
                self.tally.fault(fault);
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn one(&mut self) -> Outcome<()> {
        match self.rng.next_u32() % 12 {
            0 => self.compact(),
            1..=5 => self.insert(),
            6..=8 => self.replace(),
            _ => self.delete(),
        }
    }

    /// Some guests for which the state is so.
    fn draw(&mut self, wanted: impl Fn(State) -> bool) -> Vec<usize> {
        let mut fit: Vec<usize> = (0..self.guests.len())
            .filter(|&guest| wanted(self.guests.see(guest).state()))
            .collect();
        let count = 1 + self.rng.next_u32() as usize % MOST;
        while fit.len() > count {
            let at = self.rng.next_u32() as usize % fit.len();
            fit.swap_remove(at);
        }
        fit
    }

    /// Runs a change; `None` where it gave no answer, which is a fault in a calm.
    fn change(&self, arguments: &[&str]) -> Outcome<Option<serde_json::Value>> {
        let calm = self.calm.load(SeqCst);
        match self.verbs.changing(arguments) {
            Ok(answer) => serde_json::from_str(&answer)
                .map(Some)
                .map_err(|error| error.to_string()),
            Err(ended) if calm && self.calm.load(SeqCst) => {
                Err(format!("a change failed in a calm: {}", ended.said))
            }
            Err(ended) if !ended.passing_change() => Err(format!(
                "a change failed as no storm explains: {}",
                ended.said
            )),
            Err(_) => {
                self.counts.lost.fetch_add(1, SeqCst);
                Ok(None)
            }
        }
    }

    fn write(&mut self, guests: &[usize]) -> Outcome<(Vec<u8>, String, String)> {
        let versions: Vec<u8> = guests
            .iter()
            .map(|_| self.rng.next_u32() as u8 % 2)
            .collect();
        let values = guests
            .iter()
            .zip(&versions)
            .flat_map(|(&guest, &version)| Guests::vector(&self.data, guest, version))
            .collect();
        let rows = Matrix::new(DIMENSION, values).map_err(|error| error.to_string())?;
        let (vectors, ids) = (
            self.verbs.path("guests.fvecs"),
            self.verbs.path("guests.txt"),
        );
        write_fvecs(&vectors, &rows).map_err(|error| error.to_string())?;
        let lines: Vec<String> = guests
            .iter()
            .map(|&guest| Guests::id(guest).to_string())
            .collect();
        std::fs::write(&ids, lines.join("\n")).map_err(|error| error.to_string())?;
        Ok((versions, vectors, ids))
    }

    fn insert(&mut self) -> Outcome<()> {
        let guests = self.draw(|state| state == State::Absent);
        if guests.is_empty() {
            return Ok(());
        }
        let (versions, vectors, ids) = self.write(&guests)?;
        self.mark(&guests);
        let Some(answer) = self.change(&["insert", &vectors, "--ids", &ids])? else {
            return self.settle(&guests, &[0, guests.len()]);
        };
        expect(&answer, "inserted", guests.len())?;
        expect(&answer, "existing", 0)?;
        self.counts.inserted.fetch_add(guests.len() as u64, SeqCst);
        self.present(&guests, &versions);
        Ok(())
    }

    fn replace(&mut self) -> Outcome<()> {
        let guests = self.draw(|state| state != State::Unsure);
        let before = self.count_present(&guests);
        let (versions, vectors, ids) = self.write(&guests)?;
        self.mark(&guests);
        let arguments = ["insert", &vectors, "--ids", &ids, "--upsert"];
        let Some(answer) = self.change(&arguments)? else {
            return self.settle(&guests, &[before, guests.len()]);
        };
        expect(&answer, "replaced", before)?;
        expect(&answer, "inserted", guests.len() - before)?;
        self.counts.replaced.fetch_add(before as u64, SeqCst);
        let new = guests.len() - before;
        self.counts.inserted.fetch_add(new as u64, SeqCst);
        self.present(&guests, &versions);
        Ok(())
    }

    fn delete(&mut self) -> Outcome<()> {
        let guests = self.draw(|state| matches!(state, State::Present(_)));
        if guests.is_empty() {
            return Ok(());
        }
        self.mark(&guests);
        let Some(answer) = self.change(&["delete", "--ids", &list(&guests)])? else {
            return self.settle(&guests, &[0, guests.len()]);
        };
        expect(&answer, "deleted", guests.len())?;
        self.counts.deleted.fetch_add(guests.len() as u64, SeqCst);
        self.absent(&guests);
        Ok(())
    }

    fn compact(&self) -> Outcome<()> {
        if self.change(&["compact"])?.is_some() {
            self.counts.compacted.fetch_add(1, SeqCst);
        }
        Ok(())
    }

    /// Deletes guests of whom nobody knows whether they are there. As many must be as
    /// were before the change or after it: a change is made whole or not at all.
    fn settle(&self, guests: &[usize], possible: &[usize]) -> Outcome<()> {
        std::thread::sleep(LATE);
        let begin = Instant::now();
        let mut possible = possible.to_vec();
        loop {
            if let Some(answer) = self.change(&["delete", "--ids", &list(guests)])? {
                let deleted = answer["deleted"].as_u64().unwrap_or(u64::MAX) as usize;
                if !possible.contains(&deleted) {
                    return Err(format!(
                        "a change of {} vectors was made in part: {deleted} of them are there, expected one of {possible:?}",
                        guests.len()
                    ));
                }
                self.absent(guests);
                return Ok(());
            }
            // This delete, too, may have been made or not.
            possible.push(0);
            if self.calm.load(SeqCst) && begin.elapsed() > SETTLED {
                return Err("a change could not be settled".to_owned());
            }
            if self.stop.load(SeqCst) {
                return Ok(());
            }
            std::thread::sleep(LATE);
        }
    }

    fn count_present(&self, guests: &[usize]) -> usize {
        guests
            .iter()
            .filter(|&&guest| matches!(self.guests.see(guest).state(), State::Present(_)))
            .count()
    }

    fn mark(&self, guests: &[usize]) {
        for &guest in guests {
            self.guests.set(guest, State::Unsure);
        }
    }

    fn absent(&self, guests: &[usize]) {
        for &guest in guests {
            self.guests.set(guest, State::Absent);
        }
    }

    fn present(&self, guests: &[usize], versions: &[u8]) {
        for (&guest, &version) in guests.iter().zip(versions) {
            self.guests.set(guest, State::Present(version));
        }
    }
}

fn list(guests: &[usize]) -> String {
    let ids: Vec<String> = guests
        .iter()
        .map(|&guest| Guests::id(guest).to_string())
        .collect();
    ids.join(",")
}

fn expect(answer: &serde_json::Value, what: &str, count: usize) -> Outcome<()> {
    if answer[what].as_u64() == Some(count as u64) {
        return Ok(());
    }
    Err(format!(
        "a change says {what}: {} and must say {count}",
        answer[what]
    ))
}
