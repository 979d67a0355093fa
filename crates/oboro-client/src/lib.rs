//! oboro-client
