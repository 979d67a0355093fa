//! Collateral: what Intel signs about platforms.

use crate::{AttestError, MAX_ENDORSEMENT_BYTES};
use dcap_qvl::QuoteCollateralV3;

/// Reads the JSON object; nothing in it is believed yet.
pub(super) fn parse(bytes: &[u8]) -> Result<QuoteCollateralV3, AttestError> {
    if bytes.len() > MAX_ENDORSEMENT_BYTES {
        return Err(AttestError::Endorsement(format!(
            "the collateral has {} bytes; at most {MAX_ENDORSEMENT_BYTES} are allowed",
            bytes.len()
        )));
    }
    let mut collateral: QuoteCollateralV3 = serde_json::from_slice(bytes)
        .map_err(|_| AttestError::Endorsement("the collateral is malformed".to_owned()))?;
    // The certificate that counts is the one in the quote.
    collateral.pck_certificate_chain = None;
    Ok(collateral)
}
