//! The pinned certificates.
#![allow(clippy::unwrap_used)]

use super::certificate::Certificate;
use super::{AMD_ROOTS, Product, Tcb};
use crate::hex;
use sha2::{Digest, Sha256};

const TURIN_VCEK: &[u8] = include_bytes!("../../tests/fixtures/snp/turin.vcek.der");
const MILAN_VCEK: &[u8] = include_bytes!("../../tests/fixtures/snp/milan.vcek.der");

/// June 2025.
const NOW: u64 = 1_750_000_000;

#[test]
fn the_roots_are_amds() {
    let fingerprints = AMD_ROOTS.map(|root| hex::encode(&Sha256::digest(root.root)));
    assert_eq!(
        fingerprints,
        [
            "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
            "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
            "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        ]
    );
}

#[test]
fn each_root_signs_itself_and_its_authority_and_no_others() {
    for root in &AMD_ROOTS {
        let certificate = Certificate::parse(root.root).unwrap();
        assert_eq!(certificate.name, format!("ARK-{}", root.product.name()));
        certificate.check_issued_by(&certificate).unwrap();
        certificate.check_authority().unwrap();
        for other in &AMD_ROOTS {
            let authority = Certificate::parse(other.intermediate).unwrap();
            assert_eq!(
                authority.check_issued_by(&certificate).is_ok(),
                root.product == other.product
            );
            authority.check_authority().unwrap();
            authority.check_dates(NOW).unwrap();
        }
    }
}

#[test]
fn a_turins_certificate_leads_to_turins_root_only() {
    let leaf = Certificate::parse(TURIN_VCEK).unwrap();
    for root in &AMD_ROOTS {
        let authority = Certificate::parse(root.intermediate).unwrap();
        assert_eq!(
            leaf.check_issued_by(&authority).is_ok(),
            root.product == Product::Turin
        );
    }
    leaf.check_dates(NOW).unwrap();
    leaf.check_critical(&[]).unwrap();
    assert_eq!(leaf.product_name().unwrap(), "Turin");
    assert!(leaf.p384_key().is_ok());
    assert_eq!(leaf.provider_id(), None);
    let chip = leaf.hardware_id(Product::Turin).unwrap();
    assert!(chip[..8] != [0; 8] && chip[8..] == [0; 56]);
    assert!(leaf.hardware_id(Product::Milan).is_err());
    assert!(leaf.tcb(Product::Turin).is_ok());
}

#[test]
fn a_milans_certificate_states_its_tcb() {
    let leaf = Certificate::parse(MILAN_VCEK).unwrap();
    assert_eq!(leaf.product_name().unwrap(), "Milan-B0");
    assert_eq!(
        leaf.tcb(Product::Milan).unwrap(),
        Tcb {
            fmc: 0,
            bootloader: 3,
            tee: 0,
            snp: 8,
            microcode: 115
        }
    );
    assert!(leaf.tcb(Product::Turin).is_err());
    assert!(leaf.check_authority().is_err());
}
