//! Every state that a loss of power may leave, opened.

use std::collections::HashMap;
use std::path::Path;

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::Outcome;
use crate::check::{Faults, allowed, recover};
use crate::crash::{self, Effort};
use crate::disk::{self, digest};
use crate::record::Recording;
use crate::scenario::Scenario;

/// What was looked at.
pub(crate) struct Counts {
    pub(crate) crashes: usize,
    pub(crate) states: usize,
    pub(crate) opened: usize,
}

/// Builds the states, opens each, goes on from it.
pub(crate) fn losses(
    scenario: &dyn Scenario,
    recording: &Recording,
    effort: Effort,
    seed: u64,
    place: &Path,
    faults: &mut Faults,
) -> Outcome<Counts> {
    let crashes = crash::crashes(recording, effort, seed);
    // Many crashes leave the same.
    let digests: Vec<[u8; 32]> = crashes
        .par_iter()
        .map(|crash| digest(&crash::state(recording, crash.at, &|i| crash.fate(i)).tree()))
        .collect();
    let mut first: HashMap<[u8; 32], usize> = HashMap::new();
    for (number, digest) in digests.iter().enumerate() {
        first.entry(*digest).or_insert(number);
    }
    let mut distinct: Vec<([u8; 32], usize)> = first.into_iter().collect();
    distinct.sort_unstable_by_key(|(_, number)| *number);
    let states = distinct.len();
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    while distinct.len() > effort.opened {
        let at = rng.next_u64() % distinct.len() as u64;
        distinct.swap_remove(at as usize);
    }
    let steps: HashMap<[u8; 32], Outcome<usize>> = distinct
        .par_iter()
        .map(|(digest, number)| {
            let crash = &crashes[*number];
            let state = crash::state(recording, crash.at, &|i| crash.fate(i));
            let step = tempfile::tempdir_in(place)
                .map_err(|error| error.to_string())
                .and_then(|dir| {
                    let folder = dir.path().join("folder");
                    disk::write(&state.tree(), &folder)?;
                    // The same words for the same fault, wherever it was found.
                    recover(scenario, &folder)
                        .map_err(|what| what.replace(&folder.display().to_string(), "FOLDER"))
                });
            (*digest, step)
        })
        .collect();
    for (crash, digest) in crashes.iter().zip(&digests) {
        let found = match steps.get(digest) {
            Some(Ok(step)) => allowed(*step, crash.told(recording)),
            Some(Err(what)) => Err(what.clone()),
            None => continue,
        };
        if let Err(what) = found {
            faults.add(&what, || crash.words(recording));
        }
    }
    Ok(Counts {
        crashes: crashes.len(),
        states,
        opened: distinct.len(),
    })
}
