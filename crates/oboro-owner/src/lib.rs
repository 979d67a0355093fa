//! oboro-owner
