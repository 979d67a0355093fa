//! oboro-testkit
