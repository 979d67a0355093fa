//! Attacks on the attested channel, over real sockets. The attacker controls the network
//! and, in some, the disk: it holds the TLS keys of the parties it sits between.
#![allow(clippy::unwrap_used)]

mod common;

use common::platform::{
    Gullible, attester, attesting, both, connecting, demand, giving, offer, refused, subject,
    verifier,
};
use common::raw::{
    EVIDENCE, LABEL, Listening, REFUSED, dial, frame, hello, read_frame, read_hello, relay,
};
use common::{World, demanding, described, issue, offering, serve_apart, status};
use oboro_attest::{AttestError, AttestedRole, Attester, Claims, Policy, Subject, unix_seconds};
use oboro_channel::{
    AcceptOptions, Authority, ChannelError, Connection, Demand, Identity, Refusal, Role, connect,
    explain,
};
use oboro_protocol::v1;
use oboro_protocol::v1::keeper_client::KeeperClient;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn untrusted(error: &ChannelError, reason: &AttestError) -> bool {
    matches!(error, ChannelError::Untrusted(found) if found == reason)
}

#[tokio::test]
async fn both_sides_attest_themselves() {
    let world = World::new(attesting(demand(AttestedRole::Searcher))).await;
    let searcher = issue(&world.authority, Role::Searcher);
    let options = both(demand(AttestedRole::Keeper).of_index(subject().index_id));
    let connection = connecting(&world, &world.address, &searcher, options)
        .await
        .unwrap();
    let appraisal = connection.peer().appraisal.unwrap();
    assert!(appraisal.is_simulated());
    assert_eq!(appraisal.claims.subject, subject());
    assert_eq!(appraisal.claims.channel_key, world.keeper.spki_sha256());
    assert_eq!(
        described(&connection).await,
        "searcher, no access, attested"
    );
    // One side alone, and neither.
    let owner = issue(&world.authority, Role::Owner);
    let one = demanding(&demand(AttestedRole::Keeper));
    let connection = connecting(&world, &world.address, &owner, one)
        .await
        .unwrap();
    assert!(connection.peer().appraisal.is_some());
    assert_eq!(described(&connection).await, "owner, owner of every index");
    let connection = world.connect(Role::Owner).await.unwrap();
    assert!(connection.peer().appraisal.is_none());
}

/// A middle between a searcher and `world`'s keeper: it ends the searcher's TLS as
/// `front` and talks to the keeper as `back`, and copies everything in between. Its
/// address, and what it sees.
async fn middle(world: &World, front: &Identity, back: &Identity) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listening = Listening::new(front, &world.trust, &["oboro/2"]).await;
    let address = listening.address.clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (keeper, trust, back) = (world.address.clone(), world.trust.clone(), back.clone());
    let sees = seen.clone();
    tokio::spawn(async move {
        while let Ok(left) = listening.accept().await {
            let right = dial(&keeper, &back, &trust, &["oboro/2"]).await.unwrap();
            tokio::spawn(relay(left, right, sees.clone()));
        }
    });
    (address, seen)
}

#[tokio::test]
async fn fail_relay_by_another_key_of_the_same_role() {
    let world = World::new(giving()).await;
    let back = issue(&world.authority, Role::Searcher);
    let front = issue(&world.authority, Role::Keeper);
    let (address, _) = middle(&world, &front, &back).await;
    let error = refused(&world, &address, demanding(&demand(AttestedRole::Keeper))).await;
    assert!(untrusted(&error, &AttestError::Session), "{error}");
    // The key alone gives it away as well.
    let gullible = Gullible {
        session: true,
        ..Gullible::default()
    };
    let demand = Demand::new(Arc::new(gullible), AttestedRole::Keeper);
    let error = refused(&world, &address, demanding(&demand)).await;
    assert!(untrusted(&error, &AttestError::ChannelKey), "{error}");
}

#[tokio::test]
async fn fail_relay_with_the_keepers_stolen_key() {
    let world = World::new(giving()).await;
    let back = issue(&world.authority, Role::Searcher);
    let (address, seen) = middle(&world, &world.keeper, &back).await;
    let error = refused(&world, &address, demanding(&demand(AttestedRole::Keeper))).await;
    assert!(untrusted(&error, &AttestError::Session), "{error}");

    // A verifier that does not look at the session is taken in: it sees genuine evidence
    // of the right role, key and nonce, and the middle reads every request. So what the
    // test above shows is the binding to the session, and nothing else.
    let gullible = Gullible {
        session: true,
        ..Gullible::default()
    };
    let demand = Demand::new(Arc::new(gullible), AttestedRole::Keeper);
    let searcher = issue(&world.authority, Role::Searcher);
    let connection = connecting(&world, &address, &searcher, demanding(&demand))
        .await
        .unwrap();
    let secret = b"products that nobody but the keeper may see".as_slice();
    let reply = KeeperClient::new(connection.channel.clone())
        .decrypt(v1::DecryptRequest {
            products: secret.into(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(reply.into_inner().share, secret);
    let seen = seen.lock().unwrap();
    assert!(seen.windows(secret.len()).any(|window| window == secret));
}

#[tokio::test]
async fn fail_relay_of_a_searchers_evidence_to_the_keeper() {
    // The middle holds both TLS keys, and the searcher is careless: only the keeper can
    // notice. It does, and the searcher hears no more than that it was refused.
    let strict = Arc::new(Gullible::default());
    let world = World::new(attesting(Demand::new(
        strict.clone(),
        AttestedRole::Searcher,
    )))
    .await;
    let searcher = issue(&world.authority, Role::Searcher);
    let (address, _) = middle(&world, &world.keeper, &searcher).await;
    let careless = offering(&offer(AttestedRole::Searcher));
    let error = connecting(&world, &address, &searcher, careless.clone())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, ChannelError::Refused(Refusal::Evidence)),
        "{error}"
    );
    assert_eq!(strict.found(), [Err(AttestError::Session)]);
    // Directly it is let in: the relay was the reason.
    connecting(&world, &world.address, &searcher, careless)
        .await
        .unwrap();
    assert_eq!(strict.found().last(), Some(&Ok(())));
}

#[tokio::test]
async fn fail_relayed_both_ways() {
    let world = World::new(attesting(demand(AttestedRole::Searcher))).await;
    let searcher = issue(&world.authority, Role::Searcher);
    let (address, _) = middle(&world, &world.keeper, &searcher).await;
    let options = both(demand(AttestedRole::Keeper));
    let error = connecting(&world, &address, &searcher, options)
        .await
        .err()
        .unwrap();
    assert!(untrusted(&error, &AttestError::Session), "{error}");
    assert!(error.to_string().contains("another session"), "{error}");
}

#[tokio::test]
async fn fail_diversion_to_another_configuration_or_index() {
    let world = World::new(giving()).await;
    let mut policy = Policy::default().allowing_simulated();
    policy.accept[0].configurations = vec![[0xbb; 32]];
    let strict = Demand::new(verifier(policy.clone()), AttestedRole::Keeper);
    let error = refused(&world, &world.address, demanding(&strict)).await;
    assert!(untrusted(&error, &AttestError::Configuration), "{error}");
    policy.accept[0].configurations.push([0xc0; 32]);
    let strict = Demand::new(verifier(policy), AttestedRole::Keeper);
    let searcher = issue(&world.authority, Role::Searcher);
    connecting(&world, &world.address, &searcher, demanding(&strict))
        .await
        .unwrap();
    let error = refused(&world, &world.address, demanding(&strict.of_index([1; 16]))).await;
    assert!(
        matches!(error, ChannelError::AnotherIndex(Role::Keeper)),
        "{error}"
    );
}

#[test]
fn fail_diversion_on_reconnection() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let trust = authority.trust();
    let keeper = issue(&authority, Role::Keeper);
    let searcher = issue(&authority, Role::Searcher);
    let here = tokio::runtime::Runtime::new().unwrap();
    let long = Duration::from_secs(5);
    let serving = |address: &str, identity: &Identity, subject: Subject| {
        let options = giving();
        options.offer.as_ref().unwrap().set_subject(subject);
        serve_apart(address, identity, &trust, options)
    };
    let refused = |connection: &Connection, sentence: &str| {
        // The first request may still meet the broken connection.
        let found = (0..3).any(|_| {
            let outcome = here.block_on(status(connection));
            explain(&outcome.unwrap_err()).contains(sentence)
        });
        assert!(found, "{sentence}");
    };
    let (server, address) = serving("127.0.0.1:0", &keeper, subject());
    let options = demanding(&demand(AttestedRole::Keeper));
    let connection = here
        .block_on(connect(&address, &searcher, &trust, Role::Keeper, options))
        .unwrap();
    here.block_on(status(&connection)).unwrap();
    server.shutdown_timeout(long);

    // Another genuine keeper: another key.
    let other = issue(&authority, Role::Keeper);
    let (server, _) = serving(&address, &other, subject());
    refused(&connection, "another key");
    server.shutdown_timeout(long);
    // The same key, but set up otherwise, or for another index.
    for changed in [
        Subject {
            configuration: [0xbb; 32],
            ..subject()
        },
        Subject {
            index_id: [1; 16],
            ..subject()
        },
    ] {
        let (server, _) = serving(&address, &keeper, changed);
        refused(
            &connection,
            "serves another index or has another configuration",
        );
        server.shutdown_timeout(long);
    }
    assert_eq!(connection.connections(), 1);
    // A new epoch is no other party, and its evidence is the latest.
    let epoch = 4;
    let (_server, _) = serving(&address, &keeper, Subject { epoch, ..subject() });
    let reached = (0..3).any(|_| here.block_on(status(&connection)).is_ok());
    assert!(reached);
    assert_eq!(connection.connections(), 2);
    let latest = connection.peer().appraisal.unwrap();
    assert_eq!(latest.claims.subject.epoch, epoch);
}

/// A keeper of the attacker's with the genuine keeper's TLS key, which answers the first
/// connection's hello with what `evidence` makes of the session and the nonce.
async fn forging<F>(world: &World, evidence: F) -> String
where
    F: Fn([u8; 32], [u8; 32]) -> Vec<u8> + Send + Sync + 'static,
{
    let listening = Listening::new(&world.keeper, &world.trust, &["oboro/2"]).await;
    let address = listening.address.clone();
    tokio::spawn(async move {
        while let Ok(mut stream) = listening.accept().await {
            let session = stream.get_ref().1;
            let session = session
                .export_keying_material([0; 32], LABEL, Some(b"server"))
                .unwrap();
            let (_, nonce) = read_hello(&mut stream).await;
            let _ = stream.write_all(&hello(false, [7; 32])).await;
            let evidence = evidence(session, nonce);
            let _ = stream.write_all(&frame(EVIDENCE, &evidence)).await;
            let _ = stream.flush().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
    address
}

fn claims(session: [u8; 32], nonce: [u8; 32], channel_key: [u8; 32]) -> Claims {
    Claims {
        role: AttestedRole::Keeper,
        session,
        nonce,
        channel_key,
        subject: subject(),
        issued_at: unix_seconds(SystemTime::now()),
    }
}

/// Evidence that the genuine keeper gave on an earlier session.
async fn recorded(world: &World) -> Vec<u8> {
    let searcher = issue(&world.authority, Role::Searcher);
    let mut stream = dial(&world.address, &searcher, &world.trust, &["oboro/2"])
        .await
        .unwrap();
    stream.write_all(&hello(true, [9; 32])).await.unwrap();
    let (wants, _) = read_hello(&mut stream).await;
    assert!(!wants);
    let (kind, evidence) = read_frame(&mut stream).await.unwrap();
    assert_eq!(kind, EVIDENCE);
    evidence
}

#[tokio::test]
async fn fail_replayed_evidence_of_an_earlier_session() {
    let world = World::new(giving()).await;
    let old = recorded(&world).await;
    let address = forging(&world, move |_, _| old.clone()).await;
    let error = refused(&world, &address, demanding(&demand(AttestedRole::Keeper))).await;
    assert!(untrusted(&error, &AttestError::Session), "{error}");
    // Were the session not looked at, the nonce would still tell.
    let gullible = Gullible {
        session: true,
        ..Gullible::default()
    };
    let demand = Demand::new(Arc::new(gullible), AttestedRole::Keeper);
    let error = refused(&world, &address, demanding(&demand)).await;
    assert!(untrusted(&error, &AttestError::Nonce), "{error}");
}

#[tokio::test]
async fn fail_evidence_with_one_wrong_claim() {
    type Change = fn(&mut Claims);
    let world = World::new(giving()).await;
    let key = world.keeper.spki_sha256();
    let options = demanding(&demand(AttestedRole::Keeper));
    let attest = move |session, nonce, key, change: Change| {
        let mut claims = claims(session, nonce, key);
        change(&mut claims);
        attester().attest(&claims).unwrap()
    };
    let changes: [(Change, Option<AttestError>); 6] = [
        (|_| {}, None),
        (|claims| claims.nonce[0] ^= 1, Some(AttestError::Nonce)),
        (|claims| claims.session[31] ^= 1, Some(AttestError::Session)),
        (
            |claims| claims.channel_key[5] ^= 1,
            Some(AttestError::ChannelKey),
        ),
        (
            |claims| claims.role = AttestedRole::Searcher,
            Some(AttestError::Role),
        ),
        (
            |claims| claims.issued_at -= 1_000,
            Some(AttestError::Expired {
                age: 1_000,
                limit: 300,
            }),
        ),
    ];
    for (change, reason) in changes {
        let address = forging(&world, move |session, nonce| {
            attest(session, nonce, key, change)
        })
        .await;
        let searcher = issue(&world.authority, Role::Searcher);
        let outcome = connecting(&world, &address, &searcher, options.clone()).await;
        match (outcome.err(), reason) {
            // Unchanged it is accepted: the change is what each refusal is about.
            (None, None) => {}
            (Some(ChannelError::Untrusted(found)), Some(reason)) => match found {
                AttestError::Expired { age, .. } => assert!(age >= 1_000),
                found => assert_eq!(found, reason),
            },
            (outcome, reason) => panic!("{outcome:?}, {reason:?}"),
        }
    }
}

#[tokio::test]
async fn fail_reflected_evidence() {
    // The listener attests itself as what it demands, so that role says nothing; and its
    // verifier overlooks the key. The peer gives it back its own evidence, for its own
    // nonce.
    let overlooking = Arc::new(Gullible {
        channel_key: true,
        ..Gullible::default()
    });
    let options = AcceptOptions {
        offer: Some(offer(AttestedRole::Searcher)),
        ..attesting(Demand::new(overlooking.clone(), AttestedRole::Searcher))
    };
    let world = World::new(options).await;
    let thief = issue(&world.authority, Role::Searcher);
    let mut stream = dial(&world.address, &thief, &world.trust, &["oboro/2"])
        .await
        .unwrap();
    let (wants, nonce) = read_hello(&mut stream).await;
    assert!(wants);
    stream.write_all(&hello(true, nonce)).await.unwrap();
    let (kind, evidence) = read_frame(&mut stream).await.unwrap();
    assert_eq!(kind, EVIDENCE);
    stream.write_all(&frame(EVIDENCE, &evidence)).await.unwrap();
    assert_eq!(read_frame(&mut stream).await.unwrap(), (REFUSED, vec![4]));
    assert_eq!(overlooking.found(), [Err(AttestError::Session)]);
}

#[tokio::test]
async fn fail_simulated_platform_where_the_policy_does_not_allow_it() {
    let world = World::new(giving()).await;
    let strict = Demand::new(verifier(Policy::default()), AttestedRole::Keeper);
    let error = refused(&world, &world.address, demanding(&strict)).await;
    assert!(untrusted(&error, &AttestError::SimulatedRefused), "{error}");
    // The same the other way round.
    let strict = Demand::new(verifier(Policy::default()), AttestedRole::Searcher);
    let world = World::new(attesting(strict)).await;
    let options = offering(&offer(AttestedRole::Searcher));
    let error = refused(&world, &world.address, options).await;
    assert!(
        matches!(error, ChannelError::Refused(Refusal::Evidence)),
        "{error}"
    );
}

#[tokio::test]
async fn fail_evidence_cut_short_or_with_bytes_after_it() {
    let world = World::new(giving()).await;
    let key = world.keeper.spki_sha256();
    let genuine = move |session, nonce| attester().attest(&claims(session, nonce, key)).unwrap();
    let options = demanding(&demand(AttestedRole::Keeper));
    let address = forging(&world, move |session, nonce| {
        let mut evidence = genuine(session, nonce);
        evidence.push(0);
        evidence
    })
    .await;
    let error = refused(&world, &address, options.clone()).await;
    let reason = AttestError::Malformed("bytes follow its end");
    assert!(untrusted(&error, &reason), "{error}");
    let address = forging(&world, move |session, nonce| {
        let mut evidence = genuine(session, nonce);
        evidence.pop();
        evidence
    })
    .await;
    let error = refused(&world, &address, options.clone()).await;
    let reason = AttestError::Malformed("it is cut short");
    assert!(untrusted(&error, &reason), "{error}");
    // A frame that ends before its length.
    let listening = Listening::new(&world.keeper, &world.trust, &["oboro/2"]).await;
    let address = listening.address.clone();
    tokio::spawn(async move {
        let mut stream = listening.accept().await.unwrap();
        let mut bytes = hello(false, [7; 32]);
        bytes.extend_from_slice(&frame(EVIDENCE, &[1; 500])[..300]);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
    });
    let error = refused(&world, &address, options).await;
    assert!(
        matches!(error, ChannelError::Exchange("a frame that is cut short")),
        "{error}"
    );
}

#[tokio::test]
async fn evidence_is_demanded_on_every_connection() {
    let counting = Arc::new(Gullible::default());
    let world = World::new(giving()).await;
    let demand = Demand::new(counting.clone(), AttestedRole::Keeper);
    let searcher = issue(&world.authority, Role::Searcher);
    for connections in 1..4 {
        let options = demanding(&demand);
        connecting(&world, &world.address, &searcher, options)
            .await
            .unwrap();
        assert_eq!(counting.found().len(), connections);
    }
}
