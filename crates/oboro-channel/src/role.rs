//! Roles, and how a certificate names them.

use std::fmt;

/// What a party is; the only thing its certificate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Creates indexes and issues identities.
    Owner,
    /// Searches.
    Client,
    /// Holds codes and encrypted codebook, never a decryption key.
    Searcher,
    /// Holds the decryption key, sees masked values only.
    Keeper,
    /// Builds one index for its owner, seeing all of it, and forgets.
    Generator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [
        Self::Owner,
        Self::Client,
        Self::Searcher,
        Self::Keeper,
        Self::Generator,
    ];

    /// The role in one lower-case word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Client => "client",
            Self::Searcher => "searcher",
            Self::Keeper => "keeper",
            Self::Generator => "generator",
        }
    }

    /// The role of a word made by [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// The DNS name in the certificate, such as `keeper.oboro.internal`.
    #[must_use]
    pub const fn dns_name(self) -> &'static str {
        match self {
            Self::Owner => "owner.oboro.internal",
            Self::Client => "client.oboro.internal",
            Self::Searcher => "searcher.oboro.internal",
            Self::Keeper => "keeper.oboro.internal",
            Self::Generator => "generator.oboro.internal",
        }
    }

    pub(crate) fn from_dns_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.dns_name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
            assert_eq!(Role::from_dns_name(role.dns_name()), Some(role));
            assert_eq!(role.dns_name(), format!("{}.oboro.internal", role.name()));
        }
        assert_eq!(Role::from_name("host"), None);
        assert_eq!(Role::from_dns_name("keeper.example.org"), None);
    }
}
