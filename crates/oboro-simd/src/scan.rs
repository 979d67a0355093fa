//! Table scan over blocked codes.
