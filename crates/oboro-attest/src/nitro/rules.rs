//! What a policy demands of AWS Nitro Enclaves.

/// Rules for evidence of AWS Nitro Enclaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NitroRules {
    /// Accepted measurements; none accepts nothing.
    pub measurements: Vec<Vec<u8>>,
}
