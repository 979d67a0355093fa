//! A long run: clients come and go, keeper and searcher are killed, stopped, frozen and
//! restarted at random, keys are rotated, in calms too; vectors are inserted, replaced and
//! deleted all the time, and segments merged; every answer is checked against exact search
//! and against what was committed.
//!
//! `cargo run --release -p xtask-soak -- [MINUTES] [SEED]` after `cargo build --release`.
//! The run alternates storms (kills every few seconds) and calms (clients only), in which
//! memory and descriptors of both roles must not grow. It fails on a wrong answer, an
//! error that a client cannot get over by trying again, a request that hangs, growth, or
//! anything lost.

mod changes;
mod clients;
mod data;
mod expected;
mod faults;
mod guests;
mod roles;
mod usage;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::changes::Changes;
use crate::clients::{Clients, Tally, World};
use crate::data::Data;
use crate::faults::Faults;
use crate::guests::{Guests, State};
use crate::roles::Roles;
use crate::usage::{Growth, Usage};

/// Connections open at the same time.
const CLIENTS: usize = 6;

/// Least share of true neighbours over the whole run, with re-ranking.
const LEAST_RECALL: f64 = 0.95;

/// For how long a rotated key's epoch is still served, and a moment more.
const OVERLAP: Duration = Duration::from_secs(3);

type Outcome<T> = Result<T, String>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let minutes = arguments
        .next()
        .map_or(Ok(30.0), |text| text.parse::<f64>());
    let seed = arguments.next().map_or(Ok(1), |text| text.parse::<u64>());
    let (Ok(minutes), Ok(seed)) = (minutes, seed) else {
        eprintln!("usage: xtask-soak [MINUTES] [SEED]");
        return ExitCode::from(2);
    };
    match run(Duration::from_secs_f64(minutes * 60.0), seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(length: Duration, seed: u64) -> Outcome<()> {
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    println!("soak: {} s, seed {seed}", length.as_secs());
    let data = Arc::new(Data::generate(seed)?);
    let mut roles = Roles::prepare(place.path(), &data)?;
    roles.start_both()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let tally = Arc::new(Tally::default());
    let guests = Arc::new(Guests::new(&data));
    let changes = Changes::start(roles.verbs(), &data, &guests, &tally, seed);
    let counts = Arc::clone(&changes.counts);
    let world = World {
        data,
        guests,
        tally,
    };
    let clients = Clients::start(&runtime, CLIENTS, &roles, &world, seed);
    let outcome = phases(length, seed, &mut roles, &world.tally, &changes);
    let changed = changes.stop();
    let swept = match &outcome {
        Ok(()) => Clients::sweep(&runtime, &roles, &world),
        Err(_) => Ok(()),
    };
    let hung = clients.stop(&runtime);
    println!("soak: {}; {counts}", world.tally);
    outcome.and(changed).and(swept)?;
    finish(&mut roles, &world, hung, place.path())
}

/// Storm, calm, storm, calm; growth is looked at in the calms.
fn phases(
    length: Duration,
    seed: u64,
    roles: &mut Roles,
    tally: &Tally,
    changes: &Changes,
) -> Outcome<()> {
    let phase = length / 4;
    let mut faults = Faults::new(ChaCha20Rng::seed_from_u64(seed));
    let mut ours = Growth::default();
    for round in 1..=2 {
        let end = Instant::now() + phase;
        while Instant::now() < end {
            faults.one(roles)?;
            tally.check()?;
        }
        roles.restart_missing()?;
        println!("soak: storm {round} over: {faults}; {tally}");
        let begin = Instant::now();
        // The first quarter of a calm is for pools and caches to fill.
        wait(phase / 4, roles, tally)?;
        changes.calm.store(true, SeqCst);
        let (keeper, searcher) = (roles.keeper_usage()?, roles.searcher_usage()?);
        ours.note(Usage::of_this_process()?);
        let answered = tally.answers.load(Relaxed);
        wait(phase.saturating_sub(begin.elapsed()), roles, tally)?;
        ours.note(Usage::of_this_process()?);
        let (keeper_now, searcher_now) = (roles.keeper_usage()?, roles.searcher_usage()?);
        println!(
            "soak: calm {round} over: keeper {keeper} -> {keeper_now}; searcher {searcher} -> {searcher_now}"
        );
        keeper.check_growth("keeper", keeper_now)?;
        searcher.check_growth("searcher", searcher_now)?;
        if tally.answers.load(Relaxed) == answered {
            return Err("no query was answered in a calm".to_owned());
        }
        // A change may meet the rotation, and be told to try again.
        changes.calm.store(false, SeqCst);
        // In a storm a rotation may be cut short, or the dice may give none. Here it must work.
        roles.rotate().map_err(|ended| ended.said)?;
        wait(OVERLAP, roles, tally)?;
    }
    ours.check("the clients' process")
}

fn wait(length: Duration, roles: &mut Roles, tally: &Tally) -> Outcome<()> {
    let end = Instant::now() + length;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500));
        tally.check()?;
        roles.check_alive()?;
    }
    Ok(())
}

fn finish(roles: &mut Roles, world: &World, hung: usize, place: &Path) -> Outcome<()> {
    let tally = &world.tally;
    tally.check()?;
    if hung > 0 {
        return Err(format!("{hung} clients did not stop"));
    }
    if tally.recall() < LEAST_RECALL {
        return Err(format!("recall below {LEAST_RECALL}: {tally}"));
    }
    roles.stop_both()?;
    roles.verify()?;
    let seen = world.guests.see_all();
    let count = |wanted: fn(State) -> bool| {
        let states = seen.iter().map(|seen| seen.state());
        states.filter(|state| wanted(*state)).count() as u64
    };
    let present = data::ROWS as u64 + count(|state| matches!(state, State::Present(_)));
    let most = present + count(|state| state == State::Unsure);
    let found = roles.vectors()?;
    if !(present..=most).contains(&found) {
        return Err(format!(
            "{found} vectors are in the index, and {present} to {most} must be"
        ));
    }
    let left = roles::leftovers(place)?;
    if !left.is_empty() {
        return Err(format!("temporary files are left: {}", left.join(", ")));
    }
    println!("soak: passed; the index verifies, nothing is left behind");
    Ok(())
}
