//! Documents from the Nitro Secure Module of this enclave.

use crate::{AttestError, Attester, Claims, Evidence, Platform};

/// Attests through `/dev/nsm`, which exists inside a Nitro enclave only.
#[derive(Clone, Debug)]
pub struct NitroAttester(());

impl NitroAttester {
    /// An attester, if this machine has the device.
    ///
    /// # Errors
    /// [`AttestError::Platform`] that says what is missing.
    pub fn new() -> Result<Self, AttestError> {
        device::probe().map_err(failed)?;
        Ok(Self(()))
    }
}

impl Attester for NitroAttester {
    fn platform(&self) -> Platform {
        Platform::Nitro
    }

    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError> {
        Evidence {
            platform: Platform::Nitro,
            claims: *claims,
            statement: device::document(&claims.binding()).map_err(failed)?,
            endorsements: Vec::new(),
        }
        .encode()
    }
}

fn failed(reason: String) -> AttestError {
    AttestError::Platform {
        platform: Platform::Nitro,
        reason,
    }
}

#[cfg(target_os = "linux")]
mod device {
    use aws_nitro_enclaves_nsm_api::api::{Request, Response};
    use aws_nitro_enclaves_nsm_api::driver::{nsm_exit, nsm_init, nsm_process_request};
    use serde_bytes::ByteBuf;
    use std::path::Path;

    const DEVICE: &str = "/dev/nsm";

    /// The open device, closed on drop.
    struct Module(i32);

    impl Module {
        fn open() -> Result<Self, String> {
            if !Path::new(DEVICE).exists() {
                return Err(format!(
                    "there is no {DEVICE}; it exists in Nitro enclaves only"
                ));
            }
            match nsm_init() {
                descriptor if descriptor >= 0 => Ok(Self(descriptor)),
                _ => Err(format!(
                    "{DEVICE} cannot be opened; may this process read and write it?"
                )),
            }
        }
    }

    impl Drop for Module {
        fn drop(&mut self) {
            nsm_exit(self.0);
        }
    }

    pub(super) fn probe() -> Result<(), String> {
        let module = Module::open()?;
        match nsm_process_request(module.0, Request::DescribeNSM) {
            Response::DescribeNSM { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn document(user_data: &[u8; 64]) -> Result<Vec<u8>, String> {
        let module = Module::open()?;
        let request = Request::Attestation {
            user_data: Some(ByteBuf::from(user_data.to_vec())),
            nonce: None,
            public_key: None,
        };
        match nsm_process_request(module.0, request) {
            Response::Attestation { document } => Ok(document),
            other => Err(unexpected(&other)),
        }
    }

    fn unexpected(response: &Response) -> String {
        match response {
            Response::Error(code) => format!("{DEVICE} answers with the error {code:?}"),
            _ => format!("{DEVICE} answers something else than it was asked"),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod device {
    const ABSENT: &str = "Nitro enclaves run Linux";

    pub(super) fn probe() -> Result<(), String> {
        Err(ABSENT.to_owned())
    }

    pub(super) fn document(_user_data: &[u8; 64]) -> Result<Vec<u8>, String> {
        Err(ABSENT.to_owned())
    }
}
