//! oboro-ring
