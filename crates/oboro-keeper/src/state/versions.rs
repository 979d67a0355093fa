//! The newest state of every index: what makes an older copy stale.
//!
//! The first state of an index that a searcher or the owner registers is believed;
//! from then on generations only go up, epochs stay or go up by one, and one generation
//! has one manifest. A later state names the manifests of the generations before it: where
//! the newest one known is among those generations, it must be the one that is named.

use super::cursor::{Cursor, append_count};
use crate::KeeperError;
use oboro_ckks::MAX_ROTATIONS;
use oboro_protocol::{Failure, Reason, v1, validate};
use std::collections::BTreeMap;

/// Indexes remembered at most; none is ever forgotten.
pub(super) const MAX_INDEXES: usize = 65_536;

/// One state of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexState {
    /// The index.
    pub index_id: [u8; 16],
    /// Counts rotations of the key, from 1.
    pub epoch: u64,
    /// Counts commits through all epochs, from 1.
    pub generation: u64,
    /// Digest of the manifest.
    pub manifest_digest: [u8; 32],
}

impl IndexState {
    pub(crate) fn parse(message: Option<&v1::IndexState>) -> Result<Self, Failure> {
        let bad = |sentence| Err(Failure::new(Reason::BadRequest, sentence));
        let Some(message) = message else {
            return bad("the request names no state of an index");
        };
        let state = Self {
            index_id: validate::index_id(&message.index_id)?,
            epoch: message.epoch,
            generation: message.generation,
            manifest_digest: validate::digest(&message.manifest_digest, "manifest's digest")?,
        };
        if state.index_id == [0; 16] || state.epoch == 0 || state.generation == 0 {
            return bad("index ids, epochs and generations of 0 are not in use");
        }
        Ok(state)
    }

    pub(crate) fn message(&self) -> v1::IndexState {
        v1::IndexState {
            index_id: self.index_id.to_vec().into(),
            epoch: self.epoch,
            generation: self.generation,
            manifest_digest: self.manifest_digest.to_vec().into(),
        }
    }
}

/// What is known of how a state came of the newest one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// It names the newest one, or is the first.
    Shown,
    /// It is so many generations later that it does not name that one any more; its
    /// number alone speaks for it.
    Unknown,
}

#[derive(Clone, Default)]
pub(super) struct Versions(BTreeMap<[u8; 16], IndexState>);

impl Versions {
    pub(super) fn newest(&self, index_id: &[u8; 16]) -> Option<IndexState> {
        self.0.get(index_id).copied()
    }

    /// The state is the newest, or a newer one of this or the next epoch, or the first of
    /// its index.
    pub(super) fn check(&self, state: &IndexState) -> Result<(), Failure> {
        let Some(newest) = self.newest(&state.index_id) else {
            return Ok(());
        };
        let newer = state.generation > newest.generation && state.epoch >= newest.epoch;
        // A rotation leads to the next epoch. What is asked for before an index is open
        // nobody has authenticated: shares of all epochs to come could be had in advance.
        if newer && state.epoch - newest.epoch > 1 {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "no rotation leads from epoch {} of the index, the newest the keeper has seen, to epoch {}",
                    newest.epoch, state.epoch
                ),
            ));
        }
        if newer || *state == newest {
            return Ok(());
        }
        let named = |state: &IndexState| {
            format!("generation {} of epoch {}", state.generation, state.epoch)
        };
        Err(Failure::new(
            Reason::Stale,
            if state.generation < newest.generation || state.epoch < newest.epoch {
                format!(
                    "this copy of the index is {}, but the keeper has seen {}; somebody put back an older copy",
                    named(state),
                    named(&newest)
                )
            } else {
                format!(
                    "this copy of the index is another {} than the one the keeper has seen; somebody put in a fork",
                    named(state)
                )
            },
        ))
    }

    /// How the state, which passes [`check`](Self::check), follows from the newest.
    fn descent(&self, state: &IndexState, ancestors: &[[u8; 32]]) -> Result<Descent, Failure> {
        let Some(newest) = self.newest(&state.index_id) else {
            return Ok(Descent::Shown);
        };
        let later = state.generation.saturating_sub(newest.generation);
        let Some(between) = later.checked_sub(1) else {
            return Ok(Descent::Shown);
        };
        match ancestors.get(usize::try_from(between).unwrap_or(usize::MAX)) {
            None => Ok(Descent::Unknown),
            Some(digest) if *digest == newest.manifest_digest => Ok(Descent::Shown),
            Some(_) => Err(Failure::new(
                Reason::Stale,
                format!(
                    "this copy of the index is generation {} and did not come of the generation {} that the keeper has seen; somebody put in a fork",
                    state.generation, newest.generation
                ),
            )),
        }
    }

    /// Records a state that names the manifests of the generations before it, the newest
    /// first; whether that changes anything, and whether it came of the newest before.
    pub(super) fn record(
        &mut self,
        state: &IndexState,
        ancestors: &[[u8; 32]],
    ) -> Result<(bool, Descent), Failure> {
        self.check(state)?;
        let descent = self.descent(state, ancestors)?;
        let known = self.newest(&state.index_id);
        if known == Some(*state) {
            return Ok((false, descent));
        }
        if known.is_none() && self.0.len() >= MAX_INDEXES {
            return Err(Failure::new(
                Reason::Limit,
                format!("the keeper remembers {MAX_INDEXES} indexes and takes no more"),
            ));
        }
        self.0.insert(state.index_id, *state);
        Ok((true, descent))
    }

    pub(super) fn check_served(&self, index_id: &[u8; 16], epoch: u64) -> Result<(), Failure> {
        let newest = self.newest(index_id).ok_or_else(unknown)?;
        if epoch > newest.epoch {
            return Err(Failure::new(
                Reason::BadRequest,
                format!(
                    "epoch {epoch} of the index is not registered; the newest is {}",
                    newest.epoch
                ),
            ));
        }
        if epoch < newest.epoch.saturating_sub(1) || epoch == 0 {
            return Err(Failure::new(
                Reason::Stale,
                format!(
                    "epoch {epoch} of the index is over; the keeper has seen epoch {}",
                    newest.epoch
                ),
            ));
        }
        Ok(())
    }

    /// The index is known and may be rotated once more.
    pub(super) fn check_rotations(&self, index_id: &[u8; 16]) -> Result<(), Failure> {
        let newest = self.newest(index_id).ok_or_else(unknown)?;
        if newest.epoch > MAX_ROTATIONS {
            return Err(Failure::new(
                Reason::Limit,
                format!("the index was rotated {MAX_ROTATIONS} times; build it anew"),
            ));
        }
        Ok(())
    }

    const ENTRY: usize = 16 + 8 + 8 + 32;

    pub(super) fn encoded_len(&self) -> usize {
        4 + self.0.len() * Self::ENTRY
    }

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        append_count(out, self.0.len());
        for state in self.0.values() {
            out.extend_from_slice(&state.index_id);
            out.extend_from_slice(&state.epoch.to_le_bytes());
            out.extend_from_slice(&state.generation.to_le_bytes());
            out.extend_from_slice(&state.manifest_digest);
        }
    }

    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, KeeperError> {
        let mut versions = BTreeMap::new();
        for _ in 0..cursor.count(MAX_INDEXES)? {
            let state = IndexState {
                index_id: cursor.array()?,
                epoch: cursor.u64()?,
                generation: cursor.u64()?,
                manifest_digest: cursor.array()?,
            };
            if versions.insert(state.index_id, state).is_some() {
                return Err(KeeperError::StateFormat("it holds an index twice"));
            }
        }
        Ok(Self(versions))
    }
}

fn unknown() -> Failure {
    Failure::new(
        Reason::BadRequest,
        "the keeper has seen no state of this index; register it first",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state(epoch: u64, generation: u64, digest: u8) -> IndexState {
        IndexState {
            index_id: [5; 16],
            epoch,
            generation,
            manifest_digest: [digest; 32],
        }
    }

    fn at(newest: IndexState) -> Versions {
        let mut versions = Versions::default();
        assert!(versions.record(&newest, &[]).unwrap().0);
        versions
    }

    #[test]
    fn the_first_is_believed_and_newer_ones_follow() {
        let mut versions = at(state(2, 7, 1));
        assert!(!versions.record(&state(2, 7, 1), &[]).unwrap().0);
        for newer in [state(2, 8, 2), state(3, 9, 3), state(3, 40, 4)] {
            assert!(versions.check(&newer).is_ok());
            assert_ne!(
                versions.newest(&[5; 16]),
                Some(newer),
                "checking records nothing"
            );
            assert!(versions.record(&newer, &[]).unwrap().0);
            assert_eq!(versions.newest(&[5; 16]), Some(newer));
        }
        // Another index has a history of its own.
        let other = IndexState {
            index_id: [6; 16],
            ..state(1, 1, 9)
        };
        assert!(versions.record(&other, &[]).unwrap().0);
    }

    #[test]
    fn fail_older_states_and_forks() {
        let newest = state(2, 7, 1);
        for stale in [
            state(2, 6, 1),
            state(1, 7, 1),
            state(1, 8, 1),
            state(3, 6, 1),
            state(2, 7, 2),
            state(3, 7, 1),
            state(1, 1, 1),
        ] {
            let mut versions = at(newest);
            assert_eq!(versions.check(&stale).unwrap_err().reason, Reason::Stale);
            assert_eq!(
                versions.record(&stale, &[]).unwrap_err().reason,
                Reason::Stale
            );
            assert_eq!(versions.newest(&[5; 16]), Some(newest));
        }
    }

    #[test]
    fn fail_states_of_another_descent() {
        // Generations 5, 6 and 7 have the digests 5, 6 and 7.
        let ancestors = [[7; 32], [6; 32], [5; 32]];
        let later = |generation| state(2, generation, generation as u8);
        for known in 5..=7 {
            let mut versions = at(later(known));
            let recorded = versions.record(&later(8), &ancestors).unwrap();
            assert_eq!(recorded, (true, Descent::Shown));
            // Told again, in whatever words, it stays.
            let again = versions.record(&later(8), &[]).unwrap();
            assert_eq!(again, (false, Descent::Shown));
            // A copy that went its own way from there, with however many more changes.
            for further in [0, 1, 200] {
                let mut others = vec![[0xaa; 32]; further];
                others.extend(ancestors);
                let mut versions = at(state(2, known, 0xee));
                let fork = later(8 + further as u64);
                let refused = versions.record(&fork, &others).unwrap_err();
                assert_eq!(refused.reason, Reason::Stale);
                assert_eq!(versions.newest(&[5; 16]), Some(state(2, known, 0xee)));
            }
        }
        // Further back than is named the number alone speaks for it.
        let recorded = at(later(4)).record(&later(8), &ancestors).unwrap();
        assert_eq!(recorded, (true, Descent::Unknown));
        let last = state(3, u64::MAX, 1);
        let mut versions = at(later(4));
        let recorded = versions.record(&last, &ancestors);
        assert_eq!(recorded.unwrap(), (true, Descent::Unknown));
        // After the last generation there is none, and no sum that overflows.
        let again = versions.record(&last, &ancestors);
        assert_eq!(again.unwrap(), (false, Descent::Shown));
    }

    #[test]
    fn fail_epochs_that_no_rotation_leads_to() {
        // Whoever writes a manifest's head without a key chooses what is asked for: no
        // share of a later epoch than the next one is released.
        for far in [4, 5, u64::MAX] {
            let mut versions = at(state(2, 7, 1));
            let asked = state(far, u64::MAX, 2);
            let refused = versions.check(&asked).unwrap_err();
            assert_eq!(refused.reason, Reason::BadRequest);
            assert!(versions.record(&asked, &[]).is_err());
        }
    }

    #[test]
    fn fail_epochs_that_are_not_served() {
        let versions = at(state(5, 9, 1));
        for served in [5, 4] {
            assert!(versions.check_served(&[5; 16], served).is_ok());
        }
        for (epoch, reason) in [
            (6, Reason::BadRequest),
            (3, Reason::Stale),
            (0, Reason::Stale),
        ] {
            let refused = versions.check_served(&[5; 16], epoch).unwrap_err();
            assert_eq!(refused.reason, reason);
        }
        let unknown = versions.check_served(&[6; 16], 5).unwrap_err();
        assert_eq!(unknown.reason, Reason::BadRequest);
        assert!(at(state(1, 1, 1)).check_served(&[5; 16], 0).is_err());
    }

    #[test]
    fn fail_more_rotations_than_the_noise_allows() {
        let rotations = |epoch| at(state(epoch, epoch, 1)).check_rotations(&[5; 16]);
        assert!(rotations(MAX_ROTATIONS).is_ok());
        let refused = rotations(MAX_ROTATIONS + 1).unwrap_err();
        assert_eq!(refused.reason, Reason::Limit);
    }

    #[test]
    fn fail_more_indexes_than_are_remembered() {
        let mut versions = Versions::default();
        let numbered = |number: u32| {
            let mut state = state(1, 1, 1);
            state.index_id[..4].copy_from_slice(&number.to_le_bytes());
            state
        };
        for number in 0..MAX_INDEXES as u32 {
            versions.record(&numbered(number), &[]).unwrap();
        }
        let refused = versions.record(&numbered(u32::MAX), &[]).unwrap_err();
        assert_eq!(refused.reason, Reason::Limit);
        // Those it knows go on.
        let mut next = numbered(3);
        next.generation = 2;
        assert!(versions.record(&next, &[]).unwrap().0);
    }
}
