//! gRPC-web over HTTP/1.1: the way a browser asks.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{Shape, World};
use oboro_quant::Metric;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

/// One gRPC-web call; the whole HTTP response.
async fn ask(world: &World, address: std::net::SocketAddr, method: &str, body: &[u8]) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    let trust = world.authority.trust().to_pem();
    roots
        .add(CertificateDer::from_pem_slice(trust.as_bytes()).unwrap())
        .unwrap();
    let identity = world.client_identity.to_pem();
    let certificate = CertificateDer::from_pem_slice(identity.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("searcher.oboro.internal").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap();
    let head = format!(
        "POST /oboro.v1.Searcher/{method} HTTP/1.1\r\nHost: searcher.oboro.internal\r\n\
         Content-Type: application/grpc-web+proto\r\nX-Grpc-Web: 1\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut reply = Vec::new();
    // Some peers close without a TLS goodbye; what was read counts.
    let _ = stream.read_to_end(&mut reply).await;
    reply
}

fn contains(reply: &[u8], text: &str) -> bool {
    reply
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_style_requests_are_answered() {
    let world = World::new(&Shape::new(300, 8, Metric::L2).for_keyholders());
    let (_metrics, searcher) = world.searcher(None).await;
    // An empty message: no flags, length 0.
    let reply = ask(&world, searcher.address, "Status", &[0; 5]).await;
    assert!(
        reply.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&reply)
    );
    assert!(contains(&reply, "application/grpc-web"));
    assert!(
        contains(&reply, "grpc-status:0"),
        "{}",
        String::from_utf8_lossy(&reply)
    );

    let reply = ask(&world, searcher.address, "Search", &[0; 5]).await;
    assert!(
        contains(&reply, "oboro-reason: KEEPER_UNREACHABLE"),
        "{}",
        String::from_utf8_lossy(&reply)
    );
}
