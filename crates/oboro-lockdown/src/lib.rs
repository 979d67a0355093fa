//! What a process may no longer do once it serves.
