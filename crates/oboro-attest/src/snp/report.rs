//! The attestation report of AMD SEV-SNP (publication 56860, table "ATTESTATION_REPORT").

use super::Product;
use super::tcb::Tcb;
use crate::AttestError;

/// Bytes of a report.
pub const REPORT_BYTES: usize = 1184;

/// Bytes that the signature covers, from the beginning.
pub(crate) const SIGNED_BYTES: usize = 0x2A0;

const COMPONENT_BYTES: usize = 72;
const SCALAR_BYTES: usize = 48;

/// Which key signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// The chip's own key at its TCB version.
    Vcek,
    /// A key that AMD gives a cloud provider, loaded into all its chips.
    Vlek,
}

/// The guest policy, which the host set at launch and the guest cannot change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    const MUST_BE_ONE: u64 = 1 << 17;
    const RESERVED: u64 = !((1 << 26) - 1);

    /// Whether a migration agent may be associated with the guest.
    #[must_use]
    pub const fn migration_agent(self) -> bool {
        self.0 >> 18 & 1 == 1
    }

    /// Whether the host may read the guest's memory.
    #[must_use]
    pub const fn debug(self) -> bool {
        self.0 >> 19 & 1 == 1
    }

    /// Whether two guests may share a core.
    #[must_use]
    pub const fn smt(self) -> bool {
        self.0 >> 16 & 1 == 1
    }
}

/// A parsed report. Every byte that the format reserves was zero.
///
/// # Security
/// Parsing proves nothing; [`SnpVerifier`](super::SnpVerifier) does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Format version, 2 to 5.
    pub version: u32,
    /// The guest's own version number.
    pub guest_svn: u32,
    /// Guest policy.
    pub policy: GuestPolicy,
    /// Family of the image, chosen by its author.
    pub family_id: [u8; 16],
    /// The image, chosen by its author.
    pub image_id: [u8; 16],
    /// Privilege level that asked for the report; 0 is the highest.
    pub vmpl: u32,
    /// The firmware in use, undecoded.
    pub current_tcb: [u8; 8],
    /// Facts about the platform.
    pub platform_info: u64,
    /// Which key signed.
    pub signing_key: SigningKey,
    /// The caller's data.
    pub report_data: [u8; 64],
    /// Launch measurement.
    pub measurement: [u8; 48],
    /// Data of the host at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the key that signed the identity block; zero without one.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the key that signed the identity key; zero without one.
    pub author_key_digest: [u8; 48],
    /// The TCB that the signing key was derived for, undecoded.
    pub reported_tcb: [u8; 8],
    /// Family, model and stepping of the processor; since version 3.
    pub cpuid: Option<[u8; 3]>,
    /// The chip; zero where it is masked.
    pub chip_id: [u8; 64],
    /// The oldest firmware the platform can go back to, undecoded.
    pub committed_tcb: [u8; 8],
    /// The firmware at launch, undecoded.
    pub launch_tcb: [u8; 8],
}

impl Report {
    /// Reads a report strictly.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for another length, version or signature algorithm, and
    /// for reserved bytes that are not zero.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let malformed = AttestError::Malformed;
        let bytes: &[u8; REPORT_BYTES] = bytes
            .try_into()
            .map_err(|_| malformed("a report has 1184 bytes"))?;
        let version = u32::from_le_bytes(field(bytes, 0x00));
        if !(2..=5).contains(&version) {
            return Err(malformed(
                "the report's version is not between 2 and 5; update this program",
            ));
        }
        if u32::from_le_bytes(field(bytes, 0x34)) != 1 {
            return Err(malformed(
                "the report is not signed with ECDSA P-384 and SHA-384",
            ));
        }
        let policy = GuestPolicy(u64::from_le_bytes(field(bytes, 0x08)));
        let key = u32::from_le_bytes(field(bytes, 0x48));
        let zeros: [&[u8]; 7] = [
            &bytes[0x4C..0x50],
            if version < 3 {
                &bytes[0x188..0x1A0]
            } else {
                &bytes[0x18B..0x1A0]
            },
            &bytes[0x1EB..0x1EC],
            &bytes[0x1EF..0x1F0],
            if version < 5 {
                &bytes[0x1F8..0x208]
            } else {
                &[]
            },
            &bytes[0x208..SIGNED_BYTES],
            &bytes[SIGNED_BYTES + 2 * COMPONENT_BYTES..],
        ];
        if zeros
            .iter()
            .any(|zeros| zeros.iter().any(|&byte| byte != 0))
            || policy.0 & GuestPolicy::RESERVED != 0
            || policy.0 & GuestPolicy::MUST_BE_ONE == 0
            || key >> 5 != 0
        {
            return Err(malformed(
                "reserved bits of the report are not as they must be",
            ));
        }
        let signing_key = match key >> 2 & 7 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            _ => return Err(malformed("the report is not signed")),
        };
        Ok(Self {
            version,
            guest_svn: u32::from_le_bytes(field(bytes, 0x04)),
            policy,
            family_id: field(bytes, 0x10),
            image_id: field(bytes, 0x20),
            vmpl: u32::from_le_bytes(field(bytes, 0x30)),
            current_tcb: field(bytes, 0x38),
            platform_info: u64::from_le_bytes(field(bytes, 0x40)),
            signing_key,
            report_data: field(bytes, 0x50),
            measurement: field(bytes, 0x90),
            host_data: field(bytes, 0xC0),
            id_key_digest: field(bytes, 0xE0),
            author_key_digest: field(bytes, 0x110),
            reported_tcb: field(bytes, 0x180),
            cpuid: (version >= 3).then(|| field(bytes, 0x188)),
            chip_id: field(bytes, 0x1A0),
            committed_tcb: field(bytes, 0x1E0),
            launch_tcb: field(bytes, 0x1F0),
        })
    }

    /// The product line that the report itself names; `None` before version 3, which
    /// names none.
    ///
    /// # Errors
    /// [`AttestError::State`] for a processor that this release does not know.
    pub fn product(&self) -> Result<Option<Product>, AttestError> {
        let Some([family, model, _]) = self.cpuid else {
            return Ok(None);
        };
        match (family, model) {
            (0x19, 0x00..=0x0f) => Ok(Some(Product::Milan)),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Ok(Some(Product::Genoa)),
            (0x1a, 0x00..=0x1f) => Ok(Some(Product::Turin)),
            _ => Err(AttestError::State(format!(
                "the report names a processor of family {family:#x} and model {model:#x}, which this release does not know"
            ))),
        }
    }

    /// The TCB version that the signing key stands for.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] where reserved bytes of it are not zero.
    pub fn reported(&self, product: Product) -> Result<Tcb, AttestError> {
        Tcb::decode(self.reported_tcb, product)
    }
}

fn field<const N: usize>(bytes: &[u8; REPORT_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

/// The signature as r and s, 48 bytes each, most significant byte first.
pub(crate) fn signature(bytes: &[u8; REPORT_BYTES]) -> Result<[u8; 2 * SCALAR_BYTES], AttestError> {
    let mut signature = [0; 2 * SCALAR_BYTES];
    for part in 0..2 {
        let at = SIGNED_BYTES + part * COMPONENT_BYTES;
        let (scalar, zeros) = bytes[at..at + COMPONENT_BYTES].split_at(SCALAR_BYTES);
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(AttestError::Malformed(
                "reserved bits of the report are not as they must be",
            ));
        }
        for (to, from) in signature[part * SCALAR_BYTES..]
            .iter_mut()
            .zip(scalar.iter().rev())
        {
            *to = *from;
        }
    }
    Ok(signature)
}
