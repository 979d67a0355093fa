//! Keeper, searcher and generator as hardened servers.
//!
//! The binary `oboro-server` runs any of these roles on hardware platforms only; the command
//! `oboro` runs the same code and adds the simulated platform for trials. What protects a
//! role is an argument ([`platforms::Platforms`]), so this crate does not know the
//! simulated platform, and a release build of `oboro-server` does not contain it:
//! `cargo xtask release` searches the binary.
//!
//! A role starts in this order: keys and policy are read, the process is locked down
//! ([`lockdown`]), the role's own state is opened, threads start, the port is bound, and
//! one report says what protects the role ([`ready`]).
//!
//! | part | holds |
//! |---|---|
//! | [`keeper`], [`searcher`], [`generator`] | the roles: options, set-up, run |
//! | [`platforms`], [`policy`] | what protects this process; whom it trusts |
//! | [`configuration`] | the digest of a set-up that evidence carries |
//! | [`lockdown`] | what the process may no longer do |
//! | [`show`] | evidence of this machine |
//! | [`keys`] | folders of keys |
//! | [`config`], [`failure`], [`output`], [`shutdown`], [`roles`] | what every program here has in common |

pub mod config;
pub mod configuration;
pub mod evidence;
pub mod failure;
mod failure_from;
pub mod generator;
pub mod keeper;
pub mod keys;
pub mod lockdown;
pub mod output;
pub mod platforms;
pub mod policy;
pub mod ready;
pub mod roles;
pub mod searcher;
pub mod show;
pub mod shutdown;
