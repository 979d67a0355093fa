//! The way to a TPM: a character device of Linux, or a socket of a software TPM.

use crate::TpmError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use zeroize::Zeroizing;

/// Bytes before the body of a response.
pub(crate) const HEADER_BYTES: usize = 10;

/// Most bytes of a command or response.
pub(crate) const MAX_BYTES: usize = 4096;

/// Where a TPM is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A character device, `/dev/tpmrm0` for example, which goes through the kernel's
    /// resource manager.
    Device(PathBuf),
    /// Host and port of a software TPM that speaks plain commands over TCP, as `swtpm`
    /// does. Nothing protects that connection.
    Tcp(String),
    /// The same over a socket of this machine, which the file's owner and mode protect.
    Unix(PathBuf),
}

impl Address {
    /// The device behind the kernel's resource manager.
    pub const DEFAULT_DEVICE: &'static str = "/dev/tpmrm0";

    /// Whether something is there; says nothing about rights to use it.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self {
            Self::Device(path) | Self::Unix(path) => path.exists(),
            Self::Tcp(_) => true,
        }
    }

    pub(crate) fn open(&self, timeout: Duration) -> Result<Connection, TpmError> {
        let absent = |error: io::Error| TpmError::Absent {
            address: self.to_string(),
            reason: error.to_string(),
        };
        match self {
            Self::Device(path) => {
                let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(nonblocking)
                    .open(path)
                    .map(Connection::Device)
                    .map_err(absent)
            }
            Self::Unix(path) => UnixStream::connect(path)
                .and_then(|stream| {
                    stream.set_read_timeout(Some(timeout))?;
                    stream.set_write_timeout(Some(timeout))?;
                    Ok(Connection::Unix(stream))
                })
                .map_err(absent),
            Self::Tcp(host) => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in host.to_socket_addrs().map_err(absent)? {
                    match TcpStream::connect_timeout(&address, timeout).and_then(|stream| {
                        stream.set_nodelay(true)?;
                        stream.set_read_timeout(Some(timeout))?;
                        stream.set_write_timeout(Some(timeout))?;
                        Ok(stream)
                    }) {
                        Ok(stream) => return Ok(Connection::Tcp(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(absent(last))
            }
        }
    }
}

impl Default for Address {
    fn default() -> Self {
        Self::Device(PathBuf::from(Self::DEFAULT_DEVICE))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(formatter, "{}", path.display()),
            Self::Tcp(host) => write!(formatter, "tcp:{host}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = TpmError;

    fn from_str(text: &str) -> Result<Self, TpmError> {
        if let Some(host) = text.strip_prefix("tcp:") {
            let port = host.rsplit_once(':').and_then(|(host, port)| {
                (!host.is_empty())
                    .then(|| port.parse::<u16>().ok())
                    .flatten()
            });
            return port
                .map(|_| Self::Tcp(host.to_owned()))
                .ok_or_else(|| TpmError::Address(text.to_owned()));
        }
        if let Some(path) = text
            .strip_prefix("unix:")
            .filter(|path| path.starts_with('/'))
        {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        if text.starts_with('/') {
            return Ok(Self::Device(PathBuf::from(text)));
        }
        Err(TpmError::Address(text.to_owned()))
    }
}

/// An open way to a TPM; useless after an error, since an answer may still be under way.
pub(crate) enum Connection {
    Device(File),
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Sends `command` and returns the whole response, its header checked for size.
    pub(crate) fn exchange(
        &mut self,
        command: &[u8],
        timeout: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TpmError::TimedOut {
                seconds: timeout.as_secs(),
            },
            _ => TpmError::Io(error.to_string()),
        };
        let mut response = Zeroizing::new(vec![0; MAX_BYTES]);
        let length = match self {
            Self::Device(device) => {
                device.write_all(command).map_err(failed)?;
                await_readable(device, timeout).map_err(failed)?;
                // The device hands out a response with one read.
                device.read(&mut response).map_err(failed)?
            }
            Self::Tcp(stream) => exchange_stream(stream, command, &mut response, failed)?,
            Self::Unix(stream) => exchange_stream(stream, command, &mut response, failed)?,
        };
        response.truncate(length);
        if stated_size(&response)? != length {
            return Err(TpmError::Malformed(
                "a response has another length than it states",
            ));
        }
        Ok(response)
    }
}

/// A stream says only by the header where a response ends.
fn exchange_stream(
    stream: &mut (impl Read + Write),
    command: &[u8],
    response: &mut [u8],
    failed: impl Fn(io::Error) -> TpmError,
) -> Result<usize, TpmError> {
    stream.write_all(command).map_err(&failed)?;
    let (header, body) = response.split_at_mut(HEADER_BYTES);
    stream.read_exact(header).map_err(&failed)?;
    let size = stated_size(header)?;
    stream
        .read_exact(&mut body[..size - HEADER_BYTES])
        .map_err(&failed)?;
    Ok(size)
}

fn stated_size(header: &[u8]) -> Result<usize, TpmError> {
    let size = header
        .get(2..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes)
        .and_then(|size| usize::try_from(size).ok())
        .ok_or(TpmError::Malformed("a response is shorter than its header"))?;
    if !(HEADER_BYTES..=MAX_BYTES).contains(&size) {
        return Err(TpmError::Malformed(
            "a response states a length that none can have",
        ));
    }
    Ok(size)
}

fn await_readable(device: &File, timeout: Duration) -> io::Result<()> {
    let limit = Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let mut waits = [PollFd::new(device, PollFlags::IN)];
    loop {
        match poll(&mut waits, Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
