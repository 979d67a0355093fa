//! Parties by plain rustls that do not keep to the rules. What they send is written down
//! here byte by byte, independently of the library's own frames.

use oboro_channel::{Identity, Trust};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub const HELLO: u8 = 1;
pub const EVIDENCE: u8 = 2;
pub const ACCEPTED: u8 = 3;
pub const REFUSED: u8 = 4;

pub const LABEL: &[u8] = b"EXPORTER-oboro-attested-channel";

pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub fn hello(wants_evidence: bool, nonce: [u8; 32]) -> Vec<u8> {
    let mut payload = vec![2, u8::from(wants_evidence)];
    payload.extend_from_slice(&nonce);
    frame(HELLO, &payload)
}

pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32_le().await?;
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    Ok((kind, payload))
}

/// The nonce of the peer's hello, and whether it wants evidence.
pub async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> (bool, [u8; 32]) {
    let (kind, payload) = read_frame(stream).await.unwrap();
    assert_eq!((kind, payload[0], payload.len()), (HELLO, 2, 34));
    (payload[1] == 1, payload[2..].try_into().unwrap())
}

fn parts(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let pem = identity.to_pem();
    (
        vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()],
        PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap(),
    )
}

fn roots(trust: &Trust) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = trust.to_pem();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Connects to a keeper by plain TLS.
pub async fn dial(
    address: &str,
    identity: &Identity,
    trust: &Trust,
    alpn: &[&str],
) -> io::Result<client::TlsStream<TcpStream>> {
    let (chain, key) = parts(identity);
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(trust))
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = protocols(alpn);
    let name = ServerName::try_from("keeper.oboro.internal").unwrap();
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// A listener by plain TLS.
pub struct Listening {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    pub address: String,
}

impl Listening {
    pub async fn new(identity: &Identity, trust: &Trust, alpn: &[&str]) -> Self {
        let (chain, key) = parts(identity);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(trust), provider())
            .build()
            .unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = protocols(alpn);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap().to_string(),
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    pub async fn accept(&self) -> io::Result<server::TlsStream<TcpStream>> {
        let (tcp, _) = self.listener.accept().await?;
        self.acceptor.accept(tcp).await
    }
}

/// Copies both ways until one side ends; what it saw in the clear.
pub async fn relay(
    left: server::TlsStream<TcpStream>,
    right: client::TlsStream<TcpStream>,
    seen: Arc<std::sync::Mutex<Vec<u8>>>,
) {
    let (mut left_in, mut left_out) = tokio::io::split(left);
    let (mut right_in, mut right_out) = tokio::io::split(right);
    let up = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match left_in.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    seen.lock().unwrap().extend_from_slice(&buffer[..length]);
                    if right_out.write_all(&buffer[..length]).await.is_err()
                        || right_out.flush().await.is_err()
                    {
                        break;
                    }
                }
            }
        }
        let _ = right_out.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut right_in, &mut left_out).await;
        let _ = left_out.shutdown().await;
    };
    tokio::join!(up, down);
}
