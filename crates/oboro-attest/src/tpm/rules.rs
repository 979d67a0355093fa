//! What a policy demands of TPM 2.0 quotes.

use serde::{Deserialize, Serialize};

/// Rules for evidence of TPM 2.0 quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TpmRules {
    /// Accepted measurements; none accepts nothing.
    #[serde(with = "crate::hex::list")]
    pub measurements: Vec<Vec<u8>>,
}
