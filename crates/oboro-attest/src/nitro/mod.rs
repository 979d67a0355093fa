//! Evidence of AWS Nitro Enclaves.

mod rules;

pub use rules::NitroRules;
