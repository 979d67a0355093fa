//! What a policy demands of AWS Nitro Enclaves.

use serde::{Deserialize, Serialize};

/// Rules for evidence of AWS Nitro Enclaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NitroRules {
    /// Accepted measurements; none accepts nothing.
    #[serde(with = "crate::hex::list")]
    pub measurements: Vec<Vec<u8>>,
}
