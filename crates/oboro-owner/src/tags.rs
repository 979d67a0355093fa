//! Names of tags and their bits.

use oboro_index::descriptor::MAX_TAGS;
use oboro_index::{Descriptor, DescriptorKey};

use crate::{BuildOptions, OwnerError, VectorSource};

/// The bit of each name, where the index has it.
pub(crate) fn bits(
    descriptor: &Descriptor,
    key: &DescriptorKey,
    names: &[String],
) -> Vec<Option<u32>> {
    names
        .iter()
        .map(|name| descriptor.tag_bit(key, name))
        .collect()
}

/// The set of tags given as places in a list of `bits`; `None` where one has no bit.
pub(crate) fn set(tags: &[u32], bits: &[Option<u32>]) -> Option<u64> {
    tags.iter().try_fold(0, |set, &place| {
        let bit = (*bits.get(place as usize)?)?;
        Some(set | 1 << bit)
    })
}

/// The tags of a new index: what stands for each name, in an order that tells nothing of
/// the names, since the searcher sees it.
fn hashes_of(names: &[String], index_id: &[u8; 16], key: &DescriptorKey) -> Vec<[u8; 8]> {
    let mut hashes: Vec<[u8; 8]> = names
        .iter()
        .map(|name| key.tag_hash(index_id, name))
        .collect();
    hashes.sort_unstable();
    hashes
}

/// The tags of a new index.
pub(crate) struct NewTags {
    /// What the descriptor has.
    pub(crate) hashes: Vec<[u8; 8]>,
    /// The bit of each name that the source uses.
    pub(crate) bits: Vec<Option<u32>>,
}

impl NewTags {
    pub(crate) fn choose(
        source: &dyn VectorSource,
        index_id: &[u8; 16],
        key: &DescriptorKey,
        options: &BuildOptions,
    ) -> Result<Self, OwnerError> {
        let used = source.tag_names();
        let names = options.tags.as_deref().unwrap_or(used);
        if names.len() > MAX_TAGS {
            return Err(OwnerError::TooManyTags {
                tags: names.len(),
                maximum: MAX_TAGS,
            });
        }
        let hashes = hashes_of(names, index_id, key);
        let bits = used
            .iter()
            .map(|name| {
                let hash = key.tag_hash(index_id, name);
                hashes.iter().position(|&h| h == hash).map(|bit| bit as u32)
            })
            .collect();
        Ok(Self { hashes, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_bits_of_known_tags() {
        let bits = [Some(3), None, Some(63)];
        assert_eq!(set(&[], &bits), Some(0));
        assert_eq!(set(&[0, 2, 0], &bits), Some(8 | 1 << 63));
        assert_eq!(set(&[0, 1], &bits), None);
        assert_eq!(set(&[3], &bits), None);
    }
}
