//! One file for each verb.

pub(crate) mod attest;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod build;
pub(crate) mod connection;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod grant;
pub(crate) mod inspect;
pub(crate) mod keeper;
pub(crate) mod keygen;
mod registry;
pub(crate) mod renew;
pub(crate) mod restore;
pub(crate) mod revoke;
pub(crate) mod rotate;
pub(crate) mod search;
pub(crate) mod searcher;
pub(crate) mod serve;
pub(crate) mod verify;
