//! What a policy demands of AMD SEV-SNP.

/// Rules for evidence of AMD SEV-SNP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnpRules {
    /// Accepted measurements; none accepts nothing.
    pub measurements: Vec<Vec<u8>>,
}
