//! One file for each verb.

pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod connection;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod inspect;
pub(crate) mod keeper;
pub(crate) mod keygen;
pub(crate) mod search;
pub(crate) mod searcher;
pub(crate) mod serve;
pub(crate) mod verify;

use crate::failure::{Failure, Outcome};

/// The asynchronous runtime of a verb.
pub(crate) fn runtime(threads: usize) -> Outcome<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start {threads} threads: {error}")))
}
