//! The digest of how a role is set up: the same program set up otherwise is another.
//!
//! The digest stands in the role's evidence, so a policy can list the set-ups it accepts
//! (`configurations` of an `[[accept]]` entry). It covers settings that decide who learns
//! what, and none that only say where things lie or how fast they go.
//!
//! A searcher's digest covers its policy, and a keeper's covers the keeper's. Two policies
//! that pin each other's configuration can therefore not be made; pin along one direction:
//! the client's policy pins the searcher's configuration, whose policy pins the keeper's.

use std::collections::BTreeMap;

use oboro_attest::Policy;
use oboro_channel::Trust;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::failure::Outcome;
use crate::output;
use crate::policy;

/// Settings of a role, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration(BTreeMap<&'static str, Value>);

impl Configuration {
    /// The settings that both roles have.
    ///
    /// # Errors
    /// If the policy cannot be written as text.
    ///
    /// # Security
    /// Whose certificates are believed is part of it: the key folder lies on the host's
    /// disk, and a host that put an authority of its own there would be owner and client
    /// of a genuine enclave. So is whether there is a revocation list, which the host
    /// could remove.
    pub fn new(
        role: &'static str,
        policy: &Policy,
        lockdown: &str,
        trust: &Trust,
    ) -> Outcome<Self> {
        let authority: [u8; 32] = Sha256::digest(trust.to_pem()).into();
        Ok(Self(BTreeMap::from([
            ("version", Value::from(1)),
            ("role", Value::from(role)),
            ("policy", Value::from(output::hex(&policy::digest(policy)?))),
            ("lockdown", Value::from(lockdown)),
            ("authority", Value::from(output::hex(&authority))),
            (
                "revocation_list",
                Value::from(trust.revocations().is_some()),
            ),
        ])))
    }

    /// The same with one setting more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// The settings as one JSON object without spaces, names in the order of the alphabet.
    #[must_use]
    pub fn canonical(&self) -> String {
        // Values are scalars and lists of them, so nothing below has an order to lose.
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// SHA-256 of [`canonical`](Self::canonical).
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.canonical()).into()
    }

    /// Names and values, for people and `--json`.
    #[must_use]
    pub fn settings(&self) -> &BTreeMap<&'static str, Value> {
        &self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use oboro_channel::Authority;
    use std::sync::OnceLock;
    use std::time::{Duration, SystemTime};

    fn authority() -> &'static Authority {
        static AUTHORITY: OnceLock<Authority> = OnceLock::new();
        AUTHORITY.get_or_init(|| Authority::generate(SystemTime::now()).unwrap())
    }

    fn base(role: &'static str, lockdown: &str) -> Configuration {
        Configuration::new(role, &Policy::default(), lockdown, &authority().trust()).unwrap()
    }

    #[test]
    fn another_owner_or_a_missing_revocation_list_is_another_set_up() {
        let of = |trust: &Trust| {
            let policy = Policy::default();
            let made = Configuration::new("searcher", &policy, "require", trust);
            made.unwrap().digest()
        };
        let now = SystemTime::now();
        let trust = authority().trust();
        let list = |number| {
            let end = now + Duration::from_secs(3_600);
            let list = authority().revocation_list(&[], number, now, end).unwrap();
            trust.with_revocations(&list).unwrap()
        };
        let hosts = Authority::generate(now).unwrap().trust();
        assert_ne!(of(&trust), of(&hosts));
        assert_ne!(of(&trust), of(&list(1)));
        // A newer list is no other set-up.
        assert_eq!(of(&list(1)), of(&list(2)));
        assert_eq!(of(&trust), of(&Trust::from_pem(&trust.to_pem()).unwrap()));
    }

    #[test]
    fn every_setting_changes_the_digest() {
        let others = [
            base("keeper", "best-effort"),
            base("searcher", "best-effort"),
            base("keeper", "off"),
            Configuration::new(
                "keeper",
                &Policy::default().allowing_simulated(),
                "best-effort",
                &authority().trust(),
            )
            .unwrap(),
            base("keeper", "best-effort").with("rate_per_second", 5.0),
            base("keeper", "best-effort").with("rate_per_second", 6.0),
        ];
        let mut digests: Vec<_> = others.iter().map(Configuration::digest).collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 6);
    }

    #[test]
    fn the_text_has_one_form() {
        let one = base("keeper", "off").with("b", 1).with("a", "x");
        let other = base("keeper", "off").with("a", "x").with("b", 1);
        assert_eq!(one.canonical(), other.canonical());
        assert!(one.canonical().starts_with(r#"{"a":"x","authority":""#));
    }
}
