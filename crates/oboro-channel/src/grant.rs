//! What a client's certificate allows, and how it says so.

use std::fmt;
use std::fmt::Write;

const DOMAIN: &str = ".grant.oboro.internal";
const ANY: &str = "any";

/// How much a party may do with an index; each level includes those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Nothing: the certificates of searchers and keepers, which ask for no index on
    /// anybody's behalf.
    Nothing,
    /// Search.
    Reader,
    /// Search, and change what is in the index.
    Writer,
    /// Everything; only certificates of the owner.
    Owner,
}

impl Access {
    /// The level in one lower-case word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a certificate allows its holder.
///
/// A client's certificate says it as a second DNS name, such as
/// `reader.any.grant.oboro.internal` or `writer.<index id>.grant.oboro.internal`; a
/// client's certificate without one is a reader of any index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// How much.
    pub access: Access,
    /// With which index; `None` for every index of this owner.
    pub index: Option<[u8; 16]>,
}

impl Grant {
    /// No access to anything.
    pub const NOTHING: Self = Self::any(Access::Nothing);

    /// `access` to every index of this owner.
    #[must_use]
    pub const fn any(access: Access) -> Self {
        Self {
            access,
            index: None,
        }
    }

    /// `access` to one index.
    #[must_use]
    pub const fn index(access: Access, index: [u8; 16]) -> Self {
        Self {
            access,
            index: Some(index),
        }
    }

    /// Whether it allows `wanted` on `index`.
    #[must_use]
    pub fn permits(&self, wanted: Access, index: &[u8; 16]) -> bool {
        self.access > Access::Nothing
            && self.access >= wanted
            && self.index.is_none_or(|granted| granted == *index)
    }

    pub(crate) fn dns_name(&self) -> String {
        let mut name = format!("{}.", self.access);
        match self.index {
            None => name.push_str(ANY),
            Some(index) => index.iter().for_each(|byte| {
                let _ = write!(name, "{byte:02x}");
            }),
        }
        name.push_str(DOMAIN);
        name
    }

    /// The grant of a client's DNS name. Only names exactly as written by
    /// [`dns_name`](Self::dns_name) count, so that one grant has one name.
    pub(crate) fn from_dns_name(name: &str) -> Option<Self> {
        let (access, index) = name.strip_suffix(DOMAIN)?.split_once('.')?;
        let access = [Access::Reader, Access::Writer]
            .into_iter()
            .find(|known| known.name() == access)?;
        let index = match index {
            ANY => None,
            hex => Some(index_of_hex(hex)?),
        };
        Some(Self { access, index })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            _ if self.access == Access::Nothing => formatter.write_str("no access"),
            None => write!(formatter, "{} of every index", self.access),
            Some(index) => {
                write!(formatter, "{} of index ", self.access)?;
                index
                    .iter()
                    .try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }
    }
}

fn index_of_hex(hex: &str) -> Option<[u8; 16]> {
    let digits = hex.as_bytes();
    let lower = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 32 || !digits.iter().all(lower) {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: [u8; 16] = *b"0123456789abcdef";

    #[test]
    fn names_round_trip() {
        for access in [Access::Reader, Access::Writer] {
            for grant in [Grant::any(access), Grant::index(access, INDEX)] {
                assert_eq!(Grant::from_dns_name(&grant.dns_name()), Some(grant));
            }
        }
        assert_eq!(
            Grant::index(Access::Writer, INDEX).dns_name(),
            "writer.30313233343536373839616263646566.grant.oboro.internal"
        );
        assert_eq!(
            Grant::any(Access::Reader).dns_name(),
            "reader.any.grant.oboro.internal"
        );
    }

    #[test]
    fn fail_names_that_grant_nothing() {
        for name in [
            "",
            "any.grant.oboro.internal",
            "reader.grant.oboro.internal",
            "owner.any.grant.oboro.internal",
            "nothing.any.grant.oboro.internal",
            "Reader.any.grant.oboro.internal",
            "reader.any.grant.oboro.internal.example",
            "reader.any.any.grant.oboro.internal",
            "reader.3031.grant.oboro.internal",
            "reader.+0313233343536373839616263646566.grant.oboro.internal",
            "reader.3031323334353637383961626364656F.grant.oboro.internal",
            "reader.303132333435363738396162636465666.grant.oboro.internal",
        ] {
            assert_eq!(Grant::from_dns_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_grant_permits_its_level_and_its_index_only() {
        let other = [7; 16];
        let all = [Access::Reader, Access::Writer, Access::Owner];
        for (held, access) in all.into_iter().enumerate() {
            for (asked, wanted) in all.into_iter().enumerate() {
                assert_eq!(Grant::any(access).permits(wanted, &other), held >= asked);
                let one = Grant::index(access, INDEX);
                assert_eq!(one.permits(wanted, &INDEX), held >= asked);
                assert!(!one.permits(wanted, &other));
            }
        }
        for wanted in [Access::Nothing, Access::Reader] {
            assert!(!Grant::NOTHING.permits(wanted, &INDEX));
        }
    }
}
