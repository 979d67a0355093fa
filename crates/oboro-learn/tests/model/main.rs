//! Networks: against torch, torchvision and timm by fixtures that
//! `scripts/oracles/make_network_fixtures.py` wrote, saved and read, and what
//! they refuse.
#![allow(clippy::unwrap_used)]

mod common;
mod networks;
mod oracles;
mod refusals;
