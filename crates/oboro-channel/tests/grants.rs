//! What clients' certificates allow.
#![allow(clippy::unwrap_used)]

mod common;

use common::{DAY, World, accepting, described, issue};
use oboro_channel::{
    AcceptLimits, AcceptOptions, Access, Authority, ChannelError, Grant, Identity, Role,
};
use rcgen::{CertificateParams, KeyPair};
use std::time::SystemTime;

const INDEX: [u8; 16] = [0xab; 16];

#[tokio::test]
async fn servers_learn_what_a_client_may_do() {
    let options = AcceptOptions {
        allowed: vec![Role::Client, Role::Owner],
        ..accepting(AcceptLimits::default())
    };
    let world = World::new(options).await;
    for (grant, words) in [
        (Grant::any(Access::Reader), "client, reader of every index"),
        (Grant::any(Access::Writer), "client, writer of every index"),
        (
            Grant::index(Access::Writer, INDEX),
            "client, writer of index abababababababababababababababab",
        ),
    ] {
        let now = SystemTime::now();
        let client = world
            .authority
            .issue_client(grant, "Jürgen's laptop", now, DAY)
            .unwrap();
        assert_eq!(client.role(), Role::Client);
        assert_eq!(client.grant(), grant);
        assert_eq!(client.name(), "Jürgen's laptop");
        let lasts = client.not_after().duration_since(now).unwrap();
        assert!(lasts <= DAY && lasts.as_secs() + 2 > DAY.as_secs());
        // It survives the file.
        let read = Identity::from_pem(&client.to_pem()).unwrap();
        assert_eq!((read.grant(), read.serial()), (grant, client.serial()));
        let connection = world.connect_as(&read, &world.trust).await.unwrap();
        assert_eq!(described(&connection).await, words);
    }
    let plain = issue(&world.authority, Role::Client);
    assert_eq!(plain.grant(), Grant::any(Access::Reader));
    assert_eq!(
        issue(&world.authority, Role::Owner).grant(),
        Grant::any(Access::Owner)
    );
    assert_eq!(
        issue(&world.authority, Role::Searcher).grant(),
        Grant::NOTHING
    );
}

#[test]
fn fail_grants_and_names_that_no_client_has() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let issue = |access, name: &str| {
        let outcome = authority.issue_client(Grant::any(access), name, SystemTime::now(), DAY);
        outcome.err()
    };
    for access in [Access::Owner, Access::Nothing] {
        assert!(matches!(
            issue(access, "name"),
            Some(ChannelError::Grant(_))
        ));
    }
    for name in ["", "two\nlines", &"x".repeat(65)] {
        assert!(matches!(
            issue(Access::Reader, name),
            Some(ChannelError::Name)
        ));
    }
    assert!(issue(Access::Reader, &"ü".repeat(64)).is_none());
}

/// An identity whose certificate carries any names, signed by itself.
fn with_names(names: &[&str]) -> Result<Identity, ChannelError> {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    Identity::from_pem(&format!("{}{}", certificate.pem(), key.serialize_pem()))
}

#[test]
fn fail_certificates_that_claim_more_than_one_thing() {
    assert!(with_names(&["client.oboro.internal"]).is_ok());
    assert!(with_names(&["client.oboro.internal", "reader.any.grant.oboro.internal"]).is_ok());
    for names in [
        &["client.oboro.internal", "keeper.oboro.internal"][..],
        &["client.oboro.internal", "owner.any.grant.oboro.internal"],
        &["keeper.oboro.internal", "writer.any.grant.oboro.internal"],
        &["owner.oboro.internal", "writer.any.grant.oboro.internal"],
        &["reader.any.grant.oboro.internal"],
        &[
            "client.oboro.internal",
            "reader.any.grant.oboro.internal",
            "writer.any.grant.oboro.internal",
        ],
        &["client.oboro.internal", "example.org"],
    ] {
        let outcome = with_names(names);
        assert!(matches!(outcome, Err(ChannelError::NoRole)), "{names:?}");
    }
}
