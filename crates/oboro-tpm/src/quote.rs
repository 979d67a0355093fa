//! Attestation keys and quotes.

use crate::pcr::ATTEMPTS;
use crate::public::{ATTESTING, encode};
use crate::tpm::{Transient, hierarchy, password};
use crate::{AttestationPublic, PcrSelection, PcrValues, QuoteStatement, Tpm, TpmError};
use std::sync::{Arc, Mutex, PoisonError};
use tpm2_protocol::basic::{TpmHandle, TpmUint16, TpmUint32};
use tpm2_protocol::data::{
    Tpm2bPublic, TpmAlgId, TpmEccCurve, TpmRh, TpmaObject, TpmsEccParms, TpmsRsaParms,
    TpmsSchemeHash, TpmtEccScheme, TpmtPublic, TpmtRsaScheme, TpmtSigScheme, TpmtSymDefObject,
    TpmuAsymScheme, TpmuPublicId, TpmuPublicParms,
};
use tpm2_protocol::frame::{
    TpmCreatePrimaryCommand, TpmCreatePrimaryResponse, TpmQuoteCommand, TpmQuoteResponse,
    TpmReadPublicCommand, TpmReadPublicResponse,
};

/// Most bytes of the caller's data in a quote that every TPM takes.
pub const MAX_EXTRA_BYTES: usize = 32;

/// Which key signs quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyChoice {
    /// A primary key on P-256 in the endorsement hierarchy, made from the TPM's seed and
    /// a fixed template: always the same one, with nothing to store.
    EcdsaP256,
    /// The same with RSA-PSS of 2048 bits; making it takes many TPMs seconds.
    RsaPss2048,
    /// A key that is stored in the TPM under this handle, such as 0x81000003 on virtual
    /// machines of Azure.
    Persistent(u32),
}

/// A quote and what a verifier needs beside it, in the TPM's own encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The signed statement (`TPMS_ATTEST`).
    pub statement: Vec<u8>,
    /// Its signature (`TPMT_SIGNATURE`).
    pub signature: Vec<u8>,
    /// The attestation key's public part (`TPMT_PUBLIC`).
    pub public: Vec<u8>,
    /// The values of the quoted PCRs.
    pub pcrs: PcrValues,
}

/// A key of a TPM that signs quotes.
pub struct AttestationKey {
    tpm: Arc<Tpm>,
    choice: KeyChoice,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    handle: TpmHandle,
    /// Not for a persistent key, which is nobody's to free.
    transient: Option<Transient>,
    public: Vec<u8>,
}

impl AttestationKey {
    /// Makes or finds the key.
    ///
    /// # Errors
    /// [`TpmError::Key`] for a stored key that is not fit to attest, and what the TPM
    /// answers.
    pub fn new(tpm: Arc<Tpm>, choice: KeyChoice) -> Result<Self, TpmError> {
        let key = Self {
            tpm,
            choice,
            loaded: Mutex::new(None),
        };
        AttestationPublic::decode(&key.load()?.public)?;
        Ok(key)
    }

    /// Its public part, encoded as the TPM does (`TPMT_PUBLIC`).
    ///
    /// # Errors
    /// What the TPM answers.
    pub fn public(&self) -> Result<Vec<u8>, TpmError> {
        Ok(self.load()?.public)
    }

    /// A quote over `selection` with `extra` as the caller's data.
    ///
    /// # Errors
    /// [`TpmError::Malformed`] for more than [`MAX_EXTRA_BYTES`],
    /// [`TpmError::Unsteady`], and what the TPM answers.
    pub fn quote(&self, selection: PcrSelection, extra: &[u8]) -> Result<Quote, TpmError> {
        if extra.len() > MAX_EXTRA_BYTES {
            return Err(TpmError::Malformed(
                "more than 32 bytes of the caller's data do not fit every TPM's quotes",
            ));
        }
        for _ in 0..ATTEMPTS {
            let pcrs = self.tpm.read_pcrs(selection)?;
            let loaded = self.load()?;
            let command = TpmQuoteCommand {
                handles: [loaded.handle],
                qualifying_data: extra
                    .try_into()
                    .map_err(|_| TpmError::Malformed("the caller's data do not fit"))?,
                in_scheme: TpmtSigScheme::default(),
                pcr_select: selection.list()?,
            };
            let parameters = self.tpm.execute_raw::<_, TpmQuoteResponse>(
                "a quote",
                &command,
                &[password(&[])?],
            )?;
            let (statement, signature) = split_quote(&parameters)?;
            // PCRs are read and quoted by two commands; between them they may change.
            if QuoteStatement::decode(&statement)?.digest == pcrs.digest() {
                return Ok(Quote {
                    statement,
                    signature,
                    public: loaded.public,
                    pcrs,
                });
            }
        }
        Err(TpmError::Unsteady { attempts: ATTEMPTS })
    }

    /// The key as it lies in the TPM; made anew after the connection was lost.
    fn load(&self) -> Result<Loaded, TpmError> {
        let mut guard = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*guard {
            let alive = loaded
                .transient
                .is_none_or(|transient| self.tpm.is_live(transient));
            if alive {
                return Ok(loaded.clone());
            }
        }
        let loaded = match self.choice {
            KeyChoice::EcdsaP256 => self.create(ecdsa_template())?,
            KeyChoice::RsaPss2048 => self.create(rsa_template())?,
            KeyChoice::Persistent(handle) => self.find(handle)?,
        };
        *guard = Some(loaded.clone());
        Ok(loaded)
    }

    fn create(&self, template: TpmtPublic) -> Result<Loaded, TpmError> {
        let command = TpmCreatePrimaryCommand {
            handles: [hierarchy(TpmRh::Endorsement)],
            in_public: Tpm2bPublic { inner: template },
            ..TpmCreatePrimaryCommand::default()
        };
        let response: TpmCreatePrimaryResponse =
            self.tpm
                .execute("an attestation key", &command, &[password(&[])?])?;
        let [handle] = response.handles;
        Ok(Loaded {
            handle,
            transient: Some(self.tpm.transient(handle)),
            public: encode(&response.out_public.inner)?,
        })
    }

    fn find(&self, handle: u32) -> Result<Loaded, TpmError> {
        let handle = TpmHandle::new(handle);
        let command = TpmReadPublicCommand { handles: [handle] };
        let response: TpmReadPublicResponse =
            self.tpm
                .execute("to show its attestation key", &command, &[])?;
        Ok(Loaded {
            handle,
            transient: None,
            public: encode(&response.out_public.inner)?,
        })
    }
}

impl Drop for AttestationKey {
    fn drop(&mut self) {
        let loaded = self
            .loaded
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(transient) = loaded.as_ref().and_then(|loaded| loaded.transient) {
            self.tpm.flush(transient);
        }
    }
}

/// Statement and signature, both exactly as the TPM wrote them.
fn split_quote(parameters: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
    let (size, rest) = parameters
        .split_first_chunk()
        .ok_or(TpmError::Malformed("a quote is cut short"))?;
    let (statement, signature) = rest
        .split_at_checked(u16::from_be_bytes(*size).into())
        .ok_or(TpmError::Malformed("a quote is cut short"))?;
    Ok((statement.to_vec(), signature.to_vec()))
}

fn template(
    object_type: TpmAlgId,
    parameters: TpmuPublicParms,
    unique: TpmuPublicId,
) -> TpmtPublic {
    TpmtPublic {
        object_type,
        name_alg: TpmAlgId::Sha256,
        object_attributes: ATTESTING | TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA,
        parameters,
        unique,
        ..TpmtPublic::default()
    }
}

const SHA256: TpmuAsymScheme = TpmuAsymScheme::Hash(TpmsSchemeHash {
    hash_alg: TpmAlgId::Sha256,
});

fn ecdsa_template() -> TpmtPublic {
    let parameters = TpmsEccParms {
        symmetric: TpmtSymDefObject::default(),
        scheme: TpmtEccScheme {
            scheme: TpmAlgId::Ecdsa,
            details: SHA256,
        },
        curve_id: TpmEccCurve::NistP256,
        ..TpmsEccParms::default()
    };
    template(
        TpmAlgId::Ecc,
        TpmuPublicParms::Ecc(parameters),
        TpmuPublicId::Ecc(Default::default()),
    )
}

fn rsa_template() -> TpmtPublic {
    let parameters = TpmsRsaParms {
        symmetric: TpmtSymDefObject::default(),
        scheme: TpmtRsaScheme {
            scheme: TpmAlgId::Rsapss,
            details: SHA256,
        },
        key_bits: TpmUint16::new(2048),
        exponent: TpmUint32::new(0),
    };
    template(
        TpmAlgId::Rsa,
        TpmuPublicParms::Rsa(parameters),
        TpmuPublicId::Rsa(Default::default()),
    )
}
