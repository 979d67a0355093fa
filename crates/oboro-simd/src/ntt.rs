//! Number-theoretic transform butterflies.
