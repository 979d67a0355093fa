//! Filters by tags on the command line: `any=a,b;all=c;none=d`.

/// Names of tags, by what they are wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FilterNames {
    /// A vector has one of these, if there are some.
    pub(crate) any: Vec<String>,
    /// It has all of these.
    pub(crate) all: Vec<String>,
    /// It has none of these.
    pub(crate) none: Vec<String>,
}

impl std::str::FromStr for FilterNames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (kind, names) = part
                .split_once('=')
                .ok_or_else(|| format!("\"{part}\" is no any=..., all=... or none=..."))?;
            let list = match kind.trim() {
                "any" => &mut filter.any,
                "all" => &mut filter.all,
                "none" => &mut filter.none,
                other => return Err(format!("\"{other}\" is none of any, all and none")),
            };
            let names = names.split(',').map(str::trim);
            list.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        }
        Ok(filter)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_three_lists() {
        let filter: FilterNames = "any=red, green;none=old;".parse().unwrap();
        assert_eq!(filter.any, ["red", "green"]);
        assert!(filter.all.is_empty());
        assert_eq!(filter.none, ["old"]);
        assert_eq!("".parse(), Ok(FilterNames::default()));
        for bad in ["red", "some=red", "any"] {
            assert!(bad.parse::<FilterNames>().is_err(), "{bad}");
        }
    }
}
