//! oboro-attest
