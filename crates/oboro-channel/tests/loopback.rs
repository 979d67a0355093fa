//! Real handshakes on the loopback interface, good and bad.
#![allow(clippy::unwrap_used)]

mod common;

use common::{DAY, World, accepting, issue, serve_apart, serve_at, status};
use oboro_channel::{
    AcceptLimits, AcceptOptions, Authority, ChannelError, Clock, ConnectOptions, Identity, Role,
    Trust, connect, explain, serve_incoming,
};
use oboro_protocol::v1;
use oboro_protocol::v1::keeper_client::KeeperClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn both_sides_know_each_other() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let identity = issue(&world.authority, Role::Searcher);
    let connection = world.connect_as(&identity, &world.trust).await.unwrap();
    assert_eq!(connection.peer().role, Role::Keeper);
    assert_eq!(connection.connections(), 1);
    let reply = KeeperClient::new(connection.channel.clone())
        .prepare(v1::PrepareRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reply.handle[..32], identity.spki_sha256());
    assert_eq!(&reply.handle[32..], b"searcher, no access");
    assert_eq!(connection.peer().spki_sha256, world.keeper.spki_sha256());
    assert_eq!(connection.peer().serial, world.keeper.serial());
    assert!(connection.peer().appraisal.is_none());
}

#[tokio::test]
async fn large_messages_from_many_clients() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let tasks: Vec<_> = (0..8_u8)
        .map(|fill| {
            let address = world.address.clone();
            let trust = world.trust.clone();
            let identity = issue(&world.authority, Role::Searcher);
            tokio::spawn(async move {
                let options = ConnectOptions::default();
                let connection = connect(&address, &identity, &trust, Role::Keeper, options)
                    .await
                    .unwrap();
                let mut client = KeeperClient::new(connection.channel.clone());
                for _ in 0..4 {
                    let products = bytes::Bytes::from(vec![fill; 1 << 20]);
                    let reply = client
                        .decrypt(v1::DecryptRequest {
                            handle: bytes::Bytes::new(),
                            products: products.clone(),
                        })
                        .await
                        .unwrap()
                        .into_inner();
                    assert!(reply.share == products);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn reconnects_to_the_same_key_only() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let trust = authority.trust();
    let keeper = issue(&authority, Role::Keeper);
    let here = tokio::runtime::Runtime::new().unwrap();
    let (server, address) = serve_apart(
        "127.0.0.1:0",
        &keeper,
        &trust,
        accepting(AcceptLimits::default()),
    );
    let searcher = issue(&authority, Role::Searcher);
    let options = ConnectOptions::default();
    let connection = here
        .block_on(connect(
            &address,
            &searcher,
            &trust,
            Role::Keeper,
            options.clone(),
        ))
        .unwrap();
    here.block_on(status(&connection)).unwrap();
    // Away: every request says so at once.
    server.shutdown_timeout(Duration::from_secs(5));
    here.block_on(status(&connection)).unwrap_err();
    here.block_on(status(&connection)).unwrap_err();
    // Back with the same key: the channel recovers by itself.
    let (server, _) = serve_apart(
        &address,
        &keeper,
        &trust,
        accepting(AcceptLimits::default()),
    );
    here.block_on(status(&connection)).unwrap();
    assert_eq!(connection.connections(), 2);
    assert_eq!(connection.peer().spki_sha256, keeper.spki_sha256());
    server.shutdown_timeout(Duration::from_secs(5));
    // Back with another key of the same role and authority: refused on this channel.
    let other = issue(&authority, Role::Keeper);
    let (_server, _) = serve_apart(&address, &other, &trust, accepting(AcceptLimits::default()));
    let mut error = here.block_on(status(&connection)).unwrap_err();
    if !explain(&error).contains("another key") {
        // The first request may still have met the broken connection.
        error = here.block_on(status(&connection)).unwrap_err();
    }
    assert!(
        explain(&error).contains("another key"),
        "{}",
        explain(&error)
    );
    assert_eq!(connection.connections(), 2);
    let fresh = here
        .block_on(connect(&address, &searcher, &trust, Role::Keeper, options))
        .unwrap();
    assert_eq!(fresh.peer().spki_sha256, other.spki_sha256());
}

#[tokio::test]
async fn fail_another_authority() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let other = Authority::generate(SystemTime::now()).unwrap();
    // The client does not trust the server's authority.
    let identity = issue(&world.authority, Role::Searcher);
    let error = world.connect_as(&identity, &other.trust()).await.err();
    assert!(error.unwrap().to_string().contains("another authority"));
    // The server does not trust the client's authority.
    world
        .refuses(&issue(&other, Role::Searcher), "does not trust")
        .await;
    status(&world.connect(Role::Searcher).await.unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn fail_role_not_allowed() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    for role in [Role::Client, Role::Keeper] {
        world
            .refuses(&issue(&world.authority, role), "does not serve this role")
            .await;
    }
    for role in [Role::Searcher, Role::Owner] {
        status(&world.connect(role).await.unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn fail_server_of_another_role() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let identity = issue(&world.authority, Role::Searcher);
    let options = ConnectOptions::default();
    let error = connect(
        &world.address,
        &identity,
        &world.trust,
        Role::Searcher,
        options,
    )
    .await
    .err()
    .unwrap();
    assert!(
        error.to_string().contains("another role answers"),
        "{error}"
    );
}

#[tokio::test]
async fn fail_expired_or_not_yet_valid() {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let yesterday = Clock::new(move || now - DAY);
    let authority = Authority::generate(now).unwrap();
    let trust = authority.trust();
    let accepting = accepting(AcceptLimits::default());
    let issue = |role, from, validity| authority.issue(role, from, validity).unwrap();
    let good = |role| issue(role, now - 2 * DAY, 3 * DAY);
    let expired = |role| issue(role, now - DAY, hour);
    let early = |role| issue(role, now + hour, hour);
    let connecting = async |identity: &Identity, address: &str, clock: &Clock| {
        let options = ConnectOptions {
            clock: clock.clone(),
            ..ConnectOptions::default()
        };
        let connected = connect(address, identity, &trust, Role::Keeper, options).await;
        connected.err().unwrap()
    };

    // The client's certificate: it sees by itself that it is too late.
    let address = serve_at(&good(Role::Keeper), &trust, accepting.clone()).await;
    let searcher = expired(Role::Searcher);
    let error = connecting(&searcher, &address, &Clock::default()).await;
    assert!(matches!(error, ChannelError::Expired { .. }), "{error}");
    let sentence = "the searcher's certificate expired on 20";
    assert!(error.to_string().starts_with(sentence), "{error}");
    // Unless its clock is behind; then the server says so.
    let sentence = "this side's certificate is expired or not valid yet";
    let error = connecting(&searcher, &address, &yesterday).await;
    assert!(error.to_string().contains(sentence), "{error}");
    let error = connecting(&early(Role::Searcher), &address, &Clock::default()).await;
    assert!(error.to_string().contains(sentence), "{error}");

    // The server's certificate: it does not start with it, unless its clock is behind.
    let keeper = expired(Role::Keeper);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let started = serve_incoming(listener, &keeper, &trust, accepting.clone());
    assert!(matches!(started, Err(ChannelError::Expired { .. })));
    let behind = AcceptOptions {
        clock: yesterday.clone(),
        ..accepting.clone()
    };
    let address = serve_at(&keeper, &trust, behind).await;
    let error = connecting(&good(Role::Searcher), &address, &Clock::default()).await;
    let sentence = "its certificate expired on 20";
    assert!(error.to_string().contains(sentence), "{error}");
    let address = serve_at(&early(Role::Keeper), &trust, accepting).await;
    let error = connecting(&good(Role::Searcher), &address, &Clock::default()).await;
    let sentence = "its certificate is not valid before 20";
    assert!(error.to_string().contains(sentence), "{error}");
}

/// A handshake by plain rustls; reads one byte, so that a late alert is seen.
async fn raw(world: &World, mut config: rustls::ClientConfig) -> std::io::Result<usize> {
    config.alpn_protocols = vec![b"oboro/2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("keeper.oboro.internal").unwrap();
    let tcp = TcpStream::connect(&world.address).await?;
    let mut stream = connector.connect(name, tcp).await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await
}

fn roots(world: &World) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let pem = world.trust.to_pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    roots
}

fn builder(
    version: &'static rustls::SupportedProtocolVersion,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
}

#[tokio::test]
async fn fail_without_client_certificate() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let config = builder(&rustls::version::TLS13)
        .with_root_certificates(roots(&world))
        .with_no_client_auth();
    let error = raw(&world, config).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn fail_tls_1_2() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let pem = issue(&world.authority, Role::Searcher).to_pem();
    let certified = |version| {
        let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        builder(version)
            .with_root_certificates(roots(&world))
            .with_client_auth_cert(chain, key)
            .unwrap()
    };
    let error = raw(&world, certified(&rustls::version::TLS12))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    // The same client passes with TLS 1.3: the version was the reason.
    raw(&world, certified(&rustls::version::TLS13))
        .await
        .unwrap();
}

#[tokio::test]
async fn post_quantum_key_exchange_is_negotiated() {
    let world = World::new(accepting(AcceptLimits::default())).await;
    let pem = issue(&world.authority, Role::Searcher).to_pem();
    let chain = vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut config = builder(&rustls::version::TLS13)
        .with_root_certificates(roots(&world))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"oboro/2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("keeper.oboro.internal").unwrap();
    let tcp = TcpStream::connect(&world.address).await.unwrap();
    let stream = connector.connect(name, tcp).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn fail_slow_and_hostile_peers_delay_nobody() {
    let limits = AcceptLimits {
        handshakes: 16,
        handshake_timeout: Duration::from_secs(2),
        ..AcceptLimits::default()
    };
    let world = World::new(accepting(limits)).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(&world.address).await.unwrap());
    }
    for _ in 0..4 {
        let mut garbage = TcpStream::connect(&world.address).await.unwrap();
        garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        silent.push(garbage);
    }
    // They still hang when a good peer is served.
    status(&world.connect(Role::Searcher).await.unwrap())
        .await
        .unwrap();
    // And the server closes them when their time is over.
    for mut stream in silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn fail_too_many_connections() {
    let limits = AcceptLimits {
        connections: 2,
        ..AcceptLimits::default()
    };
    let world = World::new(accepting(limits)).await;
    let first = world.connect(Role::Searcher).await.unwrap();
    let second = world.connect(Role::Searcher).await.unwrap();
    status(&first).await.unwrap();
    status(&second).await.unwrap();
    world
        .refuses(&issue(&world.authority, Role::Searcher), "")
        .await;
    status(&first).await.unwrap();
}

#[tokio::test]
async fn fail_nobody_there_and_bad_address() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let identity = issue(&authority, Role::Searcher);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let options = ConnectOptions::default();
    let trust = authority.trust();
    let error = connect(&address, &identity, &trust, Role::Keeper, options.clone())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ChannelError::Unreachable { .. }));
    let text = error.to_string();
    assert_eq!(text.matches(&address).count(), 1, "{text}");
    assert_eq!(text.matches("cannot reach").count(), 1, "{text}");
    for bad in ["", "localhost", ":443", "localhost:http", "localhost:70000"] {
        let error = connect(bad, &identity, &trust, Role::Keeper, options.clone()).await;
        assert!(matches!(error, Err(ChannelError::Address(_))), "{bad}");
    }
}

#[test]
fn files_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let authority = Authority::generate(SystemTime::now()).unwrap();
    authority.create_file(&path("authority.pem")).unwrap();
    let again = Authority::read_file(&path("authority.pem")).unwrap();
    again.trust().create_file(&path("trust.pem")).unwrap();
    let trust = Trust::read_file(&path("trust.pem")).unwrap();
    assert_eq!(trust.to_pem(), authority.trust().to_pem());
    let identity = issue(&again, Role::Client);
    identity.create_file(&path("client.pem")).unwrap();
    let read = Identity::read_file(&path("client.pem")).unwrap();
    assert_eq!(read.role(), Role::Client);
    assert_eq!(read.spki_sha256(), identity.spki_sha256());
    assert_eq!(*read.to_pem(), *identity.to_pem());
}

#[test]
fn fail_foreign_or_damaged_pem() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let first = issue(&authority, Role::Client).to_pem();
    let second = issue(&authority, Role::Client).to_pem();
    let key_start = first.find("-----BEGIN PRIVATE").unwrap();
    let other_start = second.find("-----BEGIN PRIVATE").unwrap();
    let mixed = format!("{}{}", &first[..key_start], &second[other_start..]);
    assert!(matches!(
        Identity::from_pem(&mixed),
        Err(ChannelError::KeyMismatch)
    ));
    for text in ["", "hello", &first[..key_start], &first[key_start..]] {
        assert!(matches!(
            Identity::from_pem(text),
            Err(ChannelError::Malformed(_))
        ));
        assert!(Authority::from_pem(text).is_err());
    }
    assert!(Trust::from_pem("").is_err());
    // An authority's certificate names no role.
    assert!(matches!(
        Identity::from_pem(&authority.to_pem()),
        Err(ChannelError::NoRole)
    ));
}
