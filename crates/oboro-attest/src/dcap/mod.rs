//! Evidence of Intel TDX and SGX.

mod rules;

pub use rules::DcapRules;
