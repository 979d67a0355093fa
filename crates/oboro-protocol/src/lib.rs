//! oboro-protocol
