//! Commands to a TPM and its answers.

use crate::TpmError;
use crate::transport::{Address, Connection, HEADER_BYTES, MAX_BYTES};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tpm2_protocol::TpmWriter;
use tpm2_protocol::basic::TpmHandle;
use tpm2_protocol::data::{
    Tpm2bAuth, TpmRc, TpmRcBase, TpmRh, TpmSt, TpmSu, TpmaSession, TpmsAuthCommand,
};
use tpm2_protocol::frame::{
    TpmFlushContextCommand, TpmFlushContextResponse, TpmFrame, TpmHeader, TpmResponse,
    TpmSelfTestCommand, TpmSelfTestResponse, TpmStartupCommand, TpmStartupResponse,
    TpmUnmarshalBody, tpm_marshal_command,
};
use zeroize::Zeroizing;

/// How long a TPM may take for one answer: making an RSA key takes some of them half a
/// minute.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often a command is sent again that the TPM asks to repeat.
const ATTEMPTS: u32 = 8;

/// A TPM 2.0. Commands of several threads go one after the other.
pub struct Tpm {
    address: Address,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Counts connections: what a resource manager holds ends with its connection.
    opened: u64,
}

impl fmt::Debug for Tpm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tpm({})", self.address)
    }
}

/// A handle of an object that lives as long as the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transient {
    pub(crate) handle: TpmHandle,
    pub(crate) opened: u64,
}

impl Tpm {
    /// Opens a TPM and sees that it answers.
    ///
    /// # Errors
    /// [`TpmError::Absent`] where there is none or it may not be used; what a broken one
    /// answers.
    pub fn open(address: Address) -> Result<Self, TpmError> {
        let tpm = Self {
            address,
            state: Mutex::default(),
        };
        tpm.startup()?;
        Ok(tpm)
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Firmware does this long before; a fresh software TPM waits for it.
    fn startup(&self) -> Result<(), TpmError> {
        let test = TpmSelfTestCommand {
            handles: [],
            full_test: false.into(),
        };
        match self.execute::<_, TpmSelfTestResponse>("a self test", &test, &[]) {
            Err(TpmError::Refused { code, .. }) if code == TpmRcBase::Initialize as u32 => {
                let startup = TpmStartupCommand {
                    handles: [],
                    startup_type: TpmSu::Clear,
                };
                self.execute::<_, TpmStartupResponse>("to start", &startup, &[])?;
                self.execute::<_, TpmSelfTestResponse>("a self test", &test, &[])?;
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Sends `command` with the given authorizations; the answer's structure.
    pub(crate) fn execute<C: TpmFrame, R: TpmUnmarshalBody>(
        &self,
        name: &'static str,
        command: &C,
        auths: &[TpmsAuthCommand],
    ) -> Result<R, TpmError> {
        let response = self.send(name, command, auths)?;
        TpmResponse::cast(&response)
            .and_then(TpmResponse::unmarshal)
            .map_err(|_| TpmError::Malformed("a response has another structure than it should"))
    }

    /// Sends `command`; the bytes of the answer's parameters, exactly as they came.
    pub(crate) fn execute_raw<C: TpmFrame, R: TpmHeader>(
        &self,
        name: &'static str,
        command: &C,
        auths: &[TpmsAuthCommand],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        const MALFORMED: TpmError =
            TpmError::Malformed("a response has another structure than it should");
        let response = self.send(name, command, auths)?;
        let frame = TpmResponse::cast(&response).map_err(|_| MALFORMED)?;
        frame.validate(R::CC).map_err(|_| MALFORMED)?;
        let after_handles = frame.body().get(R::HANDLES * 4..).ok_or(MALFORMED)?;
        let parameters = if auths.is_empty() {
            after_handles
        } else {
            let (size, rest) = after_handles.split_first_chunk().ok_or(MALFORMED)?;
            usize::try_from(u32::from_be_bytes(*size))
                .ok()
                .and_then(|size| rest.get(..size))
                .ok_or(MALFORMED)?
        };
        Ok(Zeroizing::new(parameters.to_vec()))
    }

    fn send<C: TpmFrame>(
        &self,
        name: &'static str,
        command: &C,
        auths: &[TpmsAuthCommand],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let mut buffer = Zeroizing::new([0; MAX_BYTES]);
        let mut writer = TpmWriter::new(buffer.as_mut_slice());
        let tag = if auths.is_empty() {
            TpmSt::NoSessions
        } else {
            TpmSt::Sessions
        };
        tpm_marshal_command(command, tag, auths, &mut writer)
            .map_err(|_| TpmError::Malformed("a command does not fit its frame"))?;
        let length = writer.len();
        let mut pause = Duration::from_millis(5);
        for attempt in 1.. {
            let response = self.exchange(&buffer[..length])?;
            let code = response_code(&response)?;
            if code == 0 {
                return Ok(response);
            }
            if attempt >= ATTEMPTS || !asks_to_repeat(code) {
                return Err(TpmError::Refused {
                    command: name,
                    code,
                    meaning: TpmRc::try_from(code)
                        .map_or_else(|_| "of its vendor".to_owned(), |code| code.to_string()),
                });
            }
            thread::sleep(pause);
            pause *= 2;
        }
        Err(TpmError::Malformed("a command was never sent"))
    }

    fn exchange(&self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = match state.connection.take() {
            Some(connection) => connection,
            None => {
                let connection = self.address.open(TIMEOUT)?;
                state.opened += 1;
                connection
            }
        };
        let response = connection.exchange(command, TIMEOUT)?;
        // Only now: after an error the answer may still come, as that of another command.
        state.connection = Some(connection);
        Ok(response)
    }

    pub(crate) fn transient(&self, handle: TpmHandle) -> Transient {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Transient {
            handle,
            opened: state.opened,
        }
    }

    pub(crate) fn is_live(&self, object: Transient) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connection.is_some() && state.opened == object.opened
    }

    /// Frees an object. A failure is of no consequence but a lost place in the TPM,
    /// which the resource manager takes back.
    pub(crate) fn flush(&self, object: Transient) {
        if self.is_live(object) {
            let command = TpmFlushContextCommand {
                handles: [],
                flush_handle: object.handle,
            };
            let _: Result<TpmFlushContextResponse, _> =
                self.execute("to free an object", &command, &[]);
        }
    }
}

/// The authorization by a password, empty as a rule.
pub(crate) fn password(value: &[u8]) -> Result<TpmsAuthCommand, TpmError> {
    Ok(TpmsAuthCommand {
        session_handle: TpmHandle::new(TpmRh::Pw as u32),
        nonce: Tpm2bAuth::default(),
        session_attributes: TpmaSession::CONTINUE_SESSION,
        hmac: auth(value)?,
    })
}

pub(crate) fn auth(value: &[u8]) -> Result<Tpm2bAuth, TpmError> {
    if value.len() > 32 {
        return Err(TpmError::LongAuth(value.len()));
    }
    Tpm2bAuth::try_from(value).map_err(|_| TpmError::LongAuth(value.len()))
}

pub(crate) fn hierarchy(root: TpmRh) -> TpmHandle {
    TpmHandle::new(root as u32)
}

fn response_code(response: &[u8]) -> Result<u32, TpmError> {
    response
        .get(6..HEADER_BYTES)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or(TpmError::Malformed("a response is shorter than its header"))
}

fn asks_to_repeat(code: u32) -> bool {
    [
        TpmRcBase::Retry,
        TpmRcBase::Yielded,
        TpmRcBase::Testing,
        TpmRcBase::NvRate,
        TpmRcBase::NvUnavailable,
    ]
    .into_iter()
    .any(|base| base as u32 == code)
}
