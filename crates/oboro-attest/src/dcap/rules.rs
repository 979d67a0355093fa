//! What a policy demands of Intel TDX and SGX.

/// Rules for evidence of Intel TDX and SGX.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DcapRules {
    /// Accepted measurements; none accepts nothing.
    pub measurements: Vec<Vec<u8>>,
}
