//! Fused modular multiply-accumulate.
