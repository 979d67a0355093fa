//! Counters that only go up: what tells an old copy of a state from the newest.

use crate::tpm::{auth, hierarchy, password};
use crate::{Tpm, TpmError};
use std::sync::Arc;
use tpm2_protocol::basic::{TpmHandle, TpmUint16};
use tpm2_protocol::data::{
    Tpm2bDigest, Tpm2bNvPublic, TpmAlgId, TpmRcBase, TpmRh, TpmaNv, TpmsNvPublic,
};
use tpm2_protocol::frame::{
    TpmNvDefineSpaceCommand, TpmNvDefineSpaceResponse, TpmNvIncrementCommand,
    TpmNvIncrementResponse, TpmNvReadCommand, TpmNvReadPublicCommand, TpmNvReadPublicResponse,
    TpmNvReadResponse,
};
use zeroize::Zeroizing;

/// A counter that never goes back, whatever happens to the disk.
///
/// A state that must not be rolled back carries the counter's value. Write the state with
/// the value to come, [`increment`](Self::increment), and only then act on the state: a
/// state whose value is below the counter's is an old copy; one that is ahead by one was
/// written just before a crash.
pub trait MonotonicCounter: Send + Sync {
    /// Its value.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn read(&self) -> Result<u64, TpmError>;

    /// Adds one; the new value.
    ///
    /// # Errors
    /// Whatever keeps it from being written; whether it has been is then unknown.
    fn increment(&self) -> Result<u64, TpmError>;

    /// What it is and where, for people.
    fn describe(&self) -> String;
}

/// A counter in a TPM's non-volatile memory.
///
/// # Security
/// It is as good as its TPM: whoever runs a virtual TPM can put an old copy of it back.
/// Whoever has the TPM's owner authorization can remove the counter, which is noticed: a
/// new one begins above every value that any counter of that TPM ever had.
///
/// Flash cells wear out: TPMs promise some 100,000 writes and may answer slowly to many.
pub struct NvCounter {
    tpm: Arc<Tpm>,
    index: TpmHandle,
    auth: Zeroizing<Vec<u8>>,
}

/// Authorization values, at most 32 bytes each; empty on most machines.
#[derive(Default)]
pub struct CounterAuth {
    /// The TPM owner's, for defining the counter.
    pub owner: Zeroizing<Vec<u8>>,
    /// The counter's own, for reading and counting. Empty, every program that may use the
    /// TPM can count it up, and with that make the newest state look old.
    pub index: Zeroizing<Vec<u8>>,
}

impl NvCounter {
    /// An index of the range that is the owner's.
    pub const DEFAULT_INDEX: u32 = 0x0180_4f42;

    /// The counter at `index`, which is defined where it does not exist.
    ///
    /// # Errors
    /// [`TpmError::Index`] where the index holds something else, and what the TPM
    /// answers.
    pub fn open(tpm: Arc<Tpm>, index: u32, auth: CounterAuth) -> Result<Self, TpmError> {
        if index >> 24 != 0x01 {
            return Err(TpmError::Index {
                index,
                reason: "NV indices begin with 0x01",
            });
        }
        let counter = Self {
            tpm,
            index: TpmHandle::new(index),
            auth: auth.index,
        };
        if !counter.exists()? {
            counter.define(&auth.owner)?;
        }
        // The first increment writes it; before, it cannot be read.
        match counter.read() {
            Err(TpmError::Refused { code, .. }) if code == TpmRcBase::NvUninitialized as u32 => {
                counter.increment()?;
            }
            other => {
                other?;
            }
        }
        Ok(counter)
    }

    /// Reads what is at the index and refuses another kind of thing.
    fn exists(&self) -> Result<bool, TpmError> {
        let command = TpmNvReadPublicCommand {
            handles: [self.index],
        };
        let response: TpmNvReadPublicResponse =
            match self.tpm.execute("to look up an NV index", &command, &[]) {
                Ok(response) => response,
                // The code names the handle that it is about, the first.
                Err(TpmError::Refused { code, .. })
                    if code & !0xf00 == TpmRcBase::Handle as u32 =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            };
        let found = response.nv_public.inner;
        let different = |reason| TpmError::Index {
            index: self.index.value(),
            reason,
        };
        // How a TPM marks that it has been written, which it will be.
        let attributes = found.attributes.bits() & !TpmaNv::WRITTEN.bits();
        if attributes != Self::ATTRIBUTES.bits() {
            return Err(different("its attributes differ"));
        }
        if found.data_size.value() != 8 || !found.auth_policy.is_empty() {
            return Err(different("its size or policy differs"));
        }
        Ok(true)
    }

    /// Not `ORDERLY`: such a counter lives in volatile memory between orderly shutdowns.
    const ATTRIBUTES: TpmaNv = TpmaNv::from_bits_truncate(
        TpmaNv::COUNTER.bits()
            | TpmaNv::AUTHREAD.bits()
            | TpmaNv::AUTHWRITE.bits()
            | TpmaNv::OWNERREAD.bits()
            | TpmaNv::NO_DA.bits(),
    );

    fn define(&self, owner_auth: &[u8]) -> Result<(), TpmError> {
        let command = TpmNvDefineSpaceCommand {
            handles: [hierarchy(TpmRh::Owner)],
            auth: auth(&self.auth)?,
            public_info: Tpm2bNvPublic {
                inner: TpmsNvPublic {
                    nv_index: self.index,
                    name_alg: TpmAlgId::Sha256,
                    attributes: Self::ATTRIBUTES,
                    auth_policy: Tpm2bDigest::default(),
                    data_size: TpmUint16::new(8),
                },
            },
        };
        let _: TpmNvDefineSpaceResponse =
            self.tpm
                .execute("to define a counter", &command, &[password(owner_auth)?])?;
        Ok(())
    }
}

impl MonotonicCounter for NvCounter {
    fn read(&self) -> Result<u64, TpmError> {
        let command = TpmNvReadCommand {
            handles: [self.index, self.index],
            size: TpmUint16::new(8),
            offset: TpmUint16::new(0),
        };
        let response: TpmNvReadResponse =
            self.tpm
                .execute("to read a counter", &command, &[password(&self.auth)?])?;
        response
            .data
            .as_ref()
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| TpmError::Malformed("a counter is not 8 bytes long"))
    }

    fn increment(&self) -> Result<u64, TpmError> {
        let command = TpmNvIncrementCommand {
            handles: [self.index, self.index],
        };
        let _: TpmNvIncrementResponse =
            self.tpm
                .execute("to count up", &command, &[password(&self.auth)?])?;
        self.read()
    }

    fn describe(&self) -> String {
        format!(
            "NV counter {:#010x} of the TPM at {}",
            self.index.value(),
            self.tpm.address()
        )
    }
}
