//! Rules in policy files.

use super::*;
use crate::Policy;

fn policy(entry: &str) -> Result<Policy, AttestError> {
    let text = format!("version = 1\n[[accept]]\nplatform = \"tpm\"\n{entry}");
    Policy::from_toml(&text, std::path::Path::new("."))
}

#[test]
fn policies_are_read_and_written() {
    let key = Key::new();
    let name = crate::hex::encode(&key.name());
    let (five, eight, nine) = ("05".repeat(32), "08".repeat(32), "09".repeat(32));
    let read = policy(&format!(
        "pcrs = {{ 4 = \"{five}\", 7 = [\"{nine}\", \"{eight}\"] }}\nattestation-keys = [\"{name}\"]"
    ))
    .unwrap();
    assert_eq!(read.accept[0].rules, Rules::Tpm(key.rules()));
    let again = Policy::from_toml(&read.to_toml().unwrap(), std::path::Path::new(".")).unwrap();
    assert_eq!(again, read);
}

#[test]
fn fail_rules_that_accept_anything_or_nothing() {
    let value = "05".repeat(32);
    let keys = format!("attestation-keys = [\"{value}\"]");
    let pcr = |text: &str| format!("pcrs = {{ {text} }}\n{keys}");
    for (entry, expected) in [
        (keys.clone(), "pcrs"),
        (pcr(""), "names no PCR"),
        (pcr("4 = []"), "no value for PCR 4"),
        (pcr("4 = \"05\""), "64 hexadecimal digits"),
        (pcr("four = \"05\""), "'four' is no number"),
        (pcr(&format!("24 = \"{value}\"")), "PCR 24"),
        (pcr(&format!("16 = \"{value}\"")), "any program can reset"),
        (pcr(&format!("23 = \"{value}\"")), "any program can reset"),
        (
            pcr(&format!("4 = \"{value}\", 04 = \"{value}\"")),
            "named twice",
        ),
        (
            pcr(&format!("4 = \"{}\"", "00".repeat(32))),
            "nothing measured",
        ),
        (format!("pcrs = {{ 4 = \"{value}\" }}"), "whose quotes"),
        (
            format!("pcrs = {{ 4 = \"{value}\" }}\nroots = [\"root.der\"]"),
            "'revocation-lists' is empty",
        ),
        (
            format!(
                "pcrs = {{ 4 = \"{value}\" }}\nroots = [\"no-such.der\"]\nrevocation = \"unchecked\""
            ),
            "no-such.der",
        ),
        (
            format!("pcrs = {{ 4 = \"{value}\" }}\n{keys}\nrevocation-lists = [\"list.der\"]"),
            "without 'roots'",
        ),
        (
            format!("{}\nmeasurements = []", pcr(&format!("4 = \"{value}\""))),
            "measurements",
        ),
    ] {
        let error = policy(&entry).unwrap_err().to_string();
        assert!(error.contains(expected), "{entry}: {error}");
    }
}
