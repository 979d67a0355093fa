//! Fixed sorting networks.
