//! A pool of one-time values made ahead of need by a thread of low priority.
//!
//! The searcher keeps encryptions of zero here: each re-randomizes exactly one
//! query, so a value leaves the pool by move and never comes back.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

/// Low enough that queries go first, high enough that the pool still fills on
/// a busy machine.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

struct State<T> {
    ready: VecDeque<T>,
    stopping: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // The maker runs outside the lock, so a panic cannot leave the state torn.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values waiting to be used once.
pub(crate) struct Pool<T> {
    shared: Arc<Shared<T>>,
    maker: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Pool<T> {
    /// Starts the thread that keeps `capacity` values ready. With a capacity
    /// of 0 there is no thread and [`Pool::take`] always finds nothing.
    pub(crate) fn start(
        capacity: usize,
        mut make: impl FnMut() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                ready: VecDeque::with_capacity(capacity),
                stopping: false,
            }),
            changed: Condvar::new(),
            capacity,
        });
        let maker = match capacity {
            0 => None,
            _ => {
                let shared = Arc::clone(&shared);
                let thread = std::thread::Builder::new().name("oboro-zeros".to_owned());
                Some(thread.spawn(move || fill(&shared, &mut make))?)
            }
        };
        Ok(Self { shared, maker })
    }

    /// One value, or `None` when all are used up; never waits.
    pub(crate) fn take(&self) -> Option<T> {
        // The maker has a low priority and may be off the processor while it
        // holds the lock: making a value costs less than waiting for it.
        let mut state = self.shared.state.try_lock().ok()?;
        let value = state.ready.pop_front();
        // Woken only when half is gone: one wake-up serves many queries.
        let wake = state.ready.len() <= self.shared.capacity / 2;
        drop(state);
        if wake {
            self.shared.changed.notify_one();
        }
        value
    }
}

impl<T> Drop for Pool<T> {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(maker) = self.maker.take() {
            let _ = maker.join();
        }
    }
}

fn fill<T>(shared: &Shared<T>, make: &mut impl FnMut() -> T) {
    lower_priority();
    let mut full = false;
    loop {
        {
            let mut state = shared.lock();
            // Once full, rest until half is used.
            let rest = |state: &State<T>| {
                let limit = if full {
                    shared.capacity / 2 + 1
                } else {
                    shared.capacity
                };
                !state.stopping && state.ready.len() >= limit
            };
            while rest(&state) {
                state = shared
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.stopping {
                return;
            }
        }
        let value = make();
        let mut state = shared.lock();
        state.ready.push_back(value);
        full = state.ready.len() >= shared.capacity;
    }
}

/// Lets queries go first. Linux keeps a nice value per thread; elsewhere, or
/// where it is not allowed, the pool works the same, only less politely.
pub(crate) fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_used_once_and_all_are_replaced() {
        let mut next = 0_u64;
        let pool = Pool::start(8, move || {
            next += 1;
            next
        })
        .unwrap();
        let mut seen = Vec::new();
        while seen.len() < 1_000 {
            match pool.take() {
                Some(value) => seen.push(value),
                None => std::thread::yield_now(),
            }
        }
        let expected: Vec<u64> = (1..=1_000).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn no_capacity_means_no_value_and_no_thread() {
        let pool = Pool::start(0, || 1_u8).unwrap();
        assert_eq!(pool.take(), None);
        assert!(pool.maker.is_none());
    }

    #[test]
    fn stops_while_full_and_while_filling() {
        for capacity in [1, 1_000_000] {
            let pool = Pool::start(capacity, || 0_u8).unwrap();
            while pool.take().is_none() {
                std::thread::yield_now();
            }
            drop(pool);
        }
    }
}
