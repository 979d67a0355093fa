//! SIMD kernels and data-oblivious primitives, the only crate with `unsafe`.
//!
//! Every kernel takes an [`Arch`], a value that proves which instructions the
//! processor has, and gives the same bits on every one of them.

pub mod arch;
pub mod assign;
pub mod modmul;
pub mod ntt;
pub mod scan;
pub mod select;
pub mod sort;
pub mod taint;

pub use arch::{ARCH_VARIABLE, Arch};
