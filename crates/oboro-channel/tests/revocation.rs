//! Revocation lists: issued, enforced on both sides, taken over without a restart.
#![allow(clippy::unwrap_used)]

mod common;

use common::{DAY, World, accepting, issue, serve_at, status, until_refused};
use oboro_channel::{
    AcceptLimits, AcceptOptions, Authority, ChannelError, Clock, ConnectOptions, Identity, Role,
    Serial, Trust, connect,
};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// How often lists are looked at again in these tests.
const RECHECK: Duration = Duration::from_millis(20);

fn list(authority: &Authority, revoked: &[&Identity], number: u64) -> String {
    let now = SystemTime::now();
    let serials: Vec<Serial> = revoked.iter().map(|identity| identity.serial()).collect();
    authority
        .revocation_list(&serials, number, now, now + DAY)
        .unwrap()
}

fn rechecking() -> AcceptOptions {
    AcceptOptions {
        recheck: RECHECK,
        ..accepting(AcceptLimits::default())
    }
}

/// Replaces a file as an operator should: whole.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A clock that tests set.
fn settable() -> (Clock, Arc<Mutex<SystemTime>>) {
    let time = Arc::new(Mutex::new(SystemTime::now()));
    let shown = time.clone();
    (Clock::new(move || *shown.lock().unwrap()), time)
}

#[tokio::test]
async fn fail_revoked_client() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let [revoked, good] = [(); 2].map(|()| issue(&world.authority, Role::Searcher));
    assert_ne!(revoked.serial(), good.serial());
    let trust = world
        .trust
        .with_revocations(&list(&world.authority, &[&revoked], 1))
        .unwrap();
    let address = serve_at(&world.keeper, &trust, accepting(AcceptLimits::default())).await;
    let connecting = async |identity| {
        let options = ConnectOptions::default();
        connect(&address, identity, &world.trust, Role::Keeper, options).await
    };
    let error = connecting(&revoked).await.err().unwrap();
    let sentence = "this side's certificate is revoked";
    assert!(error.to_string().contains(sentence), "{error}");
    status(&connecting(&good).await.unwrap()).await.unwrap();
    // Where there is no list it is let in: the list was the reason.
    status(&world.connect_as(&revoked, &world.trust).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn fail_revoked_server() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let searcher = issue(&world.authority, Role::Searcher);
    let connecting = async |revoked: &[&Identity]| {
        let list = list(&world.authority, revoked, 1);
        let trust = world.trust.with_revocations(&list).unwrap();
        assert_eq!(trust.revocations().unwrap().revoked, revoked.len());
        world.connect_as(&searcher, &trust).await
    };
    let error = connecting(&[&searcher, &world.keeper]).await.err().unwrap();
    assert!(
        error.to_string().contains("its certificate is revoked"),
        "{error}"
    );
    // A list of others, and one of nobody.
    let other = issue(&world.authority, Role::Keeper);
    status(&connecting(&[&other]).await.unwrap()).await.unwrap();
    status(&connecting(&[]).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn fail_expired_list_refuses_everybody() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let hour = Duration::from_secs(3600);
    let old = SystemTime::now() - DAY;
    let text = authority.revocation_list(&[], 1, old, old + hour).unwrap();
    let trust = authority.trust().with_revocations(&text).unwrap();
    let keeper = issue(&authority, Role::Keeper);
    let searcher = issue(&authority, Role::Searcher);
    let options = ConnectOptions::default;
    let plain = accepting(AcceptLimits::default());
    let address = serve_at(&keeper, &authority.trust(), plain.clone()).await;
    let error = connect(&address, &searcher, &trust, Role::Keeper, options()).await;
    let error = error.err().unwrap().to_string();
    let sentence = "this side's revocation list expired on 20";
    assert!(error.contains(sentence), "{error}");
    let address = serve_at(&keeper, &trust, plain).await;
    let error = connect(
        &address,
        &searcher,
        &authority.trust(),
        Role::Keeper,
        options(),
    )
    .await;
    let error = error.err().unwrap().to_string();
    assert!(error.contains("its revocation list has expired"), "{error}");
}

#[tokio::test]
async fn a_new_list_is_taken_over_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.pem");
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let keeper = issue(&authority, Role::Keeper);
    let [revoked, good] = [(); 2].map(|()| issue(&authority, Role::Searcher));
    replace(&path, &list(&authority, &[], 1));
    let trust = authority.trust().with_revocation_file(&path).unwrap();
    let address = serve_at(&keeper, &trust, rechecking()).await;
    let connecting = async |identity| {
        let options = ConnectOptions::default();
        connect(
            &address,
            identity,
            &authority.trust(),
            Role::Keeper,
            options,
        )
        .await
    };
    let doomed = connecting(&revoked).await.unwrap();
    let staying = connecting(&good).await.unwrap();
    status(&doomed).await.unwrap();
    status(&staying).await.unwrap();

    replace(&path, &list(&authority, &[&revoked], 2));
    // The open connection is closed, and no new one is let in.
    until_refused(&doomed).await;
    let error = connecting(&revoked).await.err().unwrap();
    let sentence = "this side's certificate is revoked";
    assert!(error.to_string().contains(sentence), "{error}");
    assert_eq!(trust.revocations().unwrap().number, 2);
    // Others notice nothing.
    status(&staying).await.unwrap();
    assert_eq!(staying.connections(), 1);
    status(&connecting(&good).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn fail_open_connection_to_a_revoked_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.pem");
    let world = World::new(accepting(AcceptLimits::default())).await;
    replace(&path, &list(&world.authority, &[], 1));
    let trust = world.trust.with_revocation_file(&path).unwrap();
    let searcher = issue(&world.authority, Role::Searcher);
    let options = ConnectOptions {
        recheck: RECHECK,
        ..ConnectOptions::default()
    };
    let connection = connect(&world.address, &searcher, &trust, Role::Keeper, options)
        .await
        .unwrap();
    status(&connection).await.unwrap();
    replace(&path, &list(&world.authority, &[&world.keeper], 2));
    until_refused(&connection).await;
    // It dials again, and is told why that fails.
    let error = until_refused(&connection).await;
    assert!(error.contains("its certificate is revoked"), "{error}");
    assert_eq!(connection.connections(), 1);
}

#[tokio::test]
async fn fail_open_connection_after_certificate_or_list_expire() {
    for (validity, next_update) in [(DAY, 3 * DAY), (3 * DAY, DAY)] {
        let now = SystemTime::now();
        let authority = Authority::generate(now).unwrap();
        let text = authority
            .revocation_list(&[], 1, now, now + next_update)
            .unwrap();
        let trust = authority.trust().with_revocations(&text).unwrap();
        let keeper = authority.issue(Role::Keeper, now, 3 * DAY).unwrap();
        let (clock, time) = settable();
        let options = AcceptOptions {
            clock,
            ..rechecking()
        };
        let address = serve_at(&keeper, &trust, options).await;
        let searcher = authority.issue(Role::Searcher, now, validity).unwrap();
        let options = ConnectOptions::default();
        let connection = connect(
            &address,
            &searcher,
            &authority.trust(),
            Role::Keeper,
            options,
        )
        .await
        .unwrap();
        tokio::time::sleep(3 * RECHECK).await;
        status(&connection).await.unwrap();
        *time.lock().unwrap() = now + 2 * DAY;
        until_refused(&connection).await;
    }
}

#[test]
fn fail_older_foreign_and_missing_lists_leave_the_one_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked.pem");
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let other = Authority::generate(SystemTime::now()).unwrap();
    let revoked = issue(&authority, Role::Searcher);
    let missing = authority.trust().with_revocation_file(&path);
    assert!(matches!(missing, Err(ChannelError::File { .. })));
    replace(&path, &list(&authority, &[&revoked], 5));
    let trust = authority.trust().with_revocation_file(&path).unwrap();
    assert!(!trust.refresh().unwrap());
    replace(&path, &list(&authority, &[], 4));
    assert!(matches!(
        trust.refresh(),
        Err(ChannelError::OlderRevocations { found: 4, held: 5 })
    ));
    // The same number with another content is no newer list either.
    replace(&path, &list(&authority, &[], 5));
    assert!(matches!(
        trust.refresh(),
        Err(ChannelError::OlderRevocations { .. })
    ));
    replace(&path, &list(&other, &[], 9));
    assert!(matches!(
        trust.refresh(),
        Err(ChannelError::ForeignRevocations)
    ));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(trust.refresh(), Err(ChannelError::File { .. })));
    let held = trust.revocations().unwrap();
    assert_eq!((held.number, held.revoked), (5, 1));
    // Clones share what one of them takes over.
    let clone = trust.clone();
    replace(&path, &list(&authority, &[], 6));
    assert!(trust.refresh().unwrap());
    assert_eq!(clone.revocations().unwrap().number, 6);
}

/// The PEM text of other bytes.
fn pem_of(der: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::from("-----BEGIN X509 CRL-----\n");
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in der.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * position) & 63) as usize];
            let digit = if position > group.len() { b'=' } else { digit };
            write!(text, "{}", char::from(digit)).unwrap();
        }
    }
    text.push_str("\n-----END X509 CRL-----\n");
    text
}

#[test]
fn fail_every_altered_byte_of_a_list() {
    use rustls::pki_types::CertificateRevocationListDer;
    use rustls::pki_types::pem::PemObject;
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let trust = authority.trust();
    let revoked = issue(&authority, Role::Searcher);
    let text = list(&authority, &[&revoked], 7);
    let der = CertificateRevocationListDer::from_pem_slice(text.as_bytes()).unwrap();
    assert!(trust.with_revocations(&pem_of(&der)).is_ok());
    for at in 0..der.len() {
        let mut altered = der.to_vec();
        altered[at] ^= 1;
        assert!(trust.with_revocations(&pem_of(&altered)).is_err(), "{at}");
    }
    for length in 0..der.len() {
        assert!(trust.with_revocations(&pem_of(&der[..length])).is_err());
    }
    let mut longer = der.to_vec();
    longer.push(0);
    assert!(trust.with_revocations(&pem_of(&longer)).is_err());
    for text in ["", "hello", &trust.to_pem()] {
        assert!(matches!(
            trust.with_revocations(text),
            Err(ChannelError::Malformed(_))
        ));
    }
    let foreign = Trust::from_pem(
        &Authority::generate(SystemTime::now())
            .unwrap()
            .trust()
            .to_pem(),
    );
    assert!(matches!(
        foreign.unwrap().with_revocations(&text),
        Err(ChannelError::ForeignRevocations)
    ));
}
