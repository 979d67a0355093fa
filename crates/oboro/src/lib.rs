//! oboro
