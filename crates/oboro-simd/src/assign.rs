//! Nearest-centroid assignment.
