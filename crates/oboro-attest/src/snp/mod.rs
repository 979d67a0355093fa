//! Evidence of AMD SEV-SNP.

mod rules;

pub use rules::SnpRules;
