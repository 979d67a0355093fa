//! The exchange of evidence directly after the TLS handshake, before HTTP/2.
//!
//! Both sides at once: each says whether it wants evidence and with which nonce; each
//! gives what the other wants; each tells the other whether it accepts. What is signed
//! is bound to this TLS session by an exported value that nobody else can have
//! (RFC 8446, section 7.5), different for the two sides, so that evidence can neither be
//! relayed from another session nor reflected.

mod frame;
#[cfg(test)]
mod tests;

use crate::{ChannelError, Clock, Demand, Offer, Refusal, Role};
use frame::{Frame, Hello, OTHER_VERSION};
use oboro_attest::Appraisal;
use rustls::ConnectionCommon;
use rustls::crypto::aws_lc_rs;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Label of the exported value.
const LABEL: &[u8] = b"EXPORTER-oboro-attested-channel";

/// What a refused peer may still send before the connection is closed, and for how long,
/// so that the refusal is not lost in a reset.
const LINGER_BYTES: u64 = 256 << 10;
const LINGER: Duration = Duration::from_millis(250);

/// Which end of the TLS session a side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What evidence on one TLS session must be bound to.
#[derive(Clone, Copy)]
pub(crate) struct Binding {
    /// The exported value in this side's evidence.
    pub(crate) own_session: [u8; 32],
    /// The exported value in the peer's evidence.
    pub(crate) peer_session: [u8; 32],
    /// SHA-256 of this side's public key.
    pub(crate) own_key: [u8; 32],
    /// SHA-256 of the peer's public key.
    pub(crate) peer_key: [u8; 32],
    /// The peer's role.
    pub(crate) peer_role: Role,
}

impl Binding {
    pub(crate) fn new<Data>(
        session: &ConnectionCommon<Data>,
        side: Side,
        own_key: [u8; 32],
        peer_key: [u8; 32],
        peer_role: Role,
    ) -> Result<Self, ChannelError> {
        let client = session.export_keying_material([0; 32], LABEL, Some(b"client"))?;
        let server = session.export_keying_material([0; 32], LABEL, Some(b"server"))?;
        let (own_session, peer_session) = match side {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        Ok(Self {
            own_session,
            peer_session,
            own_key,
            peer_key,
            peer_role,
        })
    }
}

/// What a side brings to the exchange.
#[derive(Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) offer: Option<&'a Offer>,
    pub(crate) demand: Option<&'a Demand>,
    pub(crate) clock: &'a Clock,
}

/// Runs the exchange on `stream`; the peer's appraised evidence where it was demanded.
///
/// Where this side refuses, it tells the peer so in one byte and ends the stream. The
/// caller bounds the time.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    binding: &Binding,
    terms: Terms<'_>,
) -> Result<Option<Appraisal>, ChannelError> {
    let nonce = nonce()?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let outcome = run(&mut reader, &mut writer, nonce, binding, terms).await;
    if outcome.is_err() {
        let _ = tokio::time::timeout(LINGER, async {
            writer.shutdown().await?;
            tokio::io::copy(&mut reader.take(LINGER_BYTES), &mut tokio::io::sink()).await
        })
        .await;
    }
    outcome
}

async fn run(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    nonce: [u8; 32],
    binding: &Binding,
    Terms {
        offer,
        demand,
        clock,
    }: Terms<'_>,
) -> Result<Option<Appraisal>, ChannelError> {
    let hello = Frame::Hello(Hello {
        wants_evidence: demand.is_some(),
        nonce,
    });
    let (sent, received) = tokio::join!(hello.write(writer), Frame::read(reader));
    let theirs = match received.and_then(Frame::hello) {
        Ok(hello) => hello,
        Err(error) => return Err(refuse(writer, error).await),
    };
    sent?;

    // Both sides may send much at once: each reads while it writes.
    let give = async {
        if !theirs.wants_evidence {
            return Ok(());
        }
        let evidence = match offer {
            Some(offer) => {
                offer
                    .evidence(binding.own_session, theirs.nonce, binding.own_key, clock)
                    .await
            }
            None => Err(ChannelError::EvidenceDemanded(binding.peer_role)),
        };
        match evidence {
            Ok(evidence) => Frame::Evidence(evidence).write(writer).await,
            // In place of the evidence, and at once: the peer may have nothing to give
            // either, and both would wait.
            Err(error) => {
                let _ = Frame::Refused(Refusal::NotAttested).write(writer).await;
                Err(error)
            }
        }
    };
    let take = async {
        let Some(demand) = demand else {
            return Ok(None);
        };
        let evidence = match Frame::read(reader).await? {
            Frame::Evidence(evidence) => evidence,
            Frame::Refused(Refusal::NotAttested) => {
                return Err(ChannelError::NoEvidence(binding.peer_role));
            }
            other => return Err(other.unexpected()),
        };
        demand
            .appraise(
                evidence,
                binding.peer_session,
                nonce,
                binding.peer_key,
                binding.peer_role,
                clock,
            )
            .await
            .map(Some)
    };
    let (given, taken) = tokio::join!(give, take);
    let appraisal = match taken {
        Ok(appraisal) => appraisal,
        Err(error) => return Err(refuse(writer, error).await),
    };
    if let Err(error) = given {
        // A peer that refused before it had read everything has said so.
        return Err(match (&error, Frame::read(reader).await) {
            (ChannelError::Exchange(_), Ok(refused @ Frame::Refused(_))) => refused.unexpected(),
            _ => error,
        });
    }
    if demand.is_some() {
        Frame::Accepted.write(writer).await?;
    }
    if theirs.wants_evidence {
        match Frame::read(reader).await {
            Ok(Frame::Accepted) => {}
            Ok(other) => return Err(refuse(writer, other.unexpected()).await),
            Err(error) => return Err(refuse(writer, error).await),
        }
    }
    Ok(appraisal)
}

impl Frame {
    fn hello(self) -> Result<Hello, ChannelError> {
        match self {
            Self::Hello(hello) => Ok(hello),
            other => Err(other.unexpected()),
        }
    }

    /// The error where this frame is none of those that may come now.
    fn unexpected(self) -> ChannelError {
        match self {
            Self::Refused(refusal) => ChannelError::Refused(refusal),
            _ => ChannelError::Exchange("a frame out of turn"),
        }
    }
}

/// Tells the peer, where it is still there to hear it, and hands the error back.
async fn refuse(writer: &mut (impl AsyncWrite + Unpin), error: ChannelError) -> ChannelError {
    let refusal = match &error {
        ChannelError::Untrusted(_)
        | ChannelError::NoEvidence(_)
        | ChannelError::AnotherIndex(_) => Refusal::Evidence,
        ChannelError::Exchange(reason) if *reason == OTHER_VERSION => Refusal::Version,
        ChannelError::Exchange(_) => Refusal::Malformed,
        // It has refused already.
        _ => return error,
    };
    let _ = Frame::Refused(refusal).write(writer).await;
    error
}

/// A nonce from the TLS library's generator, which makes the TLS keys as well and takes
/// no generator from outside.
fn nonce() -> Result<[u8; 32], ChannelError> {
    let mut nonce = [0; 32];
    aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut nonce)
        .map_err(|_| ChannelError::Tls(rustls::Error::FailedToGetRandomBytes))?;
    Ok(nonce)
}

/// Reads all frames in `bytes`; for the fuzz targets.
pub(crate) fn decode_frames(mut bytes: &[u8]) {
    // Reading from memory never waits, so one poll is enough.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        let frame = std::pin::pin!(Frame::read(&mut bytes)).poll(&mut context);
        let std::task::Poll::Ready(Ok(frame)) = frame else {
            return;
        };
        let mut written = Vec::new();
        let _ = std::pin::pin!(frame.write(&mut written)).poll(&mut context);
    }
}
