//! oboro-keeper
