//! Platform configuration registers: what was started since the machine was switched on.

use crate::tpm::password;
use crate::{Tpm, TpmError};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use tpm2_protocol::basic::TpmHandle;
use tpm2_protocol::data::{
    TpmAlgId, TpmlDigestValues, TpmlPcrSelection, TpmsPcrSelect, TpmsPcrSelection, TpmtHa, TpmuHa,
};
use tpm2_protocol::frame::{
    TpmPcrExtendCommand, TpmPcrExtendResponse, TpmPcrReadCommand, TpmPcrReadResponse,
};

/// PCRs that a TPM for servers has.
const PCRS: u32 = 24;

/// How often PCRs are read again that change meanwhile.
pub(crate) const ATTEMPTS: u32 = 4;

/// A set of PCRs of the SHA-256 bank, never empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PcrSelection(u32);

impl PcrSelection {
    /// The PCRs of the given numbers.
    ///
    /// # Errors
    /// [`TpmError::PcrNumber`] above 23, [`TpmError::NoPcr`] for none.
    pub fn new(numbers: impl IntoIterator<Item = u32>) -> Result<Self, TpmError> {
        let mut bits = 0;
        for number in numbers {
            if number >= PCRS {
                return Err(TpmError::PcrNumber(number));
            }
            bits |= 1 << number;
        }
        Self::from_bits(bits)
    }

    /// The PCRs whose bits are set, PCR 0 the lowest.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_bits(bits: u32) -> Result<Self, TpmError> {
        if bits == 0 {
            return Err(TpmError::NoPcr);
        }
        if bits >> PCRS != 0 {
            return Err(TpmError::PcrNumber(31 - bits.leading_zeros()));
        }
        Ok(Self(bits))
    }

    /// One bit for each PCR, PCR 0 the lowest.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The numbers, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..PCRS).filter(move |number| self.0 >> number & 1 == 1)
    }

    /// How many.
    #[must_use]
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The same as the TPM writes it, three bytes wide.
    pub(crate) fn list(self) -> Result<TpmlPcrSelection, TpmError> {
        let mut list = TpmlPcrSelection::new();
        TpmsPcrSelect::try_from(&self.0.to_le_bytes()[..3])
            .and_then(|pcr_select| {
                list.try_push(TpmsPcrSelection {
                    hash: TpmAlgId::Sha256,
                    pcr_select,
                })
            })
            .map_err(|_| TpmError::Malformed("a selection of PCRs does not fit"))?;
        Ok(list)
    }

    /// Reads the TPM's form back; exactly one selection, of the SHA-256 bank.
    pub(crate) fn from_list(list: &TpmlPcrSelection) -> Result<Self, TpmError> {
        let [
            TpmsPcrSelection {
                hash: TpmAlgId::Sha256,
                pcr_select,
            },
        ] = &**list
        else {
            return Err(TpmError::Malformed(
                "it selects other PCRs than those of the SHA-256 bank",
            ));
        };
        let mut bits = [0; 4];
        for (to, from) in bits.iter_mut().zip(pcr_select.iter()) {
            *to = *from;
        }
        Self::from_bits(u32::from_le_bytes(bits))
    }
}

impl fmt::Display for PcrSelection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, number) in self.numbers().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            write!(formatter, "{number}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PcrSelection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PcrSelection({self})")
    }
}

/// Values of a selection of PCRs of the SHA-256 bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrValues {
    selection: PcrSelection,
    values: Vec<[u8; 32]>,
}

impl PcrValues {
    /// Values in ascending order of the selected numbers.
    ///
    /// # Errors
    /// [`TpmError::Malformed`] unless there is one for each.
    pub fn new(selection: PcrSelection, values: Vec<[u8; 32]>) -> Result<Self, TpmError> {
        if values.len() != selection.count() {
            return Err(TpmError::Malformed(
                "the PCRs and their values differ in number",
            ));
        }
        Ok(Self { selection, values })
    }

    /// Which PCRs.
    #[must_use]
    pub fn selection(&self) -> PcrSelection {
        self.selection
    }

    /// Number and value of each, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8; 32])> {
        self.selection.numbers().zip(&self.values)
    }

    /// The value of one PCR, where it is selected.
    #[must_use]
    pub fn value(&self, number: u32) -> Option<&[u8; 32]> {
        self.iter()
            .find_map(|(other, value)| (other == number).then_some(value))
    }

    /// The digest that a quote over them carries: SHA-256 of the values one after the
    /// other.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for value in &self.values {
            hash.update(value);
        }
        hash.finalize().into()
    }
}

impl Tpm {
    /// Reads PCRs, all at one moment.
    ///
    /// # Errors
    /// [`TpmError::NoSha256Bank`], [`TpmError::Unsteady`], and what the TPM answers.
    pub fn read_pcrs(&self, selection: PcrSelection) -> Result<PcrValues, TpmError> {
        for _ in 0..ATTEMPTS {
            if let Some(values) = self.try_read_pcrs(selection)? {
                return PcrValues::new(selection, values);
            }
        }
        Err(TpmError::Unsteady { attempts: ATTEMPTS })
    }

    /// One pass; `None` where the PCRs changed between its commands, each of which gives
    /// eight values at most.
    fn try_read_pcrs(&self, selection: PcrSelection) -> Result<Option<Vec<[u8; 32]>>, TpmError> {
        let mut values = BTreeMap::new();
        let mut rest = selection.bits();
        let mut counter = None;
        while rest != 0 {
            let command = TpmPcrReadCommand {
                handles: [],
                pcr_selection_in: PcrSelection(rest).list()?,
            };
            let response: TpmPcrReadResponse = self.execute("to read PCRs", &command, &[])?;
            let wanted = rest.trailing_zeros();
            let read = match PcrSelection::from_list(&response.pcr_selection_out) {
                Ok(read) if read.bits() & !rest == 0 && read.bits() >> wanted & 1 == 1 => read,
                _ => return Err(TpmError::NoSha256Bank(wanted)),
            };
            if read.count() != response.pcr_values.len() {
                return Err(TpmError::Malformed(
                    "the PCRs and their values differ in number",
                ));
            }
            if *counter.get_or_insert(response.pcr_update_counter) != response.pcr_update_counter {
                return Ok(None);
            }
            for (number, value) in read.numbers().zip(response.pcr_values.iter()) {
                let value = value
                    .as_ref()
                    .try_into()
                    .map_err(|_| TpmError::NoSha256Bank(number))?;
                values.insert(number, value);
            }
            rest &= !read.bits();
        }
        Ok(Some(values.into_values().collect()))
    }

    /// Extends a PCR of the SHA-256 bank: its new value is the hash of the old one and
    /// `digest`.
    ///
    /// # Errors
    /// [`TpmError::PcrNumber`] above 23, and what the TPM answers.
    pub fn extend_pcr(&self, number: u32, digest: &[u8; 32]) -> Result<(), TpmError> {
        if number >= PCRS {
            return Err(TpmError::PcrNumber(number));
        }
        let mut digests = TpmlDigestValues::new();
        digest
            .as_slice()
            .try_into()
            .and_then(|digest| {
                digests.try_push(TpmtHa {
                    hash_alg: TpmAlgId::Sha256,
                    digest: TpmuHa::Digest(digest),
                })
            })
            .map_err(|_| TpmError::Malformed("a digest does not fit"))?;
        let command = TpmPcrExtendCommand {
            handles: [TpmHandle::new(number)],
            digests,
        };
        let _: TpmPcrExtendResponse =
            self.execute("to extend a PCR", &command, &[password(&[])?])?;
        Ok(())
    }
}
