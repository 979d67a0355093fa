//! A connection on the loopback interface: mutual TLS alone, and with evidence of the
//! simulated platform given and appraised on one side or on both. Server and client have
//! a runtime each, as two processes would. TCP is part of it, HTTP/2 almost not.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use oboro_attest::{AttestedRole, Attester, Claims, Policy, PolicyVerifier, Subject, unix_seconds};
use oboro_channel::{
    AcceptOptions, Authority, ConnectOptions, Demand, Offer, Role, connect, serve_incoming,
};
use oboro_simulated::{SimulatedAttester, SimulatedVerifier, measure};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;

fn verifier() -> PolicyVerifier {
    let policy = Policy::default().allowing_simulated();
    PolicyVerifier::new(policy, vec![Arc::new(SimulatedVerifier)])
}

fn demand(role: AttestedRole) -> Demand {
    Demand::new(Arc::new(verifier()), role)
}

fn offer(role: AttestedRole) -> Offer {
    let attester = SimulatedAttester::new(measure(b"benchmark"));
    Offer::new(Arc::new(attester), role, Subject::new([1; 32]))
}

fn handshake(criterion: &mut Criterion) {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let issue = |role| authority.issue(role, SystemTime::now(), day).unwrap();
    let trust = authority.trust();
    let searcher = issue(Role::Searcher);
    let far = Runtime::new().unwrap();
    let near = Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("connect, loopback");
    for (name, server_attests, client_attests) in [
        ("mutual TLS", false, false),
        ("the server attests itself", true, false),
        ("both attest themselves", true, true),
    ] {
        let options = AcceptOptions {
            allowed: vec![Role::Searcher],
            offer: server_attests.then(|| offer(AttestedRole::Keeper)),
            demands: client_attests
                .then(|| (Role::Searcher, demand(AttestedRole::Searcher)))
                .into_iter()
                .collect::<HashMap<_, _>>(),
            ..AcceptOptions::default()
        };
        let address = far.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let mut incoming =
                serve_incoming(listener, &issue(Role::Keeper), &trust, options).unwrap();
            tokio::spawn(async move { while incoming.next().await.is_some() {} });
            address
        });
        let options = ConnectOptions {
            offer: client_attests.then(|| offer(AttestedRole::Searcher)),
            demand: server_attests.then(|| demand(AttestedRole::Keeper)),
            ..ConnectOptions::default()
        };
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                near.block_on(connect(
                    &address,
                    &searcher,
                    &trust,
                    Role::Keeper,
                    options.clone(),
                ))
                .unwrap()
            });
        });
    }
    group.finish();

    // What of it is the platform's: signing and appraising, without a channel.
    let attester = SimulatedAttester::new(measure(b"benchmark"));
    let now = unix_seconds(SystemTime::now());
    let claims = Claims {
        role: AttestedRole::Keeper,
        session: [1; 32],
        nonce: [2; 32],
        channel_key: [3; 32],
        subject: Subject::new([1; 32]),
        issued_at: now,
    };
    let evidence = attester.attest(&claims).unwrap();
    let verifier = verifier();
    let mut group = criterion.benchmark_group("simulated platform");
    group.bench_function("attest", |bencher| {
        bencher.iter(|| attester.attest(black_box(&claims)).unwrap());
    });
    group.bench_function("appraise", |bencher| {
        bencher.iter(|| verifier.appraise_stored(black_box(&evidence), now).unwrap());
    });
    group.finish();
}

criterion_group!(benches, handshake);
criterion_main!(benches);
