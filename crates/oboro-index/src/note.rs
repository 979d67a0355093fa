//! Small secrets sealed whole, in one piece: AES-256-GCM-SIV under a key of one purpose.

use crate::IndexError;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use zeroize::Zeroizing;

pub(crate) const NONCE: usize = 12;
pub(crate) const TAG: usize = 16;

/// `content`, sealed, and its tag.
pub(crate) fn seal(
    key: &[u8; 32],
    nonce: [u8; NONCE],
    associated: &[u8],
    content: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + TAG);
    out.extend_from_slice(content);
    let tag = Aes256GcmSiv::new(key.into())
        .encrypt_inout_detached(&Nonce::from(nonce), associated, out.as_mut_slice().into())
        .expect("a note is far below the cipher's limit of 64 GiB");
    out.extend_from_slice(&tag);
    out
}

/// What [`seal`] was given; `name` and `whose` are for the error.
pub(crate) fn open(
    key: &[u8; 32],
    nonce: [u8; NONCE],
    associated: &[u8],
    sealed: &[u8],
    name: &str,
    whose: &'static str,
) -> Result<Zeroizing<Vec<u8>>, IndexError> {
    let foreign = || IndexError::ForeignKey {
        file: name.to_owned(),
        key: whose,
    };
    let length = sealed.len().checked_sub(TAG).ok_or_else(foreign)?;
    let (body, tag) = sealed.split_at(length);
    let tag: [u8; TAG] = tag.try_into().map_err(|_| foreign())?;
    let mut content = Zeroizing::new(body.to_vec());
    Aes256GcmSiv::new(key.into())
        .decrypt_inout_detached(
            &Nonce::from(nonce),
            associated,
            content.as_mut_slice().into(),
            &Tag::from(tag),
        )
        .map_err(|_| foreign())?;
    Ok(content)
}
