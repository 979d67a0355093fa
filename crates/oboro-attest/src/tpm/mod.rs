//! Evidence of TPM 2.0 quotes.

mod rules;

pub use rules::TpmRules;
