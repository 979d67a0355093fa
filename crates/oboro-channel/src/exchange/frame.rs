//! Frames of the exchange.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | kind |
//! | 4 | bytes of the payload, little-endian |
//! | rest | payload |
//!
//! | kind | payload |
//! |---|---|
//! | 1 hello | 1 version, 2; 1 flags, bit 0: wants evidence; 32 nonce |
//! | 2 evidence | encoded evidence |
//! | 3 accepted | none |
//! | 4 refused | 1 reason |

use crate::explain::root_cause;
use crate::{ChannelError, Refusal};
use oboro_attest::MAX_EVIDENCE_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Version of the exchange; that of ALPN `oboro/2`.
const VERSION: u8 = 2;
const WANTS_EVIDENCE: u8 = 1;
const HELLO_BYTES: usize = 34;

/// What begins the exchange on each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) wants_evidence: bool,
    pub(crate) nonce: [u8; 32],
}

/// One message of the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Hello(Hello),
    Evidence(Vec<u8>),
    Accepted,
    Refused(Refusal),
}

impl Frame {
    fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Evidence(_) => Kind::Evidence,
            Self::Accepted => Kind::Accepted,
            Self::Refused(_) => Kind::Refused,
        }
    }

    pub(crate) async fn write(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), ChannelError> {
        let mut payload = Vec::new();
        match self {
            Self::Hello(hello) => {
                payload.extend_from_slice(&[VERSION, u8::from(hello.wants_evidence)]);
                payload.extend_from_slice(&hello.nonce);
            }
            Self::Evidence(evidence) => payload.extend_from_slice(evidence),
            Self::Accepted => {}
            Self::Refused(refusal) => payload.push(refusal.code()),
        }
        let kind = self.kind();
        if !kind.admits(payload.len()) {
            return Err(ChannelError::Exchange("this side's evidence is too long"));
        }
        let mut frame = Vec::with_capacity(5 + payload.len());
        frame.push(kind as u8);
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        frame.append(&mut payload);
        writer.write_all(&frame).await.map_err(broken)?;
        writer.flush().await.map_err(broken)
    }

    /// Reads one frame. Its kind and length are checked before any of its payload is
    /// read, and memory grows with the bytes that arrive, not with those announced.
    pub(crate) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Result<Self, ChannelError> {
        let mut header = [0; 5];
        reader.read_exact(&mut header).await.map_err(broken)?;
        let [kind, length @ ..] = header;
        let kind = Kind::from_number(kind).ok_or(ChannelError::Exchange("unknown frame"))?;
        let length = u32::from_le_bytes(length) as usize;
        if !kind.admits(length) {
            return Err(ChannelError::Exchange("a frame of the wrong length"));
        }
        let mut payload = Vec::new();
        reader
            .take(length as u64)
            .read_to_end(&mut payload)
            .await
            .map_err(broken)?;
        if payload.len() != length {
            return Err(ChannelError::Exchange("a frame that is cut short"));
        }
        match (kind, payload.as_slice()) {
            (Kind::Hello, [VERSION, flags, nonce @ ..]) if *flags & !WANTS_EVIDENCE == 0 => {
                let nonce = nonce
                    .try_into()
                    .map_err(|_| ChannelError::Exchange("a hello of the wrong length"))?;
                Ok(Self::Hello(Hello {
                    wants_evidence: flags & WANTS_EVIDENCE != 0,
                    nonce,
                }))
            }
            (Kind::Hello, [VERSION, ..]) => Err(ChannelError::Exchange("unknown flags")),
            (Kind::Hello, _) => Err(ChannelError::Exchange(OTHER_VERSION)),
            (Kind::Evidence, _) => Ok(Self::Evidence(payload)),
            (Kind::Accepted, _) => Ok(Self::Accepted),
            (Kind::Refused, &[code]) => Ok(Self::Refused(Refusal::from_code(code))),
            (Kind::Refused, _) => Err(ChannelError::Exchange("a refusal without a reason")),
        }
    }
}

pub(crate) const OTHER_VERSION: &str = "it speaks another version of it";

/// Under TLS 1.3 a client hears only here that the server refused its certificate.
fn broken(error: std::io::Error) -> ChannelError {
    let of_tls = error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>());
    if of_tls {
        ChannelError::Handshake(root_cause(&error))
    } else {
        ChannelError::Exchange(CLOSED)
    }
}

/// The stream ended or failed.
const CLOSED: &str = "it closed the connection in the middle";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Hello = 1,
    Evidence = 2,
    Accepted = 3,
    Refused = 4,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Hello, Self::Evidence, Self::Accepted, Self::Refused]
            .into_iter()
            .find(|&kind| kind as u8 == number)
    }

    fn admits(self, length: usize) -> bool {
        match self {
            Self::Hello => length == HELLO_BYTES,
            Self::Evidence => (1..=MAX_EVIDENCE_BYTES).contains(&length),
            Self::Accepted => length == 0,
            Self::Refused => length == 1,
        }
    }
}
