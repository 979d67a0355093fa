//! oboro-ckks
