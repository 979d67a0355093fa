//! A quote that Azure's virtual TPM signed.

use super::super::verify::check_quote;
use super::*;
use base64::Engine;

const QUOTE: &[u8] = include_bytes!("../../../tests/fixtures/tpm/azure.quote");
const KEY: &str = include_str!("../../../tests/fixtures/tpm/azure-ak.pem");

fn modulus() -> Vec<u8> {
    let text: String = KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap();
    // The modulus's 256 bytes lie before the exponent, a number of three bytes.
    der[der.len() - 5 - 256..der.len() - 5].to_vec()
}

fn vendor_quote() -> Quote {
    let mut rest = QUOTE;
    let mut part = |unit: usize| {
        let (length, others) = rest.split_first_chunk().unwrap();
        let (part, others) = others.split_at(u64::from_le_bytes(*length) as usize * unit);
        rest = others;
        part.to_vec()
    };
    let (signature, statement, values) = (part(1), part(1), part(32));
    assert!(rest.is_empty());
    let mut public = vec![0x00, 0x01, 0x00, 0x0b, 0, 5, 0, 0x72, 0, 0];
    public.extend([
        0, 0x10, 0, 0x14, 0, 0x0b, 0x08, 0x00, 0, 0, 0, 0, 0x01, 0x00,
    ]);
    public.extend(modulus());
    Quote {
        statement,
        signature: [&[0, 0x14, 0, 0x0b, 0x01, 0x00], signature.as_slice()].concat(),
        public,
        pcrs: PcrValues::new(
            PcrSelection::new(0..24).unwrap(),
            values.as_chunks().0.to_vec(),
        )
        .unwrap(),
    }
}

#[test]
fn the_vendors_quote_holds() {
    let checked = check_quote(&vendor_quote()).unwrap();
    assert_eq!(checked.quoted.extra_data, b"challenge");
    assert_eq!(checked.quoted.selection.count(), 24);
    assert!(checked.quoted.clock_is_safe);
}

#[test]
fn fail_the_vendors_quote_for_other_claims() {
    let quote = vendor_quote();
    let rules = TpmRules {
        pcrs: [(4, vec![*quote.pcrs.value(4).unwrap()])].into(),
        attestation_keys: vec![Sha256::digest(&quote.public).into()],
        ..TpmRules::default()
    };
    let statement = Statement {
        binding: BINDING,
        quote,
    };
    assert_eq!(verify(&statement, &rules), Err(AttestError::Binding));
}

#[test]
fn fail_every_flipped_byte_of_the_vendors_quote() {
    let quote = vendor_quote();
    for position in 0..quote.statement.len() {
        let mut altered = quote.clone();
        altered.statement[position] ^= 1;
        assert!(check_quote(&altered).is_err(), "statement, byte {position}");
    }
    for position in 0..quote.signature.len() {
        let mut altered = quote.clone();
        altered.signature[position] ^= 1;
        assert!(check_quote(&altered).is_err(), "signature, byte {position}");
    }
    for position in 0..24 * 32 {
        let mut values: Vec<[u8; 32]> = quote.pcrs.iter().map(|(_, value)| *value).collect();
        values[position / 32][position % 32] ^= 1;
        let altered = Quote {
            pcrs: PcrValues::new(quote.pcrs.selection(), values).unwrap(),
            ..quote.clone()
        };
        assert!(check_quote(&altered).is_err(), "PCRs, byte {position}");
    }
}
