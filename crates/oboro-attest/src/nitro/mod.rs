//! Evidence of AWS Nitro Enclaves.

mod rules;

pub use rules::NitroRules;

/// AWS's root certificate for Nitro Enclaves, in DER.
pub const AWS_ROOT: &[u8] = include_bytes!("root/aws-nitro-enclaves-root-g1.der");
