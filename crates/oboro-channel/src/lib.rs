//! oboro-channel
