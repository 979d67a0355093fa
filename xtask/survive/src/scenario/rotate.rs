//! Two rotations, one after the other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oboro_ckks::{CodebookMasking, EncryptedCodebook, reencrypt};
use oboro_index::{Descriptor, EpochKey, EpochWriter, Index};

use super::fixture::{self, Content, INDEX};
use super::{Durable, Scenario};
use crate::Outcome;

/// From epoch 1 to 3.
pub(super) struct Rotate;

const NUMBER: u8 = 4;
const LAST: u64 = 3;

fn content() -> Content {
    fixture::fresh(500..590)
}

fn open(folder: &Path) -> Outcome<Index> {
    let head = Index::peek(folder.join(INDEX)).map_err(fixture::words)?;
    if head.epoch > LAST {
        return Err(format!("it is at epoch {}", head.epoch));
    }
    let key = fixture::epoch_key(NUMBER, head.epoch);
    fixture::whole(folder, &key, &content())
}

/// What owner and keeper make for the next epoch of an index.
pub(super) struct Next {
    pub(super) key: EpochKey,
    pub(super) descriptor: Vec<u8>,
    pub(super) codebook: EncryptedCodebook,
}

/// A rotation up to the point where the searcher writes.
pub(super) fn next_epoch(index: &Index, number: u8) -> Outcome<Next> {
    let epoch = index.head().epoch;
    let mut rng = fixture::rng(50 + epoch as u8);
    let (from, (to, public)) = (fixture::keeper(epoch).0, fixture::keeper(epoch + 1));
    let codebook = index.codebook().map_err(fixture::words)?;
    let (masked, kept) = CodebookMasking::mask(&codebook, &mut rng);
    let packing = &index.descriptor().packing;
    let masked = reencrypt(&from, &to, packing, &masked, &mut rng).map_err(fixture::words)?;
    let codebook = kept.unmask(masked).map_err(fixture::words)?;
    let key = fixture::owner().descriptor_key();
    let descriptor = Descriptor::from_bytes(&key, index.descriptor_bytes())
        .and_then(|old| old.next_epoch(public, codebook.masks().digest()))
        .map_err(fixture::words)?
        .to_bytes(&key);
    Ok(Next {
        key: fixture::epoch_key(number, epoch + 1),
        descriptor,
        codebook,
    })
}

impl Scenario for Rotate {
    fn name(&self) -> String {
        "rotate".to_owned()
    }

    fn prepare(&self, folder: &Path) -> Outcome<()> {
        fixture::build(folder, NUMBER, &content(), false)
    }

    fn steps(&self) -> usize {
        LAST as usize - 1
    }

    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()> {
        let mut index = open(folder)?;
        while index.head().epoch < LAST {
            let next = next_epoch(&index, NUMBER)?;
            let mut rng = fixture::rng(index.head().epoch as u8);
            index = index
                .begin_epoch(
                    folder.join(INDEX),
                    &next.key,
                    &next.descriptor,
                    &next.codebook,
                    &mut rng,
                )
                .and_then(EpochWriter::commit)
                .map_err(fixture::words)?;
            durable(index.head().epoch as usize - 1)?;
        }
        Ok(())
    }

    fn state(&self, folder: &Path) -> Outcome<usize> {
        Ok(open(folder)?.head().epoch as usize - 1)
    }

    fn settle(&self, folder: &Path) -> Outcome<()> {
        open(folder)?
            .remove_leftovers(folder.join(INDEX))
            .map(drop)
            .map_err(fixture::words)
    }

    fn is_turned_away(&self, said: &str, other: u32) -> Option<bool> {
        // It may also find that the other one was quicker.
        let overtaken = said.contains("holds another state of the index")
            || said.contains("the storage key was derived for epoch");
        Some(overtaken || super::names_the_holder(said, other))
    }

    fn belongs(&self, folder: &Path) -> Outcome<BTreeSet<PathBuf>> {
        Ok(fixture::files(&open(folder)?))
    }
}
