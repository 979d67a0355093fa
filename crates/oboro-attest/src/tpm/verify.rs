//! Verifying quotes.

use super::endorsements;
use super::rules::{TpmRules, unmeasured};
use super::statement::{Statement, extra_data, malformed};
use crate::snp::Revocation;
use crate::{AttestError, Identity, Platform, PlatformVerifier, Rules, Verified, hex};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use oboro_tpm::{AttestationPublic, PcrValues, PublicKey, Quote, QuoteSignature, QuoteStatement};
use sha2::{Digest, Sha256};

/// Verifies evidence of TPM 2.0 quotes.
#[derive(Clone, Copy, Debug, Default)]
pub struct TpmVerifier;

impl PlatformVerifier for TpmVerifier {
    fn platform(&self) -> Platform {
        Platform::Tpm
    }

    fn verify(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        let Rules::Tpm(rules) = rules else {
            return Err(AttestError::Unsupported(Platform::Tpm));
        };
        rules.check()?;
        let Statement { binding, quote } = Statement::decode(statement)?;
        let certificates = endorsements::decode(endorsements)?;
        let Checked { quoted, key } = check_quote(&quote)?;
        let mut remarks = vec![
            "a TPM says what its machine was started with; it keeps no memory from the host"
                .to_owned(),
        ];
        if !rules.attestation_keys.contains(key.name()) {
            endorsements::check_chain(&certificates, key.key(), rules, now)?;
            if rules.revocation == Revocation::Unchecked {
                remarks.push(
                    "whether the attestation key's certificate is revoked was not checked"
                        .to_owned(),
                );
            }
        }
        if quoted.extra_data != extra_data(&binding) {
            return Err(AttestError::Binding);
        }
        check_pcrs(&quote.pcrs, rules)?;
        Ok(Verified {
            binding,
            identity: identity(&quote.pcrs, &quoted, &key),
            remarks,
        })
    }
}

/// A quote whose signature and PCR values hold.
pub(super) struct Checked {
    pub(super) quoted: QuoteStatement,
    pub(super) key: AttestationPublic,
}

/// Checks everything about a quote but who vouches for its key and what it says.
pub(super) fn check_quote(quote: &Quote) -> Result<Checked, AttestError> {
    let key = AttestationPublic::decode(&quote.public).map_err(malformed)?;
    let signature = QuoteSignature::decode(&quote.signature).map_err(malformed)?;
    check_signature(key.key(), &quote.statement, &signature)
        .map_err(|()| AttestError::Signature("the one on the TPM's quote"))?;
    let quoted = QuoteStatement::decode(&quote.statement).map_err(malformed)?;
    if quoted.selection != quote.pcrs.selection() || quoted.digest != quote.pcrs.digest() {
        return Err(AttestError::Signature(
            "the PCR values are not those that the TPM signed",
        ));
    }
    Ok(Checked { quoted, key })
}

fn check_signature(key: &PublicKey, message: &[u8], signature: &QuoteSignature) -> Result<(), ()> {
    let rsa = |modulus, exponent: &u32, algorithm, signature: &[u8]| {
        let exponent = exponent.to_be_bytes();
        let start = exponent.iter().take_while(|byte| **byte == 0).count();
        RsaPublicKeyComponents {
            n: modulus,
            e: &exponent[start..],
        }
        .verify(algorithm, message, signature)
    };
    match (key, signature) {
        (PublicKey::EcdsaP256 { x, y }, QuoteSignature::EcdsaP256(signature)) => {
            let point = [&[4], x.as_slice(), y].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point).verify(message, signature)
        }
        (PublicKey::RsaSsa { modulus, exponent }, QuoteSignature::RsaSsa(signature)) => {
            rsa(modulus, exponent, &RSA_PKCS1_2048_8192_SHA256, signature)
        }
        (PublicKey::RsaPss { modulus, exponent }, QuoteSignature::RsaPss(signature)) => {
            rsa(modulus, exponent, &RSA_PSS_2048_8192_SHA256, signature)
        }
        _ => return Err(()),
    }
    .map_err(|_| ())
}

fn check_pcrs(pcrs: &PcrValues, rules: &TpmRules) -> Result<(), AttestError> {
    for (&number, accepted) in &rules.pcrs {
        let Some(value) = pcrs.value(number) else {
            return Err(AttestError::State(format!(
                "the quote does not cover PCR {number}, which the policy names"
            )));
        };
        if unmeasured(value) {
            return Err(AttestError::State(format!(
                "nothing was measured into PCR {number}"
            )));
        }
        if !accepted.contains(value) {
            return Err(AttestError::Measurement);
        }
    }
    Ok(())
}

fn identity(pcrs: &PcrValues, quoted: &QuoteStatement, key: &AttestationPublic) -> Identity {
    let measurement = Sha256::new_with_prefix(b"oboro tpm measurement v1\0")
        .chain_update(pcrs.selection().bits().to_le_bytes())
        .chain_update(pcrs.digest())
        .finalize()
        .to_vec();
    let values = pcrs
        .iter()
        .map(|(number, value)| format!("{number}={}", hex::encode(value)))
        .collect::<Vec<_>>()
        .join(" ");
    Identity {
        measurement,
        facts: vec![
            ("attestation key", hex::encode(key.name())),
            ("pcrs", values),
            ("firmware", format!("{:#018x}", quoted.firmware)),
            ("resets", quoted.resets.to_string()),
            ("restarts", quoted.restarts.to_string()),
            ("clock is safe", quoted.clock_is_safe.to_string()),
        ],
    }
}
