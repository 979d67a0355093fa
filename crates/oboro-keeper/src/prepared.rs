//! Prepared codebooks by handle and searcher, the least recently used forgotten first.

use crate::state::KeyPair;
use oboro_ckks::{Packing, PreparedCodebook};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// A digest of key, packing, scale and masks.
pub(crate) type Handle = [u8; 32];

pub(crate) struct Entry {
    pub(crate) packing: Packing,
    pub(crate) codebook: PreparedCodebook,
    pub(crate) pair: Arc<KeyPair>,
}

/// An index and one of its epochs.
pub(crate) type Served = ([u8; 16], u64);

struct Slot {
    handle: Handle,
    /// What it was prepared for.
    served: Served,
    /// The searcher that registered it; no other may use it.
    owner: [u8; 32],
    used: AtomicU64,
    entry: Arc<Entry>,
}

pub(crate) struct PreparedCodebooks {
    capacity: usize,
    clock: AtomicU64,
    slots: RwLock<Vec<Slot>>,
}

impl PreparedCodebooks {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            clock: AtomicU64::new(0),
            slots: RwLock::new(Vec::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// What `owner` has registered under `handle`.
    pub(crate) fn find(&self, handle: &Handle, owner: &[u8; 32]) -> Option<Arc<Entry>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots
            .iter()
            .find(|slot| &slot.handle == handle && &slot.owner == owner)?;
        slot.used.store(self.tick(), Relaxed);
        Some(slot.entry.clone())
    }

    /// What any searcher has registered under `handle`, to spare the work of preparing
    /// the same codebook again.
    pub(crate) fn prepared(&self, handle: &Handle) -> Option<Arc<Entry>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.iter().find(|slot| &slot.handle == handle)?;
        Some(slot.entry.clone())
    }

    /// Adds an entry. A searcher that holds half of the room gives up its own oldest
    /// first, so that one searcher cannot push out all others.
    pub(crate) fn insert(
        &self,
        handle: Handle,
        owner: [u8; 32],
        served: Served,
        entry: Arc<Entry>,
    ) {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if slots
            .iter()
            .any(|slot| slot.handle == handle && slot.owner == owner && slot.served == served)
        {
            return;
        }
        let own = slots.iter().filter(|slot| slot.owner == owner).count();
        if own >= self.capacity.div_ceil(2) {
            remove_oldest(&mut slots, |slot| slot.owner == owner);
        } else if slots.len() >= self.capacity {
            remove_oldest(&mut slots, |_| true);
        }
        slots.push(Slot {
            handle,
            served,
            owner,
            used: AtomicU64::new(self.tick()),
            entry,
        });
    }

    /// The indexes and epochs for which codebooks were prepared under a key.
    pub(crate) fn served_under(&self, fingerprint: &[u8; 32]) -> Vec<Served> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let under = |slot: &&Slot| &slot.entry.pair.fingerprint == fingerprint;
        slots.iter().filter(under).map(|slot| slot.served).collect()
    }

    /// Forgets all that were prepared under a key.
    pub(crate) fn forget(&self, fingerprint: &[u8; 32]) {
        self.slots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|slot| &slot.entry.pair.fingerprint != fingerprint);
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Relaxed)
    }
}

fn remove_oldest(slots: &mut Vec<Slot>, eligible: impl Fn(&Slot) -> bool) {
    let oldest = slots
        .iter()
        .enumerate()
        .filter(|(_, slot)| eligible(slot))
        .min_by_key(|(_, slot)| slot.used.load(Relaxed))
        .map(|(position, _)| position);
    if let Some(position) = oldest {
        slots.swap_remove(position);
    }
}
