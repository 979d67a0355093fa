//! Who is answered, for which state of an index, and the life of keys.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{
    Home, INDEX, Index, Keeper, client, issue, prepared, refusal, register, release, release_key,
    rng, searcher, state, verifier,
};
use oboro_attest::{Acceptance, AttestedRole, Policy, Rules, SimulatedRules, key_set_digest};
use oboro_channel::{Authority, ChannelError, Role};
use oboro_ckks::{CodebookMasking, MaskedCodebook, Packing, ParameterSet, PublicKey};
use oboro_keeper::KeeperConfig;
use oboro_protocol::v1::keeper_client::KeeperClient;
use oboro_protocol::{PROTOCOL_VERSION, Reason, limits, v1};
use oboro_simulated::measure;
use std::time::{Duration, SystemTime};
use tonic::transport::Channel;

const SET: ParameterSet = ParameterSet::N2048Q50;

async fn start() -> Keeper {
    Keeper::start(SET, |_| ()).await
}

fn new_key(from: &PublicKey) -> v1::NewKeyRequest {
    v1::NewKeyRequest {
        parameter_set: SET.name().to_owned(),
        index_id: INDEX.to_vec().into(),
        from_fingerprint: from.fingerprint().to_vec().into(),
    }
}

fn retire(key: &PublicKey) -> v1::RetireKeyRequest {
    v1::RetireKeyRequest {
        fingerprint: key.fingerprint().to_vec().into(),
    }
}

fn reencrypt(index: &Index, from: &PublicKey, to: &PublicKey) -> v1::ReencryptRequest {
    v1::ReencryptRequest {
        index_id: INDEX.to_vec().into(),
        from_fingerprint: from.fingerprint().to_vec().into(),
        to_fingerprint: to.fingerprint().to_vec().into(),
        packing: Some(index.parameters()),
        blocks: Bytes::new(),
    }
}

/// The index under the key that the owner has had made.
async fn rotated(
    client: &mut KeeperClient<Channel>,
    index: &Index,
    to: &PublicKey,
    seed: u8,
) -> Index {
    let codebook = index.evaluator.codebook();
    let (masked, keep) = CodebookMasking::mask(codebook, &mut rng(seed));
    let request = v1::ReencryptRequest {
        blocks: masked.to_bytes().into(),
        ..reencrypt(index, &index.key, to)
    };
    let reply = client.reencrypt(request).await.unwrap().into_inner();
    let reply = MaskedCodebook::from_bytes(&index.packing, &reply.blocks).unwrap();
    let codebook = keep.unmask(reply).unwrap();
    Index::under(
        index.packing,
        index.scale,
        to,
        codebook,
        index.centroids.clone(),
    )
}

async fn key_made(owner: &mut KeeperClient<Channel>, from: &PublicKey) -> PublicKey {
    let reply = owner.new_key(new_key(from)).await.unwrap().into_inner();
    PublicKey::from_bytes(&reply.public_key).unwrap()
}

#[tokio::test]
async fn evidence_names_the_keys_that_are_held() {
    let keeper = start().await;
    let mut owner = keeper.client(Role::Owner).await;
    owner.register(register(state(1, 1, 1))).await.unwrap();
    let mut made = Vec::new();
    for keys in 1..=2 {
        for role in [Role::Searcher, Role::Client, Role::Owner] {
            let connection = keeper.connect_as(role).await;
            let appraisal = connection.peer().appraisal.unwrap();
            let description = client(&connection)
                .describe(v1::DescribeRequest {})
                .await
                .unwrap()
                .into_inner();
            assert_eq!(description.protocol_version, PROTOCOL_VERSION);
            assert!(!description.rollback_protected);
            let fingerprints: Vec<_> = description
                .public_keys
                .iter()
                .map(|key| PublicKey::from_bytes(key).unwrap().fingerprint())
                .collect();
            assert_eq!(fingerprints.len(), keys);
            let claims = appraisal.claims;
            assert_eq!(claims.role, AttestedRole::Keeper);
            assert_eq!(claims.subject.ckks_keys, key_set_digest(&fingerprints));
            assert_eq!(claims.subject.configuration, [0xc0; 32]);
            assert_eq!(appraisal.identity.measurement, measure(b"keeper"));
        }
        made.push(key_made(&mut owner, &keeper.public_key).await);
    }
    assert_eq!(made[0].fingerprint(), made[1].fingerprint());
}

#[tokio::test]
async fn fail_searcher_without_evidence() {
    let keeper = start().await;
    let identity = issue(&keeper.home.authority, Role::Searcher);
    let refused = keeper.connect(&identity, None).await.err().unwrap();
    assert!(
        matches!(refused, ChannelError::EvidenceDemanded(Role::Keeper)),
        "{refused}"
    );
}

#[tokio::test]
async fn fail_searcher_under_another_policy() {
    let only = |program: &[u8]| {
        let rules = SimulatedRules {
            measurements: vec![measure(program).to_vec()],
        };
        verifier(Policy {
            accept: vec![Acceptance {
                role: Some(AttestedRole::Searcher),
                configurations: Vec::new(),
                rules: Rules::Simulated(rules),
            }],
            ..Policy::default()
        })
    };
    let home = Home::new(SET);
    let policy = only(b"searcher");
    let keeper = home.serve(None, |config| config.verifier = policy).await;
    let identity = issue(&keeper.home.authority, Role::Searcher);
    for program in [b"altered searcher".as_slice(), b""] {
        let offer = Some(searcher(program, INDEX));
        let refused = keeper.connect(&identity, offer).await.err().unwrap();
        assert!(matches!(refused, ChannelError::Refused(_)), "{refused}");
    }
    let genuine = searcher(b"searcher", INDEX);
    let connection = keeper.connect(&identity, Some(genuine.clone())).await;
    let mut client = client(&connection.unwrap());
    client.register(register(state(1, 1, 1))).await.unwrap();
    // The policy changes while the keeper is restarted: the same searcher is out.
    let home = keeper.stop().await;
    let policy = only(b"the next searcher");
    let keeper = home.serve(None, |config| config.verifier = policy).await;
    let refused = keeper
        .connect(&identity, Some(genuine))
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, ChannelError::Refused(_)), "{refused}");
    // Without a policy that allows it, the simulated platform is nothing.
    let home = keeper.stop().await;
    let hardware = |config: &mut KeeperConfig| config.verifier = verifier(Policy::default());
    let keeper = home.serve(None, hardware).await;
    let offer = Some(searcher(b"searcher", INDEX));
    let refused = keeper.connect(&identity, offer).await.err().unwrap();
    assert!(matches!(refused, ChannelError::Refused(_)), "{refused}");
}

#[tokio::test]
async fn fail_parties_of_another_owner() {
    let keeper = start().await;
    let foreign = Authority::generate(SystemTime::now()).unwrap();
    for role in [Role::Searcher, Role::Client, Role::Owner] {
        let offer = (role == Role::Searcher).then(|| searcher(b"searcher", INDEX));
        let identity = issue(&foreign, role);
        assert!(keeper.connect(&identity, offer).await.is_err());
    }
}

#[tokio::test]
async fn fail_every_request_of_another_role() {
    let keeper = start().await;
    let index = Index::new(SET, &keeper.public_key, 9);
    let key = keeper.public_key.clone();
    let mut owner = keeper.client(Role::Owner).await;
    let mut searcher = keeper.client(Role::Searcher).await;
    for role in [Role::Client, Role::Owner] {
        let mut client = keeper.client(role).await;
        let decrypt = v1::DecryptRequest::default();
        for reason in [
            refusal(client.release(release(state(1, 1, 1)))).await,
            refusal(client.prepare(index.registration())).await,
            refusal(client.decrypt(decrypt)).await,
            refusal(client.reencrypt(reencrypt(&index, &key, &key))).await,
        ] {
            assert_eq!(reason, Reason::Forbidden, "{role}");
        }
    }
    let mut reader = keeper.client(Role::Client).await;
    let reason = refusal(reader.register(register(state(1, 1, 1)))).await;
    assert_eq!(reason, Reason::Forbidden);
    owner.register(register(state(1, 1, 1))).await.unwrap();
    for client in [&mut reader, &mut searcher] {
        let made = refusal(client.new_key(new_key(&key))).await;
        let retired = refusal(client.retire_key(retire(&key))).await;
        assert_eq!([made, retired], [Reason::Forbidden; 2]);
    }
    assert_eq!(keeper.server.public_keys().len(), 1);
    assert_eq!(keeper.server.metrics().refused, 13);
}

#[tokio::test]
async fn fail_older_states_and_forks_also_after_a_restart() {
    let home = Home::new(SET);
    let keeper = home.serve(None, |_| ()).await;
    let mut searcher = keeper.client(Role::Searcher).await;
    let newest = searcher.register(register(state(1, 5, 1))).await.unwrap();
    assert_eq!(newest.into_inner().newest, Some(state(1, 5, 1)));
    searcher.register(register(state(2, 7, 2))).await.unwrap();
    drop(searcher);
    let home = keeper.stop().await;
    let keeper = home.serve(None, |_| ()).await;
    let mut owner = keeper.client(Role::Owner).await;
    let mut searcher = keeper.client(Role::Searcher).await;
    let stale = [
        state(1, 5, 1),
        state(2, 6, 2),
        state(1, 8, 3),
        state(2, 7, 9),
        state(3, 7, 2),
    ];
    for stale in &stale {
        for reason in [
            refusal(searcher.register(register(stale.clone()))).await,
            refusal(searcher.release(release(stale.clone()))).await,
            refusal(owner.register(register(stale.clone()))).await,
        ] {
            assert_eq!(reason, Reason::Stale);
        }
    }
    assert_eq!(keeper.server.metrics().stale, 3 * stale.len() as u64);
    // The newest is released again and again, and one that follows it as well, so that a
    // searcher can open what it then registers.
    for state in [state(2, 7, 2), state(2, 7, 2), state(3, 8, 3)] {
        searcher.release(release(state)).await.unwrap();
    }
    let newest = keeper.server.newest(&INDEX).unwrap();
    assert_eq!((newest.epoch, newest.generation), (2, 7));
}

#[tokio::test]
async fn the_share_is_the_release_keys() {
    let keeper = start().await;
    let mut searcher = keeper.client(Role::Searcher).await;
    for epoch in [1, 2] {
        let reply = searcher.release(release(state(epoch, 1, 1))).await.unwrap();
        let share = release_key().share(&INDEX, epoch);
        assert_eq!(reply.into_inner().share, share.to_bytes()[..]);
    }
}

#[tokio::test]
async fn what_the_owner_registers_first_holds() {
    let keeper = start().await;
    let mut owner = keeper.client(Role::Owner).await;
    owner.register(register(state(1, 3, 1))).await.unwrap();
    let mut searcher = keeper.client(Role::Searcher).await;
    let older = refusal(searcher.register(register(state(1, 2, 7)))).await;
    let fork = refusal(searcher.release(release(state(1, 3, 7)))).await;
    assert_eq!([older, fork], [Reason::Stale; 2]);
    searcher.register(register(state(1, 3, 1))).await.unwrap();
}

#[tokio::test]
async fn fail_codebooks_of_states_that_are_not_registered() {
    let keeper = start().await;
    let index = Index::new(SET, &keeper.public_key, 9);
    let mut searcher = keeper.client(Role::Searcher).await;
    let prepare = |epoch| v1::PrepareRequest {
        epoch,
        ..index.registration()
    };
    let unknown = refusal(searcher.prepare(prepare(1))).await;
    assert_eq!(unknown, Reason::BadRequest);
    searcher.register(register(state(3, 4, 1))).await.unwrap();
    for (epoch, reason) in [(4, Reason::BadRequest), (1, Reason::Stale)] {
        assert_eq!(refusal(searcher.prepare(prepare(epoch))).await, reason);
    }
    // The newest, and the one before while a rotation cuts over.
    for epoch in [3, 2] {
        searcher.prepare(prepare(epoch)).await.unwrap();
    }
}

#[tokio::test]
async fn fail_the_handle_of_another_searcher() {
    let keeper = start().await;
    let index = Index::new(SET, &keeper.public_key, 9);
    let mut first = keeper.client(Role::Searcher).await;
    let mut second = keeper.client(Role::Searcher).await;
    let handle = prepared(&mut first, &index).await;
    let request = v1::DecryptRequest {
        handle: handle.clone(),
        products: index.products(&[0.5; 128], 1).1.to_bytes().into(),
    };
    let reason = refusal(second.decrypt(request)).await;
    assert_eq!(reason, Reason::UnknownHandle);
    // Once it has prepared the codebook itself, it may.
    assert_eq!(prepared(&mut second, &index).await, handle);
    index.check(&mut second, &handle, 2).await;
    index.check(&mut first, &handle, 3).await;
}

#[tokio::test]
async fn fail_evidence_for_another_index() {
    let keeper = start().await;
    let index = Index::new(SET, &keeper.public_key, 9);
    let identity = issue(&keeper.home.authority, Role::Searcher);
    let other = Some(searcher(b"searcher", [6; 16]));
    let mut other = client(&keeper.connect(&identity, other).await.unwrap());
    for reason in [
        refusal(other.release(release(state(1, 1, 1)))).await,
        refusal(other.register(register(state(1, 1, 1)))).await,
        refusal(other.prepare(index.registration())).await,
        refusal(other.reencrypt(reencrypt(&index, &index.key, &index.key))).await,
    ] {
        assert_eq!(reason, Reason::Forbidden);
    }
    let own = Some(searcher(b"searcher", INDEX));
    let mut own = client(&keeper.connect(&identity, own).await.unwrap());
    own.release(release(state(1, 1, 1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_rotated_while_tables_are_answered() {
    for set in ParameterSet::ALL {
        let keeper = Keeper::start(set, |_| ()).await;
        let mut owner = keeper.client(Role::Owner).await;
        let mut searcher = keeper.client(Role::Searcher).await;
        let old = Index::new(set, &keeper.public_key, 9);
        let old_handle = prepared(&mut searcher, &old).await;
        old.check(&mut searcher, &old_handle, 1).await;

        let request = v1::NewKeyRequest {
            parameter_set: set.name().to_owned(),
            ..new_key(&old.key)
        };
        let reply = owner.new_key(request).await.unwrap().into_inner();
        let key = PublicKey::from_bytes(&reply.public_key).unwrap();
        assert_ne!(key.fingerprint(), old.key.fingerprint());
        let new = rotated(&mut searcher, &old, &key, 30).await;
        searcher.register(register(state(2, 2, 2))).await.unwrap();
        let request = v1::PrepareRequest {
            epoch: 2,
            ..new.registration()
        };
        let new_handle = searcher.prepare(request).await.unwrap().into_inner().handle;
        assert_ne!(new_handle, old_handle);
        for seed in 2..5 {
            old.check(&mut searcher, &old_handle, seed).await;
            new.check(&mut searcher, &new_handle, seed).await;
        }

        owner.retire_key(retire(&old.key)).await.unwrap();
        new.check(&mut searcher, &new_handle, 6).await;
        let request = v1::DecryptRequest {
            handle: old_handle,
            products: old.products(&[0.5; 128], 1).1.to_bytes().into(),
        };
        let gone = refusal(searcher.decrypt(request)).await;
        assert_eq!(gone, Reason::UnknownHandle);
        let again = refusal(searcher.prepare(old.registration())).await;
        assert_eq!(again, Reason::BadRequest);
        let metrics = keeper.server.metrics();
        assert_eq!((metrics.reencrypted, metrics.prepared), (1, 2));
        // The keys outlast the keeper.
        drop((owner, searcher));
        let keeper = keeper.stop().await.serve(None, |_| ()).await;
        assert_eq!(keeper.public_key.fingerprint(), key.fingerprint());
        let mut searcher = keeper.client(Role::Searcher).await;
        let request = v1::PrepareRequest {
            epoch: 2,
            ..new.registration()
        };
        let handle = searcher.prepare(request).await.unwrap().into_inner().handle;
        new.check(&mut searcher, &handle, 7).await;
    }
}

/// Indexes of one owner share the key of `keygen` until they are rotated: who retires it
/// for one of them must not take it from the others.
#[tokio::test]
async fn fail_retiring_the_key_of_another_index_that_is_served() {
    let keeper = start().await;
    let mut owner = keeper.client(Role::Owner).await;
    let mut searcher = keeper.client(Role::Searcher).await;
    let rotated_away = Index::new(SET, &keeper.public_key, 9);
    prepared(&mut searcher, &rotated_away).await;
    let other = v1::IndexState {
        index_id: vec![6; 16].into(),
        ..state(1, 1, 7)
    };
    searcher.register(register(other)).await.unwrap();
    let served = v1::PrepareRequest {
        index_id: vec![6; 16].into(),
        ..rotated_away.registration()
    };
    let handle = searcher.prepare(served).await.unwrap().into_inner().handle;
    let key = key_made(&mut owner, &keeper.public_key).await;
    searcher.register(register(state(2, 2, 2))).await.unwrap();

    let refused = refusal(owner.retire_key(retire(&keeper.public_key))).await;
    assert_eq!(refused, Reason::BadRequest);
    rotated_away.check(&mut searcher, &handle, 2).await;
    // What no index is served under may go.
    owner.retire_key(retire(&key)).await.unwrap();
}

#[tokio::test]
async fn fail_reencryption_without_an_open_rotation() {
    let keeper = start().await;
    let mut owner = keeper.client(Role::Owner).await;
    let mut searcher = keeper.client(Role::Searcher).await;
    let index = Index::new(SET, &keeper.public_key, 9);
    let codebook = index.evaluator.codebook();
    let blocks = Bytes::from(CodebookMasking::mask(codebook, &mut rng(3)).0.to_bytes());
    let ask = |from: &PublicKey, to: &PublicKey| v1::ReencryptRequest {
        blocks: blocks.clone(),
        ..reencrypt(&index, from, to)
    };
    let old = index.key.clone();
    // From a key to itself, before anything was opened.
    let unopened = refusal(searcher.reencrypt(ask(&old, &old))).await;
    assert_eq!(unopened, Reason::Forbidden);
    searcher.register(register(state(1, 1, 1))).await.unwrap();
    let new = key_made(&mut owner, &old).await;
    for (from, to) in [(&old, &old), (&new, &old), (&new, &new)] {
        let reason = refusal(searcher.reencrypt(ask(from, to))).await;
        assert_eq!(reason, Reason::Forbidden);
    }
    let elsewhere = v1::ReencryptRequest {
        index_id: vec![6; 16].into(),
        ..ask(&old, &new)
    };
    assert_eq!(
        refusal(searcher.reencrypt(elsewhere)).await,
        Reason::Forbidden
    );

    // Malformed ones use up no attempt.
    let changes: [fn(&mut v1::ReencryptRequest); 6] = [
        |r| r.blocks = r.blocks.slice(1..),
        |r| r.blocks = r.blocks.slice(..r.blocks.len() - 1),
        |r| r.blocks = vec![0xff; r.blocks.len()].into(),
        |r| r.packing = None,
        |r| r.packing.as_mut().unwrap().parameter_set = "N4096_Q100".into(),
        |r| r.from_fingerprint = Bytes::new(),
    ];
    for change in changes {
        let mut request = ask(&old, &new);
        change(&mut request);
        let reason = refusal(searcher.reencrypt(request)).await;
        assert_eq!(reason, Reason::BadRequest);
    }
    for _ in 0..8 {
        searcher.reencrypt(ask(&old, &new)).await.unwrap();
    }
    let used_up = refusal(searcher.reencrypt(ask(&old, &new))).await;
    assert_eq!(used_up, Reason::Limit);
    // The owner opens it again; the new epoch closes it.
    key_made(&mut owner, &old).await;
    searcher.reencrypt(ask(&old, &new)).await.unwrap();
    searcher.register(register(state(2, 2, 2))).await.unwrap();
    let closed = refusal(searcher.reencrypt(ask(&old, &new))).await;
    assert_eq!(closed, Reason::Forbidden);
    assert_eq!(keeper.server.metrics().reencrypted, 9);
}

#[tokio::test]
async fn fail_oversized_codebook_is_refused_unread() {
    let keeper = start().await;
    let index = Index::new(SET, &keeper.public_key, 9);
    let mut searcher = keeper
        .client(Role::Searcher)
        .await
        .max_encoding_message_size(usize::MAX);
    let request = v1::ReencryptRequest {
        blocks: vec![0; limits::KEEPER_REQUEST_LIMIT + 1].into(),
        ..reencrypt(&index, &index.key, &index.key)
    };
    let status = searcher.reencrypt(request).await.err().unwrap();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
}

/// Re-encrypted blocks are the largest messages; every shape that is served fits.
#[test]
fn the_largest_codebook_fits_a_message() {
    let largest = (1..=2_048_usize)
        .flat_map(|m| (1..=4_096 / m).map(move |width| (m, width)))
        .filter_map(|(m, width)| {
            Packing::compact_query(ParameterSet::N4096Q100, m, width, 256).ok()
        })
        .map(|packing| MaskedCodebook::largest_len(&packing))
        .max();
    let room = limits::KEEPER_REQUEST_LIMIT.min(limits::MAX_MASKS_MESSAGE_BYTES);
    assert!(largest.unwrap() + 1_024 <= room, "{largest:?}");
}

#[tokio::test]
async fn fail_keys_that_cannot_be_made_or_retired() {
    let keeper = start().await;
    let mut owner = keeper.client(Role::Owner).await;
    let key = keeper.public_key.clone();
    let unregistered = refusal(owner.new_key(new_key(&key))).await;
    assert_eq!(unregistered, Reason::BadRequest);
    owner.register(register(state(1, 1, 1))).await.unwrap();
    let changes: [fn(&mut v1::NewKeyRequest); 5] = [
        |r| r.parameter_set = "N4096_Q100".into(),
        |r| r.parameter_set = String::new(),
        |r| r.index_id = vec![1; 15].into(),
        |r| r.from_fingerprint = vec![1; 32].into(),
        |r| r.from_fingerprint = Bytes::new(),
    ];
    for change in changes {
        let mut request = new_key(&key);
        change(&mut request);
        assert_eq!(refusal(owner.new_key(request)).await, Reason::BadRequest);
    }
    // The only key stays, and so does the set.
    for fingerprint in [key.fingerprint().to_vec(), vec![9; 32], vec![9; 31]] {
        let request = v1::RetireKeyRequest {
            fingerprint: fingerprint.into(),
        };
        assert_eq!(refusal(owner.retire_key(request)).await, Reason::BadRequest);
    }
    assert_eq!(keeper.server.public_keys().len(), 1);
}

#[tokio::test]
async fn connections_end_and_evidence_is_demanded_anew() {
    let keeper = Keeper::start(SET, |config| {
        config.connection_age = Duration::from_millis(300);
    })
    .await;
    let index = Index::new(SET, &keeper.public_key, 9);
    let connection = keeper.connect_as(Role::Searcher).await;
    let issued = |connection: &oboro_channel::Connection| {
        let appraisal = connection.peer().appraisal.unwrap();
        (appraisal.claims.nonce, appraisal.claims.session)
    };
    let first = issued(&connection);
    let mut client = client(&connection);
    let handle = prepared(&mut client, &index).await;
    index.check(&mut client, &handle, 1).await;
    while connection.connections() < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        // A request that meets the end of a connection may fail; the next does not.
        let _ = client.status(v1::StatusRequest {}).await;
    }
    assert_ne!(issued(&connection), first);
    // What was prepared belongs to the key, not to the connection.
    index.check(&mut client, &handle, 2).await;
}
