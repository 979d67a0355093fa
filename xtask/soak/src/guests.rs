//! Vectors that come and go while clients search, and what must be found of them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use oboro_quant::Metric;

use crate::data::Data;

/// The id of the first guest; above every other vector's.
const FIRST: u64 = 1_000_000;

/// Where a guest stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    /// There, with this version of its vector.
    Present(u8),
    /// A change of it is under way, or ended without an answer.
    Unsure,
}

/// A state, and how often it changed before; two equal ones mean that nothing changed
/// in between.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Seen {
    pub(crate) const fn state(self) -> State {
        match self.0 & 3 {
            0 => State::Absent,
            1 => State::Present(0),
            2 => State::Present(1),
            _ => State::Unsure,
        }
    }
}

/// One guest for each query: the query's own vector, or one at a distance of 1 from it,
/// so that nothing is nearer.
pub(crate) struct Guests(Vec<AtomicU64>);

impl Guests {
    pub(crate) fn new(data: &Data) -> Self {
        Self(data.queries.iter().map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) const fn id(guest: usize) -> u64 {
        FIRST + guest as u64
    }

    /// The guest that has this id.
    pub(crate) fn of(&self, id: u64) -> Option<usize> {
        let guest = usize::try_from(id.checked_sub(FIRST)?).ok()?;
        (guest < self.len()).then_some(guest)
    }

    pub(crate) fn see(&self, guest: usize) -> Seen {
        Seen(self.0[guest].load(SeqCst))
    }

    pub(crate) fn see_all(&self) -> Vec<Seen> {
        (0..self.len()).map(|guest| self.see(guest)).collect()
    }

    /// Only one thread changes states.
    pub(crate) fn set(&self, guest: usize, state: State) {
        let bits = match state {
            State::Absent => 0,
            State::Present(version) => 1 + u64::from(version),
            State::Unsure => 3,
        };
        let count = self.0[guest].load(SeqCst) >> 2;
        self.0[guest].store((count + 1) << 2 | bits, SeqCst);
    }

    pub(crate) fn vector(data: &Data, guest: usize, version: u8) -> Vec<f32> {
        let mut vector = data.queries[guest].clone();
        vector[0] += f32::from(version);
        vector
    }

    /// The squared distance between a query and a guest.
    pub(crate) fn distance(data: &Data, query: usize, guest: usize, version: u8) -> f32 {
        let vector = Self::vector(data, guest, version);
        Metric::L2.distance(&data.queries[query], &vector)
    }
}
