//! Attestation keys with certificates.

use super::*;
use crate::PolicyFile;
use crate::snp::Revocation;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

/// 2.23.133.8.3.
const ATTESTATION_KEY: [u64; 5] = [2, 23, 133, 8, 3];

/// A root and an authority below it.
struct Authority {
    root: Certificate,
    root_issuer: Issuer<'static, rcgen::KeyPair>,
    below: Certificate,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let (root_key, key) = (
            rcgen::KeyPair::generate().unwrap(),
            rcgen::KeyPair::generate().unwrap(),
        );
        let (root_params, params) = (authority("test root"), authority("test authority"));
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let below = params.signed_by(&key, &root_issuer).unwrap();
        Self {
            root,
            root_issuer,
            below,
            issuer: Issuer::new(params, key),
        }
    }

    fn certify(&self, key: &Key, params: CertificateParams) -> Vec<Vec<u8>> {
        let certificate = params.signed_by(&key.certified, &self.issuer).unwrap();
        vec![certificate.der().to_vec(), self.below.der().to_vec()]
    }

    /// Lists of both authorities, with these serial numbers revoked.
    fn lists(&self, revoked: &[u64], until: i32) -> Vec<PolicyFile> {
        [(&self.root_issuer, &[][..]), (&self.issuer, revoked)]
            .map(|(issuer, revoked)| {
                let params = CertificateRevocationListParams {
                    this_update: date_time_ymd(2026, 1, 1),
                    next_update: date_time_ymd(until, 1, 1),
                    crl_number: SerialNumber::from(1),
                    issuing_distribution_point: None,
                    revoked_certs: revoked
                        .iter()
                        .map(|serial| RevokedCertParams {
                            serial_number: SerialNumber::from(*serial),
                            revocation_time: date_time_ymd(2026, 2, 1),
                            reason_code: None,
                            invalidity_date: None,
                        })
                        .collect(),
                    key_identifier_method: KeyIdMethod::Sha256,
                };
                file(params.signed_by(issuer).unwrap().der())
            })
            .to_vec()
    }

    /// Rules that accept the quotes by hand of every key this authority certified.
    fn rules(&self) -> TpmRules {
        TpmRules {
            attestation_keys: vec![],
            roots: vec![file(self.root.der())],
            revocation_lists: self.lists(&[], 2040),
            ..Key::new().rules()
        }
    }
}

fn file(der: &[u8]) -> PolicyFile {
    PolicyFile {
        path: "test.der".to_owned(),
        content: der.to_vec(),
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn attestation_key() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(77));
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2035, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(ATTESTATION_KEY.to_vec())];
    params
}

fn quote(key: &Key) -> Vec<u8> {
    key.quote(&Made::default()).encode().unwrap()
}

fn refused(result: Result<Verified, AttestError>) {
    assert!(
        matches!(result, Err(AttestError::Endorsement(_))),
        "{result:?}"
    );
}

#[test]
fn a_certified_key_is_accepted() {
    let (authority, key) = (Authority::new(), Key::new());
    let certificates = authority.certify(&key, attestation_key());
    let verified = verify_bytes(&quote(&key), &certificates, &authority.rules()).unwrap();
    assert_eq!(verified.remarks.len(), 1);
    // Without lists, where the policy says so, and then it is remarked.
    let rules = TpmRules {
        revocation: Revocation::Unchecked,
        revocation_lists: vec![],
        ..authority.rules()
    };
    let verified = verify_bytes(&quote(&key), &certificates, &rules).unwrap();
    assert!(verified.remarks[1].contains("revoked"));
}

#[test]
fn fail_no_certificate_or_another_keys_or_authoritys() {
    let (authority, key, other) = (Authority::new(), Key::new(), Key::new());
    let rules = authority.rules();
    refused(verify_bytes(&quote(&key), &[], &rules));
    let others = authority.certify(&other, attestation_key());
    refused(verify_bytes(&quote(&key), &others, &rules));
    let elsewhere = Authority::new().certify(&key, attestation_key());
    refused(verify_bytes(&quote(&key), &elsewhere, &rules));
    // The chain without its middle.
    let certificates = authority.certify(&key, attestation_key());
    refused(verify_bytes(&quote(&key), &certificates[..1], &rules));
}

#[test]
fn fail_certificates_for_other_purposes() {
    let (authority, key) = (Authority::new(), Key::new());
    for purposes in [
        vec![],
        vec![ExtendedKeyUsagePurpose::ClientAuth],
        vec![ExtendedKeyUsagePurpose::Any],
    ] {
        let mut params = attestation_key();
        params.extended_key_usages = purposes;
        let certificates = authority.certify(&key, params);
        refused(verify_bytes(
            &quote(&key),
            &certificates,
            &authority.rules(),
        ));
    }
}

#[test]
fn fail_certificates_out_of_date() {
    let (authority, key) = (Authority::new(), Key::new());
    for (from, to) in [(2020, 2026), (2030, 2035)] {
        let mut params = attestation_key();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificates = authority.certify(&key, params);
        refused(verify_bytes(
            &quote(&key),
            &certificates,
            &authority.rules(),
        ));
    }
}

#[test]
fn fail_revoked_and_without_current_lists() {
    let (authority, key) = (Authority::new(), Key::new());
    let certificates = authority.certify(&key, attestation_key());
    let with = |revocation_lists| TpmRules {
        revocation_lists,
        ..authority.rules()
    };
    let (good, elsewhere) = (authority.lists(&[], 2040), Authority::new());
    for lists in [
        authority.lists(&[77], 2040),
        // Expired before the test's time, 2027.
        authority.lists(&[], 2027),
        // One of two lists missing, and those of somebody else.
        good[..1].to_vec(),
        good[1..].to_vec(),
        elsewhere.lists(&[], 2040),
    ] {
        refused(verify_bytes(&quote(&key), &certificates, &with(lists)));
    }
    // No list at all is refused with the policy itself.
    assert!(matches!(
        verify_bytes(&quote(&key), &certificates, &with(vec![])),
        Err(AttestError::Policy(_))
    ));
    // A list that is there counts, wherever it is not required.
    let rules = TpmRules {
        revocation: Revocation::Unchecked,
        ..with(authority.lists(&[77], 2040))
    };
    refused(verify_bytes(&quote(&key), &certificates, &rules));
}

#[test]
fn fail_every_flipped_byte_of_the_certificate() {
    let (authority, key) = (Authority::new(), Key::new());
    let certificates = authority.certify(&key, attestation_key());
    let (rules, statement) = (authority.rules(), quote(&key));
    for position in 0..certificates[0].len() {
        let mut altered = certificates.clone();
        altered[0][position] ^= 0x01;
        assert!(
            verify_bytes(&statement, &altered, &rules).is_err(),
            "byte {position}"
        );
    }
}

#[test]
fn fail_endorsements_cut_short_or_too_many() {
    let (authority, key) = (Authority::new(), Key::new());
    let certificates = authority.certify(&key, attestation_key());
    let bytes = endorsements::encode(&certificates).unwrap();
    let rules = Rules::Tpm(authority.rules());
    let statement = quote(&key);
    for length in 0..bytes.len() {
        assert!(
            TpmVerifier
                .verify(&statement, &bytes[..length], &rules, NOW)
                .is_err()
        );
    }
    assert!(endorsements::encode(&vec![vec![0]; 5]).is_err());
    assert!(endorsements::encode(&[vec![0; 9_000]]).is_err());
    for bytes in [[1, 0, 0, 0, 7].repeat(5), vec![0xff; 8]] {
        assert!(matches!(
            endorsements::decode(&bytes),
            Err(AttestError::Malformed(_))
        ));
    }
}
