//! oboro-searcher
