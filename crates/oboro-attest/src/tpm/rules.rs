//! What a policy demands of TPM 2.0 quotes.

/// Rules for evidence of TPM 2.0 quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TpmRules {
    /// Accepted measurements; none accepts nothing.
    pub measurements: Vec<Vec<u8>>,
}
