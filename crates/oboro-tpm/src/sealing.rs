//! Keys that only this TPM derives, and only after this start.

use crate::tpm::{Transient, hierarchy, password};
use crate::{PcrSelection, PcrValues, Tpm, TpmError};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tpm2_protocol::data::{
    Tpm2bDigest, Tpm2bPublic, TpmAlgId, TpmCc, TpmRh, TpmSe, TpmaObject, TpmaSession,
    TpmsAuthCommand, TpmsKeyedhashParms, TpmsSchemeHash, TpmtKeyedhashScheme, TpmtPublic,
    TpmtSymDefObject, TpmuKeyedhashScheme, TpmuPublicId, TpmuPublicParms,
};
use tpm2_protocol::frame::{
    TpmCreatePrimaryCommand, TpmCreatePrimaryResponse, TpmHmacCommand, TpmHmacResponse,
    TpmPolicyPcrCommand, TpmPolicyPcrResponse, TpmStartAuthSessionCommand,
    TpmStartAuthSessionResponse,
};
use zeroize::Zeroizing;

/// Derives keys from the TPM's storage seed and the values of a selection of PCRs.
///
/// The TPM makes an HMAC key from its seed, a fixed template and a policy that names the
/// PCRs with their values, and computes one HMAC with it for each purpose: nothing is
/// stored, and after another start it is another key.
///
/// # Security
/// The key is that of the machine and of what was started on it, as far as the PCRs
/// measure it: any program of that start that may use the TPM derives it. Between TPM and
/// processor it travels in the clear; whoever listens on the wires of a TPM on a chip of
/// its own, or runs a virtual one, learns it.
pub struct SealingRoot {
    tpm: Arc<Tpm>,
    pcrs: PcrValues,
}

impl SealingRoot {
    /// A root bound to the present values of `selection`.
    ///
    /// # Errors
    /// As [`Tpm::read_pcrs`].
    pub fn new(tpm: Arc<Tpm>, selection: PcrSelection) -> Result<Self, TpmError> {
        let pcrs = tpm.read_pcrs(selection)?;
        Ok(Self { tpm, pcrs })
    }

    /// The PCRs that it is bound to.
    #[must_use]
    pub fn pcrs(&self) -> &PcrValues {
        &self.pcrs
    }

    /// The key for one purpose; the same for the same purpose, TPM and PCRs.
    ///
    /// # Errors
    /// [`TpmError::Refused`] where the PCRs have changed since, and what else the TPM
    /// answers.
    pub fn key(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, TpmError> {
        let root = self.root()?;
        let key = self.derive(root, purpose);
        self.tpm.flush(root);
        key
    }

    fn root(&self) -> Result<Transient, TpmError> {
        let command = TpmCreatePrimaryCommand {
            handles: [hierarchy(TpmRh::Owner)],
            in_public: Tpm2bPublic {
                inner: self.template()?,
            },
            ..TpmCreatePrimaryCommand::default()
        };
        let response: TpmCreatePrimaryResponse =
            self.tpm
                .execute("a sealing key", &command, &[password(&[])?])?;
        let [handle] = response.handles;
        Ok(self.tpm.transient(handle))
    }

    fn template(&self) -> Result<TpmtPublic, TpmError> {
        let hmac = TpmtKeyedhashScheme {
            scheme: TpmAlgId::Hmac,
            details: TpmuKeyedhashScheme::Hmac(TpmsSchemeHash {
                hash_alg: TpmAlgId::Sha256,
            }),
        };
        Ok(TpmtPublic {
            object_type: TpmAlgId::KeyedHash,
            name_alg: TpmAlgId::Sha256,
            // Without USER_WITH_AUTH the policy is the only way to use it.
            object_attributes: TpmaObject::FIXED_TPM
                | TpmaObject::FIXED_PARENT
                | TpmaObject::SENSITIVE_DATA_ORIGIN
                | TpmaObject::NO_DA
                | TpmaObject::SIGN_ENCRYPT,
            auth_policy: digest(&self.policy()?)?,
            parameters: TpmuPublicParms::KeyedHash(TpmsKeyedhashParms { scheme: hmac }),
            unique: TpmuPublicId::KeyedHash(Tpm2bDigest::default()),
        })
    }

    /// The digest of a policy of one `TPM2_PolicyPCR`.
    fn policy(&self) -> Result<[u8; 32], TpmError> {
        let mut hash = Sha256::new();
        hash.update([0; 32]);
        hash.update((TpmCc::PolicyPcr as u32).to_be_bytes());
        hash.update(crate::public::encode(&self.pcrs.selection().list()?)?);
        hash.update(self.pcrs.digest());
        Ok(hash.finalize().into())
    }

    fn derive(&self, root: Transient, purpose: &str) -> Result<Zeroizing<[u8; 32]>, TpmError> {
        let session = self.policy_session()?;
        let derived = self.hmac(root, session, purpose);
        // A session ends with its use, but stays after a failure.
        if derived.is_err() {
            self.tpm.flush(session);
        }
        derived
    }

    fn policy_session(&self) -> Result<Transient, TpmError> {
        let null = hierarchy(TpmRh::Null);
        let command = TpmStartAuthSessionCommand {
            handles: [null, null],
            // No secret is derived from the nonces of such a session.
            nonce_caller: digest(&[0; 16])?,
            encrypted_salt: Default::default(),
            session_type: TpmSe::Policy,
            symmetric: TpmtSymDefObject::default(),
            auth_hash: TpmAlgId::Sha256,
        };
        let response: TpmStartAuthSessionResponse = self.tpm.execute("a session", &command, &[])?;
        let [handle] = response.handles;
        Ok(self.tpm.transient(handle))
    }

    fn hmac(
        &self,
        root: Transient,
        session: Transient,
        purpose: &str,
    ) -> Result<Zeroizing<[u8; 32]>, TpmError> {
        let policy = TpmPolicyPcrCommand {
            handles: [session.handle],
            pcr_digest: digest(&self.pcrs.digest())?,
            pcrs: self.pcrs.selection().list()?,
        };
        let _: TpmPolicyPcrResponse = self.tpm.execute("the key of another start", &policy, &[])?;
        let mut label = Sha256::new_with_prefix(b"oboro tpm sealing v1\0");
        label.update(purpose.as_bytes());
        let command = TpmHmacCommand {
            handles: [root.handle],
            buffer: label
                .finalize()
                .as_slice()
                .try_into()
                .map_err(|_| TpmError::Malformed("a label does not fit"))?,
            hash_alg: TpmAlgId::Sha256,
        };
        let authorization = TpmsAuthCommand {
            session_handle: session.handle,
            nonce: Default::default(),
            session_attributes: TpmaSession::empty(),
            hmac: Default::default(),
        };
        let parameters = self.tpm.execute_raw::<_, TpmHmacResponse>(
            "a sealing key",
            &command,
            &[authorization],
        )?;
        // A TPM2B: two bytes of length, then the HMAC.
        let mut key = Zeroizing::new([0; 32]);
        match parameters.split_first_chunk() {
            Some(([0, 32], bytes)) if bytes.len() == 32 => key.copy_from_slice(bytes),
            _ => return Err(TpmError::Malformed("a sealing key is not 32 bytes long")),
        }
        Ok(key)
    }
}

fn digest(bytes: &[u8]) -> Result<Tpm2bDigest, TpmError> {
    bytes
        .try_into()
        .map_err(|_| TpmError::Malformed("a digest does not fit"))
}
