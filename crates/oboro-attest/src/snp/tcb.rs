//! Versions of the firmware that a guest has to trust.

use super::Product;
use crate::AttestError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Security version numbers of the firmware, one for each component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcb {
    /// Firmware of the memory controller; Turin only, 0 elsewhere.
    #[serde(default)]
    pub fmc: u8,
    /// Boot loader of the security processor.
    pub bootloader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode of the cores.
    pub microcode: u8,
}

impl Tcb {
    pub(crate) fn decode(bytes: [u8; 8], product: Product) -> Result<Self, AttestError> {
        let (tcb, reserved) = match product {
            Product::Milan | Product::Genoa => {
                let [bootloader, tee, a, b, c, d, snp, microcode] = bytes;
                let tcb = Self {
                    fmc: 0,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                };
                (tcb, [a, b, c, d])
            }
            Product::Turin => {
                let [fmc, bootloader, tee, snp, a, b, c, microcode] = bytes;
                let tcb = Self {
                    fmc,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                };
                (tcb, [a, b, c, 0])
            }
        };
        if reserved != [0; 4] {
            return Err(AttestError::Malformed(
                "reserved bits of a TCB version are not zero",
            ));
        }
        Ok(tcb)
    }

    /// Whether no component is below `floor`'s.
    #[must_use]
    pub fn at_least(&self, floor: &Self) -> bool {
        self.fmc >= floor.fmc
            && self.bootloader >= floor.bootloader
            && self.tee >= floor.tee
            && self.snp >= floor.snp
            && self.microcode >= floor.microcode
    }
}

impl fmt::Display for Tcb {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "bootloader {} tee {} snp {} microcode {}",
            self.bootloader, self.tee, self.snp, self.microcode
        )?;
        if self.fmc != 0 {
            write!(formatter, " fmc {}", self.fmc)?;
        }
        Ok(())
    }
}
