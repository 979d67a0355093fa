//! A processor vendor of our own: authorities, certificates, revocation lists and reports
//! in the shape of AMD's, correctly signed, and wrong in one way at a time.
#![allow(dead_code, clippy::unwrap_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA384};
use oboro_attest::snp::table::{self, EntryKind};
use oboro_attest::snp::{Product, Root, SnpVerifier};
use p384::ecdsa::{Signature, SigningKey, signature::Signer};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};
use x509_cert::der::{Encode, asn1::ObjectIdentifier};
use x509_cert::time::Time;

/// The time of all tests, and dates around it.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const YEAR: u64 = 365 * 24 * 3600;

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length => {
            let bytes = length.to_be_bytes();
            let skip = bytes.iter().take_while(|byte| **byte == 0).count();
            out.push(0x80 | (bytes.len() - skip) as u8);
            out.extend_from_slice(&bytes[skip..]);
        }
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

fn oid(text: &str) -> Vec<u8> {
    ObjectIdentifier::new(text).unwrap().to_der().unwrap()
}

fn integer(value: u64) -> Vec<u8> {
    value.to_der().unwrap()
}

fn bits(content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], content].concat())
}

fn time(at: u64) -> Vec<u8> {
    Time::try_from(UNIX_EPOCH + Duration::from_secs(at))
        .unwrap()
        .to_der()
        .unwrap()
}

fn name(common: &str) -> Vec<u8> {
    let attribute = sequence(&[oid("2.5.4.3"), tlv(0x0c, common.as_bytes())]);
    sequence(&[tlv(0x31, &attribute)])
}

fn pss() -> Vec<u8> {
    let hash = sequence(&[oid("2.16.840.1.101.3.4.2.2"), tlv(0x05, &[])]);
    let mask = sequence(&[oid("1.2.840.113549.1.1.8"), hash.clone()]);
    let parameters = sequence(&[tlv(0xa0, &hash), tlv(0xa1, &mask), tlv(0xa2, &integer(48))]);
    sequence(&[oid("1.2.840.113549.1.1.10"), parameters])
}

fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![oid(id)];
    if critical {
        parts.push(tlv(0x01, &[0xff]));
    }
    parts.push(tlv(0x04, value));
    sequence(&parts)
}

/// An authority with an RSA key.
pub(crate) struct Authority {
    pub(crate) name: &'static str,
    pub(crate) serial: u64,
    key: KeyPair,
}

impl Authority {
    fn new(name: &'static str, serial: u64) -> Self {
        Self {
            name,
            serial,
            key: KeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    fn sign(&self, tbs: Vec<u8>) -> Vec<u8> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA384, &SystemRandom::new(), &tbs, &mut signature)
            .unwrap();
        sequence(&[tbs, pss(), bits(&signature)])
    }

    fn key_info(&self) -> Vec<u8> {
        let algorithm = sequence(&[oid("1.2.840.113549.1.1.1"), tlv(0x05, &[])]);
        sequence(&[algorithm, bits(self.key.public_key().as_ref())])
    }

    /// The certificate of `subject` with the dates given, issued by this authority.
    pub(crate) fn authority_certificate(&self, subject: &Self, from: u64, until: u64) -> Vec<u8> {
        let extensions = [
            extension("2.5.29.19", true, &sequence(&[tlv(0x01, &[0xff])])),
            extension("2.5.29.15", true, &[0x03, 0x02, 0x01, 0x06]),
        ];
        self.issue(
            subject.serial,
            (subject.name, subject.key_info()),
            (from, until),
            &extensions.concat(),
        )
    }

    /// The certificate of `subject` without the mark of an authority.
    pub(crate) fn plain_certificate(&self, subject: &Self) -> Vec<u8> {
        self.issue(
            subject.serial,
            (subject.name, subject.key_info()),
            (NOW - YEAR, NOW + YEAR),
            &extension("2.5.29.15", true, &[0x03, 0x02, 0x01, 0x06]),
        )
    }

    fn issue(
        &self,
        serial: u64,
        (subject, key): (&str, Vec<u8>),
        (from, until): (u64, u64),
        extensions: &[u8],
    ) -> Vec<u8> {
        self.sign(sequence(&[
            tlv(0xa0, &integer(2)),
            integer(serial),
            pss(),
            name(self.name),
            sequence(&[time(from), time(until)]),
            name(subject),
            key,
            tlv(0xa3, &tlv(0x30, extensions)),
        ]))
    }

    /// A revocation list. Each entry is a serial number and, where it is of another
    /// issuer, that one's name.
    pub(crate) fn revocation_list(
        &self,
        entries: &[(u64, Option<&str>)],
        from: u64,
        until: Option<u64>,
    ) -> Vec<u8> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(serial, issuer)| {
                let mut parts = vec![integer(*serial), time(from)];
                if let Some(issuer) = issuer {
                    let names = sequence(&[tlv(0xa4, &name(issuer))]);
                    parts.push(sequence(&[extension("2.5.29.29", true, &names)]));
                }
                sequence(&parts)
            })
            .collect();
        let mut parts = vec![integer(1), pss(), name(self.name), time(from)];
        parts.extend(until.map(time));
        if !entries.is_empty() {
            parts.push(sequence(&entries));
        }
        self.sign(sequence(&parts))
    }
}

/// The vendor.
pub(crate) struct Vendor {
    pub(crate) root: Authority,
    pub(crate) intermediate: Authority,
    pub(crate) chip: SigningKey,
}

/// Two vendors, or one vendor's two product lines.
pub(crate) static VENDOR: LazyLock<Vendor> =
    LazyLock::new(|| Vendor::new("ARK-Test", "SEV-Test", 7));
pub(crate) static OTHER: LazyLock<Vendor> =
    LazyLock::new(|| Vendor::new("ARK-Other", "SEV-Other", 9));

impl Vendor {
    fn new(root: &'static str, intermediate: &'static str, chip: u8) -> Self {
        Self {
            root: Authority::new(root, 0x1_0000),
            intermediate: Authority::new(intermediate, 0x1_0001),
            chip: SigningKey::from_slice(&[chip; 48]).unwrap(),
        }
    }

    pub(crate) fn root_certificate(&self) -> Vec<u8> {
        self.root
            .authority_certificate(&self.root, NOW - 5 * YEAR, NOW + 20 * YEAR)
    }

    pub(crate) fn intermediate_certificate(&self) -> Vec<u8> {
        self.root
            .authority_certificate(&self.intermediate, NOW - 5 * YEAR, NOW + 20 * YEAR)
    }

    /// A verifier that trusts this vendor's root for `product`.
    pub(crate) fn verifier(&self, product: Product) -> SnpVerifier {
        SnpVerifier::with_roots(&[Root {
            product,
            root: &self.root_certificate(),
            intermediate: &self.intermediate_certificate(),
        }])
        .unwrap()
    }

    pub(crate) fn revocation_list(&self) -> Vec<u8> {
        self.root.revocation_list(&[], NOW - 10, Some(NOW + 1000))
    }

    pub(crate) fn leaf(&self, leaf: &Leaf) -> Vec<u8> {
        let mut extensions = vec![
            extension("1.3.6.1.4.1.3704.1.1", false, &integer(0)),
            extension(
                "1.3.6.1.4.1.3704.1.2",
                false,
                &tlv(0x16, leaf.product.as_bytes()),
            ),
        ];
        for (number, value) in &leaf.versions {
            extensions.push(extension(
                &format!("1.3.6.1.4.1.3704.1.3.{number}"),
                false,
                &integer(u64::from(*value)),
            ));
        }
        if let Some(chip) = &leaf.chip {
            extensions.push(extension("1.3.6.1.4.1.3704.1.4", false, chip));
        }
        if let Some(provider) = leaf.provider {
            extensions.push(extension(
                "1.3.6.1.4.1.3704.1.5",
                false,
                &tlv(0x16, provider.as_bytes()),
            ));
        }
        for id in &leaf.unknown_critical {
            extensions.push(extension(id, true, &tlv(0x05, &[])));
        }
        let point = self.chip.verifying_key().to_sec1_point(false);
        let algorithm = sequence(&[oid("1.2.840.10045.2.1"), oid("1.3.132.0.34")]);
        let key = sequence(&[algorithm, bits(point.as_bytes())]);
        self.intermediate.issue(
            leaf.serial,
            ("SEV-VCEK", key),
            (leaf.from, leaf.until),
            &extensions.concat(),
        )
    }

    /// Signs a report as the chip does.
    pub(crate) fn sign(&self, report: &mut [u8; 1184]) {
        let signature: Signature = self.chip.sign(&report[..0x2A0]);
        put_signature(report, &signature);
    }
}

pub(crate) fn put_signature(report: &mut [u8; 1184], signature: &Signature) {
    let (r, s) = signature.split_bytes();
    for (at, scalar) in [(0x2A0, r), (0x2A0 + 72, s)] {
        for (to, from) in report[at..].iter_mut().zip(scalar.iter().rev()) {
            *to = *from;
        }
    }
}

/// What a chip's certificate says.
#[derive(Clone)]
pub(crate) struct Leaf {
    pub(crate) serial: u64,
    pub(crate) product: &'static str,
    pub(crate) versions: Vec<(u8, u8)>,
    pub(crate) chip: Option<Vec<u8>>,
    pub(crate) provider: Option<&'static str>,
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) unknown_critical: Vec<&'static str>,
}

impl Leaf {
    /// A Milan's or Genoa's, fitting [`report`].
    pub(crate) fn milan() -> Self {
        Self {
            serial: 0,
            product: "Milan-B0",
            versions: vec![
                (1, 4),
                (2, 1),
                (3, 20),
                (4, 0),
                (5, 0),
                (6, 0),
                (7, 0),
                (8, 200),
            ],
            chip: Some(vec![0xc5; 64]),
            provider: None,
            from: NOW - YEAR,
            until: NOW + YEAR,
            unknown_critical: Vec::new(),
        }
    }
}

pub(crate) const MEASUREMENT: [u8; 48] = [0x3e; 48];
pub(crate) const MILAN_TCB: [u8; 8] = [4, 1, 0, 0, 0, 0, 20, 200];

/// An unsigned report of version 3 that fits [`Leaf::milan`].
pub(crate) fn report(data: &[u8; 64]) -> [u8; 1184] {
    let mut report = [0; 1184];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x00, &3_u32.to_le_bytes());
    put(0x04, &5_u32.to_le_bytes());
    put(0x08, &0x3_0000_u64.to_le_bytes());
    put(0x10, &[0xfa; 16]);
    put(0x20, &[0x1d; 16]);
    put(0x34, &1_u32.to_le_bytes());
    for tcb in [0x38, 0x180, 0x1E0, 0x1F0] {
        put(tcb, &MILAN_TCB);
    }
    put(0x50, data);
    put(0x90, &MEASUREMENT);
    put(0xE0, &[0xde; 48]);
    put(0x188, &[0x19, 0x01, 0x01]);
    put(0x1A0, &[0xc5; 64]);
    report
}

/// Endorsements with a leaf and a revocation list.
pub(crate) fn endorsements(leaf: &[u8], list: &[u8]) -> Vec<u8> {
    table::encode(&[(EntryKind::Vcek, leaf), (EntryKind::RevocationList, list)]).unwrap()
}
