//! Rotations that an owner has opened: the only time when codebooks are re-encrypted.

use super::cursor::{Cursor, append_count, append_field};
use super::versions::IndexState;
use crate::KeeperError;
use oboro_ckks::Packing;
use oboro_protocol::{Failure, Reason};

/// How often the codebook may be re-encrypted before the owner has to ask again: a
/// searcher that is restarted begins anew.
pub(super) const ATTEMPTS: u32 = 8;

/// Rotations open at the same time.
const MAX_OPEN: usize = super::keys::MAX_KEYS;

const MAX_PACKING_BYTES: usize = 64;

#[derive(Clone)]
struct Rotation {
    index_id: [u8; 16],
    from: [u8; 32],
    to: [u8; 32],
    attempts_left: u32,
    /// Encoded shape of the first codebook that came; all others must be like it.
    packing: Vec<u8>,
}

impl Rotation {
    fn is(&self, index_id: &[u8; 16], from: &[u8; 32], to: &[u8; 32]) -> bool {
        &self.index_id == index_id && &self.from == from && &self.to == to
    }
}

fn not_open() -> Failure {
    Failure::new(
        Reason::Forbidden,
        "the owner has opened no rotation of this index between these keys",
    )
}

#[derive(Clone, Default)]
pub(super) struct Rotations(Vec<Rotation>);

impl Rotations {
    /// Gives an open rotation all its attempts back; the key it goes to.
    pub(super) fn renew(&mut self, index_id: &[u8; 16], from: &[u8; 32]) -> Option<[u8; 32]> {
        let rotation = self
            .0
            .iter_mut()
            .find(|rotation| &rotation.index_id == index_id && &rotation.from == from)?;
        rotation.attempts_left = ATTEMPTS;
        rotation.packing.clear();
        Some(rotation.to)
    }

    pub(super) fn open(
        &mut self,
        index_id: &[u8; 16],
        from: &[u8; 32],
        to: &[u8; 32],
    ) -> Result<(), Failure> {
        if self.0.len() >= MAX_OPEN {
            return Err(Failure::new(
                Reason::Limit,
                format!("{MAX_OPEN} rotations are open; finish them, or retire their new keys"),
            ));
        }
        self.0.push(Rotation {
            index_id: *index_id,
            from: *from,
            to: *to,
            attempts_left: ATTEMPTS,
            packing: Vec::new(),
        });
        Ok(())
    }

    pub(super) fn check_open(
        &self,
        index_id: &[u8; 16],
        from: &[u8; 32],
        to: &[u8; 32],
    ) -> Result<(), Failure> {
        let open = |rotation: &Rotation| rotation.is(index_id, from, to);
        if self.0.iter().any(open) {
            return Ok(());
        }
        Err(not_open())
    }

    /// Uses up one attempt for one codebook.
    pub(super) fn attempt(
        &mut self,
        index_id: &[u8; 16],
        from: &[u8; 32],
        to: &[u8; 32],
        packing: &Packing,
    ) -> Result<(), Failure> {
        let rotation = self
            .0
            .iter_mut()
            .find(|rotation| rotation.is(index_id, from, to))
            .ok_or_else(not_open)?;
        if rotation.packing.is_empty() {
            rotation.packing = packing.to_bytes().to_vec();
        }
        if rotation.packing != packing.to_bytes() {
            return Err(Failure::new(
                Reason::Forbidden,
                "the codebook has another shape than the one this rotation began with",
            ));
        }
        rotation.attempts_left = rotation.attempts_left.checked_sub(1).ok_or_else(|| {
            Failure::new(
                Reason::Limit,
                format!("the codebook was re-encrypted {ATTEMPTS} times in this rotation; the owner has to open it again"),
            )
        })?;
        Ok(())
    }

    /// Closes those of an index that has come to a new epoch.
    pub(super) fn committed(&mut self, state: &IndexState, before: Option<u64>) {
        if before.is_some_and(|epoch| epoch < state.epoch) {
            self.0
                .retain(|rotation| rotation.index_id != state.index_id);
        }
    }

    /// Closes those from or to a key.
    pub(super) fn retired(&mut self, fingerprint: &[u8; 32]) {
        self.0
            .retain(|rotation| &rotation.from != fingerprint && &rotation.to != fingerprint);
    }

    pub(super) fn encoded_len(&self) -> usize {
        let each = |rotation: &Rotation| 16 + 32 + 32 + 4 + 4 + rotation.packing.len();
        4 + self.0.iter().map(each).sum::<usize>()
    }

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        append_count(out, self.0.len());
        for rotation in &self.0 {
            out.extend_from_slice(&rotation.index_id);
            out.extend_from_slice(&rotation.from);
            out.extend_from_slice(&rotation.to);
            out.extend_from_slice(&rotation.attempts_left.to_le_bytes());
            append_field(out, &rotation.packing);
        }
    }

    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, KeeperError> {
        let mut rotations = Vec::new();
        for _ in 0..cursor.count(MAX_OPEN)? {
            rotations.push(Rotation {
                index_id: cursor.array()?,
                from: cursor.array()?,
                to: cursor.array()?,
                attempts_left: cursor.u32()?.min(ATTEMPTS),
                packing: cursor.field(MAX_PACKING_BYTES)?.to_vec(),
            });
        }
        Ok(Self(rotations))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use oboro_ckks::ParameterSet;

    const INDEX: [u8; 16] = [1; 16];
    const FROM: [u8; 32] = [2; 32];
    const TO: [u8; 32] = [3; 32];

    fn packing(centroids: usize) -> Packing {
        Packing::new(ParameterSet::N2048Q50, 4, 3, centroids, 1).unwrap()
    }

    fn opened() -> Rotations {
        let mut rotations = Rotations::default();
        rotations.open(&INDEX, &FROM, &TO).unwrap();
        rotations
    }

    fn state(epoch: u64) -> IndexState {
        IndexState {
            index_id: INDEX,
            epoch,
            generation: 9,
            manifest_digest: [0; 32],
        }
    }

    #[test]
    fn fail_attempts_beyond_what_the_owner_opened() {
        let mut rotations = opened();
        for (index, from, to) in [
            ([9; 16], FROM, TO),
            (INDEX, [9; 32], TO),
            (INDEX, FROM, [9; 32]),
            (INDEX, TO, FROM),
        ] {
            let refused = rotations
                .attempt(&index, &from, &to, &packing(16))
                .unwrap_err();
            assert_eq!(refused.reason, Reason::Forbidden);
        }
        for _ in 0..ATTEMPTS {
            rotations.attempt(&INDEX, &FROM, &TO, &packing(16)).unwrap();
        }
        let refused = rotations
            .attempt(&INDEX, &FROM, &TO, &packing(16))
            .unwrap_err();
        assert_eq!(refused.reason, Reason::Limit);
        assert_eq!(rotations.renew(&INDEX, &FROM), Some(TO));
        rotations.attempt(&INDEX, &FROM, &TO, &packing(16)).unwrap();
    }

    #[test]
    fn fail_a_codebook_of_another_shape() {
        let mut rotations = opened();
        rotations.attempt(&INDEX, &FROM, &TO, &packing(16)).unwrap();
        let refused = rotations
            .attempt(&INDEX, &FROM, &TO, &packing(256))
            .unwrap_err();
        assert_eq!(refused.reason, Reason::Forbidden);
    }

    #[test]
    fn a_new_epoch_or_a_retired_key_closes_a_rotation() {
        let open =
            |rotations: &mut Rotations| rotations.attempt(&INDEX, &FROM, &TO, &packing(16)).is_ok();
        let mut rotations = opened();
        rotations.committed(&state(4), Some(4));
        rotations.committed(&state(4), None);
        assert!(open(&mut rotations));
        rotations.committed(&state(5), Some(4));
        assert!(!open(&mut rotations));
        for key in [FROM, TO] {
            let mut rotations = opened();
            rotations.retired(&[9; 32]);
            assert!(open(&mut rotations));
            rotations.retired(&key);
            assert!(!open(&mut rotations));
        }
    }

    #[test]
    fn fail_more_than_can_be_open() {
        let mut rotations = Rotations::default();
        for number in 0..MAX_OPEN {
            rotations.open(&[number as u8; 16], &FROM, &TO).unwrap();
        }
        let refused = rotations.open(&[0xff; 16], &FROM, &TO).unwrap_err();
        assert_eq!(refused.reason, Reason::Limit);
    }
}
