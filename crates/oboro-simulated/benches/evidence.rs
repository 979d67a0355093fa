//! What evidence costs each side of a handshake, the platform's own work left out.
#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use oboro_attest::{
    AttestedRole, Attester, Claims, Expected, Policy, PolicyVerifier, Subject, Verifier,
};
use oboro_simulated::{SimulatedAttester, SimulatedVerifier, measure};
use std::sync::Arc;

fn evidence(criterion: &mut Criterion) {
    let claims = Claims {
        role: AttestedRole::Keeper,
        session: [1; 32],
        nonce: [2; 32],
        channel_key: [3; 32],
        subject: Subject::new([4; 32]),
        issued_at: 1_800_000_000,
    };
    let expected = Expected {
        role: claims.role,
        session: claims.session,
        nonce: claims.nonce,
        channel_key: claims.channel_key,
    };
    let attester = SimulatedAttester::new(measure(b"program"));
    let verifier = PolicyVerifier::new(
        Policy::default().allowing_simulated(),
        vec![Arc::new(SimulatedVerifier)],
    );
    let encoded = attester.attest(&claims).unwrap();
    criterion.bench_function("attest", |bench| {
        bench.iter(|| attester.attest(&claims).unwrap());
    });
    criterion.bench_function("appraise", |bench| {
        bench.iter(|| {
            verifier
                .appraise(&encoded, &expected, claims.issued_at)
                .unwrap()
        });
    });
}

criterion_group!(benches, evidence);
criterion_main!(benches);
