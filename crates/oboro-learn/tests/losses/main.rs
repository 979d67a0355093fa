//! The losses: values and gradients of the fixtures that
//! `scripts/oracles/make_fixtures.py` writes, what the losses promise, and what
//! they refuse.
#![allow(clippy::unwrap_used)]

mod ball;
mod common;
mod fixtures;
mod promises;
mod refusals;
mod stability;
