//! oboro-index
