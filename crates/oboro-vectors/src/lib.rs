//! oboro-vectors
