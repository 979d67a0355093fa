//! Why a TPM did not do what it was asked.

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// No TPM can be opened.
    #[error("there is no usable TPM at {address}: {reason}")]
    Absent {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Text that is no address of a TPM.
    #[error(
        "'{0}' is no address of a TPM; give the path of a device such as /dev/tpmrm0, unix:/run/swtpm.sock or tcp:127.0.0.1:2321"
    )]
    Address(String),
    /// Reading or writing failed.
    #[error("the connection to the TPM failed: {0}")]
    Io(String),
    /// It does not answer.
    #[error("the TPM did not answer within {seconds} seconds")]
    TimedOut {
        /// How long was waited.
        seconds: u64,
    },
    /// It refuses.
    #[error("the TPM refuses {command} with code {code:#x} ({meaning})")]
    Refused {
        /// What it was asked to do.
        command: &'static str,
        /// The response code.
        code: u32,
        /// The response code's name.
        meaning: String,
    },
    /// Bytes that are not what they should be.
    #[error("what came from the TPM is malformed: {0}")]
    Malformed(&'static str),
    /// A number beyond the platform configuration registers.
    #[error("{0} is no number of a PCR; they go from 0 to 23")]
    PcrNumber(u32),
    /// No PCR at all.
    #[error("no PCR is selected; name at least one")]
    NoPcr,
    /// The TPM's PCRs are not kept with SHA-256.
    #[error("the TPM keeps no SHA-256 values of PCR {0}; enable its SHA-256 bank")]
    NoSha256Bank(u32),
    /// PCRs that change while they are read.
    #[error("the PCRs changed while they were read, {attempts} times in a row; try again later")]
    Unsteady {
        /// How often it was tried.
        attempts: u32,
    },
    /// A key that cannot sign quotes for us.
    #[error("the key is not usable as an attestation key: {0}")]
    Key(&'static str),
    /// An NV index that is something else.
    #[error(
        "NV index {index:#010x} is not a counter of this program ({reason}); choose another index"
    )]
    Index {
        /// The index.
        index: u32,
        /// What is different.
        reason: &'static str,
    },
    /// An authorization value that is too long.
    #[error("the authorization value has {0} bytes; a TPM takes at most 32")]
    LongAuth(usize),
}
