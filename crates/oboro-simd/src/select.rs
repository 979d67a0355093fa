//! Lane-wise oblivious top-r.
