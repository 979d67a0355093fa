//! SIMD kernels and data-oblivious primitives, the only crate with `unsafe`.
//!
//! Every kernel takes an [`Arch`], a value that proves which instructions the
//! processor has, and gives the same bits on every one of them.

pub mod arch;
pub mod assign;
pub mod mask;
pub mod modmul;
pub mod ntt;
pub mod scan;
pub mod select;
pub mod sort;
pub mod taint;

pub use arch::{ARCH_VARIABLE, Arch};

/// Fragments of the names of all functions that must be data-oblivious.
///
/// A check searches the emitted assembly for symbols that contain them and
/// looks for conditional jumps on secrets. Each is small and never inlined;
/// its loops run over public lengths only.
pub const OBLIVIOUS_FUNCTIONS: &[&str] = &[
    "oblivious_scan8_avx512",
    "oblivious_scan8_avx2",
    "oblivious_scan8_portable",
    "oblivious_scan4_avx512",
    "oblivious_scan4_avx2",
    "oblivious_scan4_portable",
    "oblivious_hide_avx512",
    "oblivious_hide_avx2",
    "oblivious_hide_portable",
    "oblivious_passing_avx512",
    "oblivious_passing_avx2",
    "oblivious_passing_portable",
    "oblivious_lane_best_4_avx512",
    "oblivious_lane_best_4_avx2",
    "oblivious_lane_best_4_portable",
    "oblivious_lane_best_8_avx512",
    "oblivious_lane_best_8_avx2",
    "oblivious_lane_best_8_portable",
    "oblivious_lane_best_16_avx512",
    "oblivious_lane_best_16_avx2",
    "oblivious_lane_best_16_portable",
    "oblivious_lane_best_32_avx512",
    "oblivious_lane_best_32_avx2",
    "oblivious_lane_best_32_portable",
    "oblivious_merge_columns_avx512",
    "oblivious_merge_columns_avx2",
    "oblivious_merge_columns_portable",
];
