//! Peers that do not keep to the exchange of evidence: none, too much, too late, in
//! another protocol.
#![allow(clippy::unwrap_used)]

mod common;

use common::platform::{attesting, both, connecting, demand, giving, refused, subject};
use common::raw::{
    ACCEPTED, EVIDENCE, HELLO, Listening, REFUSED, dial, frame, hello, read_frame, read_hello,
};
use common::{World, accepting, demanding, demands, issue, offering, status};
use oboro_attest::{AttestError, AttestedRole, Attester, Claims, MAX_EVIDENCE_BYTES, Platform};
use oboro_channel::{
    AcceptLimits, AcceptOptions, ChannelError, ConnectOptions, Offer, Role, serve_incoming,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;

#[tokio::test]
async fn fail_no_evidence() {
    // None to give.
    let world = World::new(attesting(demand(AttestedRole::Searcher))).await;
    let error = refused(&world, &world.address, ConnectOptions::default()).await;
    assert!(
        matches!(error, ChannelError::EvidenceDemanded(Role::Keeper)),
        "{error}"
    );
    // None comes.
    let silent = World::new(accepting(AcceptLimits::default())).await;
    let demanding = demanding(&demand(AttestedRole::Keeper));
    let error = refused(&silent, &silent.address, demanding.clone()).await;
    assert!(
        matches!(error, ChannelError::NoEvidence(Role::Keeper)),
        "{error}"
    );
    // Both demand and neither can: nobody waits for the other.
    let stubborn = AcceptOptions {
        offer: None,
        ..attesting(demand(AttestedRole::Searcher))
    };
    let stubborn = World::new(stubborn).await;
    let error = refused(&stubborn, &stubborn.address, demanding).await;
    assert!(
        matches!(error, ChannelError::NoEvidence(Role::Keeper)),
        "{error}"
    );
    // A peer that goes on without evidence, as if it had been accepted.
    let thief = issue(&world.authority, Role::Searcher);
    for second in [
        frame(ACCEPTED, &[]),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
    ] {
        let mut stream = dial(&world.address, &thief, &world.trust, &["oboro/2"])
            .await
            .unwrap();
        stream.write_all(&hello(false, [1; 32])).await.unwrap();
        read_hello(&mut stream).await;
        stream.write_all(&second).await.unwrap();
        assert_eq!(read_frame(&mut stream).await.unwrap(), (REFUSED, vec![2]));
    }
}

#[tokio::test]
async fn fail_demands_that_nobody_can_meet() {
    let world = World::new(giving()).await;
    let wrong = demand(AttestedRole::Searcher);
    let error = refused(&world, &world.address, demanding(&wrong)).await;
    assert!(matches!(error, ChannelError::DemandRole { .. }), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = AcceptOptions {
        demands: demands(Role::Client, wrong),
        ..giving()
    };
    let error = serve_incoming(listener, &world.keeper, &world.trust, options);
    assert!(matches!(error, Err(ChannelError::DemandRole { .. })));
}

#[tokio::test]
async fn fail_frames_that_no_party_sends() {
    let world = World::new(attesting(demand(AttestedRole::Searcher))).await;
    let thief = issue(&world.authority, Role::Searcher);
    let good = hello(false, [1; 32]);
    let with = |first: &[u8], then: Vec<u8>| [first, then.as_slice()].concat();
    let mut oversized = frame(EVIDENCE, &[]);
    oversized[1..5].copy_from_slice(&(MAX_EVIDENCE_BYTES as u32 + 1).to_le_bytes());
    let mut huge = frame(EVIDENCE, &[]);
    huge[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut other_version = good.clone();
    other_version[5] = 3;
    let mut unknown_flag = good.clone();
    unknown_flag[6] = 2;
    for (name, bytes, code) in [
        ("no hello first", frame(EVIDENCE, &[0; 300]), 2),
        ("unknown kind", frame(9, &[0; 34]), 2),
        ("hello too short", frame(HELLO, &[2; 33]), 2),
        ("hello too long", frame(HELLO, &[2; 35]), 2),
        (
            "HTTP/2 at once",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            2,
        ),
        ("another version", other_version, 1),
        ("unknown flag", unknown_flag, 2),
        ("two hellos", with(&good, good.clone()), 2),
        ("oversized evidence", with(&good, oversized), 2),
        ("four gigabytes announced", with(&good, huge), 2),
        ("empty evidence", with(&good, frame(EVIDENCE, &[])), 2),
        (
            "evidence of zeros",
            with(&good, frame(EVIDENCE, &[0; 300])),
            4,
        ),
    ] {
        let mut stream = dial(&world.address, &thief, &world.trust, &["oboro/2"])
            .await
            .unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut last = None;
        while let Ok(frame) = read_frame(&mut stream).await {
            last = Some(frame);
        }
        assert_eq!(last, Some((REFUSED, vec![code])), "{name}");
    }
    // Whoever keeps to the rules is served still.
    let options = both(demand(AttestedRole::Keeper));
    let connection = connecting(&world, &world.address, &thief, options)
        .await
        .unwrap();
    status(&connection).await.unwrap();
}

#[tokio::test]
async fn fail_slow_peers_run_out_of_time() {
    let limits = AcceptLimits {
        handshake_timeout: Duration::from_millis(400),
        ..AcceptLimits::default()
    };
    let options = AcceptOptions {
        limits,
        ..attesting(demand(AttestedRole::Searcher))
    };
    let world = World::new(options).await;
    let thief = issue(&world.authority, Role::Searcher);
    let good = hello(false, [1; 32]);
    for sent in [0, 1, 5, 20, good.len()] {
        let mut stream = dial(&world.address, &thief, &world.trust, &["oboro/2"])
            .await
            .unwrap();
        stream.write_all(&good[..sent]).await.unwrap();
        stream.flush().await.unwrap();
        // The server closes; were it to wait for ever, so would this.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest.len(), good.len(), "its hello and nothing else");
    }
    // A server that says nothing.
    let listening = Listening::new(&world.keeper, &world.trust, &["oboro/2"]).await;
    let address = listening.address.clone();
    tokio::spawn(async move {
        let _stream = listening.accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    let options = ConnectOptions {
        timeout: Duration::from_millis(400),
        ..both(demand(AttestedRole::Keeper))
    };
    let error = refused(&world, &address, options).await;
    assert!(
        error.to_string().contains("no answer within 400ms"),
        "{error}"
    );
}

/// The other side must close the connection without a word.
async fn closed(stream: &mut (impl AsyncRead + Unpin)) {
    let byte = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await;
    byte.expect("it is open still").unwrap_err();
}

#[tokio::test]
async fn fail_peers_that_negotiate_another_protocol() {
    let world = World::new(giving()).await;
    let identity = issue(&world.authority, Role::Searcher);
    // A client of HTTP/2 alone, as the release before.
    for alpn in [&["h2"][..], &["http/1.1"]] {
        let mut stream = match dial(&world.address, &identity, &world.trust, alpn).await {
            Ok(stream) => stream,
            Err(error) => {
                assert!(
                    error.to_string().contains("NoApplicationProtocol"),
                    "{error}"
                );
                continue;
            }
        };
        closed(&mut stream).await;
    }
    // A client that names none.
    let mut stream = dial(&world.address, &identity, &world.trust, &[])
        .await
        .unwrap();
    closed(&mut stream).await;
    // A server of HTTP/2 alone, and one that names none.
    let listening = Listening::new(&world.keeper, &world.trust, &["h2"]).await;
    let address = listening.address.clone();
    tokio::spawn(async move { while listening.accept().await.is_err() {} });
    let error = refused(&world, &address, ConnectOptions::default()).await;
    assert!(
        error.to_string().contains("does not speak oboro/2"),
        "{error}"
    );
    let listening = Listening::new(&world.keeper, &world.trust, &[]).await;
    let address = listening.address.clone();
    tokio::spawn(async move {
        let _stream = listening.accept().await;
        std::future::pending::<()>().await;
    });
    let error = refused(&world, &address, ConnectOptions::default()).await;
    assert!(
        matches!(error, ChannelError::Protocol("oboro/2")),
        "{error}"
    );
}

#[tokio::test]
async fn fail_browsers_where_evidence_is_demanded() {
    let world = World::new(giving()).await;
    let limits = AcceptLimits {
        http1: true,
        ..AcceptLimits::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let options = AcceptOptions {
        limits,
        allowed: vec![Role::Searcher, Role::Client],
        ..attesting(demand(AttestedRole::Searcher))
    };
    let mut incoming = serve_incoming(listener, &world.keeper, &world.trust, options).unwrap();
    let searcher = issue(&world.authority, Role::Searcher);
    let mut stream = dial(&address, &searcher, &world.trust, &["http/1.1"])
        .await
        .unwrap();
    closed(&mut stream).await;
    // Clients need none: they get in, and nothing says that they were attested.
    let client = issue(&world.authority, Role::Client);
    let _stream = dial(&address, &client, &world.trust, &["http/1.1"])
        .await
        .unwrap();
    let conn = incoming.next().await.unwrap().unwrap();
    assert_eq!(conn.peer().role, Role::Client);
    assert!(conn.peer().appraisal.is_none());
}

/// An attester that is gone.
struct Gone;

impl Attester for Gone {
    fn platform(&self) -> Platform {
        Platform::Tpm
    }

    fn attest(&self, _: &Claims) -> Result<Vec<u8>, AttestError> {
        Err(AttestError::Platform {
            platform: self.platform(),
            reason: "its device is gone".into(),
        })
    }
}

#[tokio::test]
async fn fail_attester_that_gives_nothing() {
    let gone = |role| Offer::new(Arc::new(Gone), role, subject());
    let options = AcceptOptions {
        offer: Some(gone(AttestedRole::Keeper)),
        ..attesting(demand(AttestedRole::Searcher))
    };
    let world = World::new(options).await;
    let error = refused(&world, &world.address, both(demand(AttestedRole::Keeper))).await;
    assert!(
        matches!(error, ChannelError::NoEvidence(Role::Keeper)),
        "{error}"
    );
    let error = refused(
        &world,
        &world.address,
        offering(&gone(AttestedRole::Searcher)),
    )
    .await;
    assert!(error.to_string().contains("its device is gone"), "{error}");
}
