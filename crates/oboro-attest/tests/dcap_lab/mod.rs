//! A vendor in miniature: root, authorities, a platform, quotes and collateral, all with
//! keys of the test's own, so that correctly signed evidence can say anything.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// 2027-01-15.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) const FMSPC: [u8; 6] = [0x90, 0xc0, 0x6f, 0, 0, 0];
const QE_SIGNER: [u8; 32] = [0xdc; 32];

/// First and last day of January 2027.
pub(crate) type Days = (u8, u8);

/// What can be wrong with the vendor's side.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) revoked: Option<Revoked>,
    pub(crate) root_list: Days,
    pub(crate) platform_list: Days,
    pub(crate) platform_certificate: Days,
    pub(crate) platform_authority: Days,
    pub(crate) signer: Days,
    /// Dynamic platform, cached keys, multithreading.
    pub(crate) flags: Option<[bool; 3]>,
    pub(crate) tcb_info: Value,
    pub(crate) qe_identity: Value,
    pub(crate) qe_report: Vec<u8>,
}

#[derive(Clone, Copy)]
pub(crate) enum Revoked {
    Platform,
    Authority,
    Signer,
}

impl Setup {
    pub(crate) fn tdx() -> Self {
        let mut tcb_info = tcb_info("TDX");
        let levels = |status: &str| json!([{"tcb": {"isvsvn": 5}, "tcbDate": "2026-12-01T00:00:00Z", "tcbStatus": status}]);
        let module = json!({
            "mrsigner": "00".repeat(48), "attributes": "00".repeat(8),
            "attributesMask": "ff".repeat(8),
        });
        let mut identity = module.clone();
        identity["id"] = "TDX_03".into();
        identity["tcbLevels"] = levels("UpToDate");
        tcb_info["tdxModule"] = module;
        tcb_info["tdxModuleIdentities"] = json!([identity]);
        Self::new(tcb_info, qe_identity("TD_QE"))
    }

    pub(crate) fn sgx() -> Self {
        Self::new(tcb_info("SGX"), qe_identity("QE"))
    }

    fn new(tcb_info: Value, qe_identity: Value) -> Self {
        let days = (10, 20);
        Self {
            revoked: None,
            root_list: days,
            platform_list: days,
            platform_certificate: days,
            platform_authority: days,
            signer: days,
            flags: Some([false; 3]),
            tcb_info,
            qe_identity,
            qe_report: qe_report(),
        }
    }
}

fn tcb_info(id: &str) -> Value {
    let components = |svn: u8| vec![json!({"svn": svn}); 16];
    json!({
        "id": id, "version": 3, "issueDate": "2027-01-10T00:00:00Z",
        "nextUpdate": "2027-01-20T00:00:00Z", "fmspc": hex::encode(FMSPC), "pceId": "0000",
        "tcbType": 0, "tcbEvaluationDataNumber": 20,
        "tcbLevels": [
            {
                "tcb": {"sgxtcbcomponents": components(4), "tdxtcbcomponents": components(4), "pcesvn": 11},
                "tcbDate": "2026-12-01T00:00:00Z", "tcbStatus": "UpToDate",
            },
            {
                "tcb": {"sgxtcbcomponents": components(1), "tdxtcbcomponents": components(1), "pcesvn": 5},
                "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "OutOfDate",
                "advisoryIDs": ["INTEL-SA-01036"],
            },
        ],
    })
}

fn qe_identity(id: &str) -> Value {
    json!({
        "id": id, "version": 2, "issueDate": "2027-01-10T00:00:00Z",
        "nextUpdate": "2027-01-20T00:00:00Z", "tcbEvaluationDataNumber": 20,
        "miscselect": "00000000", "miscselectMask": "ffffffff",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "fbffffffffffffff0000000000000000",
        "mrsigner": hex::encode(QE_SIGNER), "isvprodid": 2,
        "tcbLevels": [
            {"tcb": {"isvsvn": 4}, "tcbDate": "2026-12-01T00:00:00Z", "tcbStatus": "UpToDate"},
            {"tcb": {"isvsvn": 2}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "OutOfDate"},
        ],
    })
}

/// The report of the quoting enclave, without its data.
fn qe_report() -> Vec<u8> {
    let mut report = vec![0; 384];
    report[48] = 0x11;
    report[128..160].copy_from_slice(&QE_SIGNER);
    report[256] = 2;
    report[258] = 4;
    report
}

/// A report of a domain; types as in version 5 quotes.
pub(crate) fn domain_report(kind: u16) -> Vec<u8> {
    let mut report = vec![
        0;
        match kind {
            2 => 584,
            3 => 648,
            _ => 885,
        }
    ];
    report[..16].fill(4);
    report[0] = 5;
    report[1] = 3;
    report[123] = 0x10;
    report[128] = 0xe7;
    report[136..184].fill(0x77);
    report[520..584].fill(0xd7);
    if kind > 2 {
        let (launch, current) = report.split_at_mut(584);
        current[..16].copy_from_slice(&launch[..16]);
    }
    report
}

/// A report of an enclave.
pub(crate) fn enclave_report() -> Vec<u8> {
    let mut report = vec![0; 384];
    report[48] = 0x05;
    report[64..96].fill(0x77);
    report[128..160].fill(0x88);
    report[256] = 9;
    report[258] = 7;
    report[320..384].fill(0xd7);
    report
}

pub(crate) struct Lab {
    pub(crate) root: Vec<u8>,
    pub(crate) chain: String,
    pub(crate) collateral: Value,
    platform_key: EcdsaKeyPair,
    attestation_key: EcdsaKeyPair,
    qe_report: Vec<u8>,
}

impl Lab {
    pub(crate) fn new(setup: &Setup) -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (root_key, authority_key, platform_key, signer_key) = (key(), key(), key(), key());
        let root_params = authority("Test Root CA", (1, 31));
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, &root_key);
        let authority_params = authority("Test PCK Platform CA", setup.platform_authority);
        let platform_authority = authority_params
            .signed_by(&authority_key, &root_issuer)
            .unwrap();
        let authority_issuer = Issuer::new(authority_params, &authority_key);
        let mut platform = leaf("Test PCK Certificate", setup.platform_certificate);
        platform.custom_extensions = vec![CustomExtension::from_oid_content(
            &[1, 2, 840, 113741, 1, 13, 1],
            platform_extension(setup.flags),
        )];
        let platform = platform
            .signed_by(&platform_key, &authority_issuer)
            .unwrap();
        let signer = leaf("Test TCB Signing", setup.signer)
            .signed_by(&signer_key, &root_issuer)
            .unwrap();

        let of_root = match setup.revoked {
            Some(Revoked::Authority) => Some(serial("Test PCK Platform CA")),
            Some(Revoked::Signer) => Some(serial("Test TCB Signing")),
            _ => None,
        };
        let of_authority = match setup.revoked {
            Some(Revoked::Platform) => Some(serial("Test PCK Certificate")),
            _ => None,
        };
        let root_list = list(setup.root_list, of_root, &root_issuer);
        let platform_list = list(setup.platform_list, of_authority, &authority_issuer);

        let signer_key = raw(&signer_key);
        let signed = |document: &Value| {
            let text = document.to_string();
            let signature = hex::encode(sign(&signer_key, text.as_bytes()));
            (text, signature)
        };
        let (tcb_info, tcb_info_signature) = signed(&setup.tcb_info);
        let (qe_identity, qe_identity_signature) = signed(&setup.qe_identity);
        let issuer_chain = signer.pem() + &root.pem();
        Self {
            root: root.der().to_vec(),
            chain: platform.pem() + &platform_authority.pem() + &root.pem(),
            collateral: json!({
                "pck_crl_issuer_chain": platform_authority.pem() + &root.pem(),
                "root_ca_crl": hex::encode(root_list),
                "pck_crl": hex::encode(platform_list),
                "tcb_info_issuer_chain": issuer_chain,
                "tcb_info": tcb_info,
                "tcb_info_signature": tcb_info_signature,
                "qe_identity_issuer_chain": issuer_chain,
                "qe_identity": qe_identity,
                "qe_identity_signature": qe_identity_signature,
            }),
            platform_key: raw(&platform_key),
            attestation_key: raw(&key()),
            qe_report: setup.qe_report.clone(),
        }
    }

    /// Version 4, type 2 only.
    pub(crate) fn domain_quote_4(&self, report: &[u8]) -> Vec<u8> {
        self.sign_quote([&header(4, 0x81), report].concat(), &self.chain, true)
    }

    /// Version 5.
    pub(crate) fn domain_quote_5(&self, kind: u16, report: &[u8]) -> Vec<u8> {
        let body = [
            &header(5, 0x81),
            &kind.to_le_bytes()[..],
            &(report.len() as u32).to_le_bytes(),
            report,
        ]
        .concat();
        self.sign_quote(body, &self.chain, true)
    }

    pub(crate) fn enclave_quote(&self, report: &[u8]) -> Vec<u8> {
        self.sign_quote([&header(3, 0), report].concat(), &self.chain, false)
    }

    /// With another text of certificates.
    pub(crate) fn enclave_quote_with_chain(&self, report: &[u8], chain: &str) -> Vec<u8> {
        self.sign_quote([&header(3, 0), report].concat(), chain, false)
    }

    fn sign_quote(&self, body: Vec<u8>, chain: &str, nested: bool) -> Vec<u8> {
        let key = &self.attestation_key.public_key().as_ref()[1..];
        let authentication = [0x33; 32];
        let mut qe_report = self.qe_report.clone();
        if qe_report[320..] == [0; 64] {
            let hash = Sha256::digest([key, &authentication].concat());
            qe_report[320..352].copy_from_slice(&hash);
        }
        let enclave = [
            &qe_report[..],
            &sign(&self.platform_key, &qe_report),
            &32u16.to_le_bytes(),
            &authentication,
            &block(5, chain.as_bytes()),
        ]
        .concat();
        let signature = [
            &sign(&self.attestation_key, &body)[..],
            key,
            &if nested { block(6, &enclave) } else { enclave },
        ]
        .concat();
        [
            &body,
            &(signature.len() as u32).to_le_bytes()[..],
            &signature,
        ]
        .concat()
    }

    pub(crate) fn collateral(&self) -> Vec<u8> {
        self.collateral.to_string().into_bytes()
    }
}

fn authority(name: &str, days: Days) -> CertificateParams {
    let mut params = named(name, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(name: &str, days: Days) -> CertificateParams {
    let mut params = named(name, days);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn named(name: &str, days: Days) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2027, 1, days.0);
    params.not_after = date_time_ymd(2027, 1, days.1);
    params.serial_number = Some(serial(name));
    params
}

fn serial(name: &str) -> SerialNumber {
    SerialNumber::from(1_000 + name.len() as u64)
}

fn list(days: Days, revoked: Option<SerialNumber>, issuer: &Issuer<'_, &KeyPair>) -> Vec<u8> {
    CertificateRevocationListParams {
        this_update: date_time_ymd(2027, 1, days.0),
        next_update: date_time_ymd(2027, 1, days.1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked
            .into_iter()
            .map(|serial_number| RevokedCertParams {
                serial_number,
                revocation_time: date_time_ymd(2027, 1, 12),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(issuer)
    .unwrap()
    .der()
    .to_vec()
}

/// The extension that says which platform a certificate is for.
fn platform_extension(flags: Option<[bool; 3]>) -> Vec<u8> {
    let entry = |path: &[u8], value: Vec<u8>| {
        let oid = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 13, 1], path].concat();
        tlv(0x30, &[tlv(6, &oid), value].concat())
    };
    let mut entries = vec![
        entry(&[1], tlv(4, &[0xab; 16])),
        entry(
            &[2],
            tlv(
                0x30,
                &[
                    entry(&[2, 17], tlv(2, &[13])),
                    entry(&[2, 18], tlv(4, &[6; 16])),
                ]
                .concat(),
            ),
        ),
        entry(&[3], tlv(4, &[0, 0])),
        entry(&[4], tlv(4, &FMSPC)),
        entry(&[5], tlv(10, &[1])),
    ];
    if let Some(flags) = flags {
        let flags: Vec<u8> = (1u8..)
            .zip(flags)
            .flat_map(|(number, flag)| entry(&[7, number], tlv(1, &[if flag { 0xff } else { 0 }])))
            .collect();
        entries.push(entry(&[7], tlv(0x30, &flags)));
    }
    tlv(0x30, &entries.concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ 0..128 => vec![short as u8],
        middle @ 128..256 => vec![0x81, middle as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag], &length[..], content].concat()
}

fn header(version: u16, technology: u32) -> Vec<u8> {
    let vendor = hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap();
    [
        &version.to_le_bytes()[..],
        &2u16.to_le_bytes(),
        &technology.to_le_bytes(),
        &[0; 4],
        &vendor,
        &[0; 20],
    ]
    .concat()
}

fn block(kind: u16, content: &[u8]) -> Vec<u8> {
    [
        &kind.to_le_bytes()[..],
        &(content.len() as u32).to_le_bytes(),
        content,
    ]
    .concat()
}

fn raw(key: &KeyPair) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der()).unwrap()
}

fn sign(key: &EcdsaKeyPair, data: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), data)
        .unwrap()
        .as_ref()
        .to_vec()
}
