//! The owner changes the decryption key of an index while clients search.
//!
//! 1. The keeper makes a new key pair beside the present one (`NewKey`).
//! 2. The searcher masks its codebook, the keeper re-encrypts it, the searcher takes
//!    the mask off (`BeginRotation`). Nobody sees a centroid.
//! 3. The owner describes the new epoch and authenticates it (`CommitRotation`). The
//!    searcher writes it, registers it, and serves it beside the old epoch.
//! 4. After the overlap the old key may be forgotten (`RetireKey`).
//!
//! A rotation that stops before step 3 has changed nothing but the number of keys that
//! the keeper holds: begin again. When the answer of step 3 is lost, the searcher is
//! asked which epoch it serves.

use std::{sync::Arc, time::Duration};

use oboro_attest::{Appraisal, Verifier, key_set_digest};
use oboro_channel::{Identity, Role, Trust};
use oboro_ckks::PublicKey;
use oboro_index::{Descriptor, DescriptorKey};
use oboro_protocol::{
    limits,
    v1::{self, keeper_client::KeeperClient, searcher_client::SearcherClient},
    validate,
};
use tonic::transport::Channel;

use crate::{
    ClientError,
    transport::{Peer, check_version, describe, within},
};

/// What the owner needs to rotate the key of an index.
pub struct OwnerConfig {
    /// The searcher's `host:port`.
    pub searcher: String,
    /// The keeper's `host:port`.
    pub keeper: String,
    /// The owner's TLS identity.
    pub identity: Identity,
    /// The owner's authority.
    pub trust: Trust,
    /// Authenticates descriptors.
    pub descriptor_key: DescriptorKey,
    /// Appraises the evidence of searcher and keeper.
    pub verifier: Arc<dyn Verifier>,
    /// Longest time for connecting.
    pub connect_timeout: Duration,
}

/// What a rotation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationReport {
    /// The index.
    pub index_id: [u8; 16],
    /// The epoch before.
    pub from_epoch: u64,
    /// The epoch that is served now.
    pub epoch: u64,
    /// Fingerprint of the key before.
    pub from_fingerprint: [u8; 32],
    /// Fingerprint of the key now.
    pub fingerprint: [u8; 32],
    /// For how long the epoch before is still served.
    pub overlap: Duration,
    /// Searcher or keeper run on the simulated platform, which protects nothing.
    pub simulated: bool,
    /// What the policy accepted and people should know all the same.
    pub remarks: Vec<String>,
}

/// Connections of the owner to the searcher and the keeper of one index, both of which
/// have proved what they are.
pub struct OwnerSession {
    config: OwnerConfig,
    searcher: SearcherClient<Channel>,
    keeper: KeeperClient<Channel>,
    descriptor: Descriptor,
    /// Fingerprints of the keys that the keeper holds.
    keys: Vec<[u8; 32]>,
    simulated: bool,
    remarks: Vec<String>,
}

impl OwnerSession {
    /// Connects to both, appraises their evidence, checks the descriptor of the index
    /// and that the keeper holds its key.
    ///
    /// # Errors
    /// When one cannot be reached or does not prove what it must, the descriptor is not
    /// the owner's, or the keeper holds another key.
    pub async fn connect(config: OwnerConfig) -> Result<Self, ClientError> {
        let (searcher, descriptor, searcher_is) = config.described().await?;
        let (mut keeper, keeper_is) = config.peer(&config.keeper).keeper().await?;
        keeper = keeper.max_decoding_message_size(limits::MAX_QUERY_MESSAGE_BYTES);
        let keys = keys(&mut keeper, &keeper_is, config.connect_timeout).await?;
        if !keys.contains(&descriptor.public_key_fingerprint()) {
            return Err(ClientError::ForeignKeeper);
        }
        let mut remarks = searcher_is.remarks.clone();
        remarks.extend(keeper_is.remarks.iter().cloned());
        remarks.dedup();
        Ok(Self {
            simulated: searcher_is.is_simulated() || keeper_is.is_simulated(),
            config,
            searcher,
            keeper,
            descriptor,
            keys,
            remarks,
        })
    }

    /// The descriptor of the epoch served now.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Fingerprints of all keys that the keeper holds, those of other indexes and of
    /// rotations that were never committed included.
    #[must_use]
    pub fn held_keys(&self) -> &[[u8; 32]] {
        &self.keys
    }

    /// Gives the index a new key. The epoch before is served for `overlap` more, so that
    /// clients move over in their own time.
    ///
    /// # Errors
    /// When the keeper or the searcher refuses or cannot be reached. Nothing has changed
    /// then that a second call would not mend.
    pub async fn rotate(&mut self, overlap: Duration) -> Result<RotationReport, ClientError> {
        let present = self.descriptor.clone();
        let key = self.new_key(&present).await?;
        let index_id = bytes::Bytes::copy_from_slice(&present.index_id);
        let begun = within(
            limits::MAX_REQUEST_TIME,
            self.searcher.begin_rotation(v1::BeginRotationRequest {
                index_id,
                epoch: present.epoch,
                public_key: key.to_bytes().into(),
            }),
        )
        .await?;
        let described = Descriptor::from_bytes(&self.config.descriptor_key, &begun.descriptor)
            .map_err(|error| ClientError::Descriptor(error.to_string()))?;
        if described.index_id != present.index_id || described.epoch != present.epoch {
            return Err(ClientError::Reply(
                "the searcher began to rotate another epoch than the one it serves".to_owned(),
            ));
        }
        let digest = validate::digest(&begun.codebook_digest, "digest of the codebook")
            .map_err(|failure| ClientError::Reply(failure.message))?;
        let fingerprint = key.fingerprint();
        self.keys.push(fingerprint);
        let next = described
            .next_epoch(key, digest)
            .map_err(|error| ClientError::Descriptor(error.to_string()))?;
        self.commit(&next, overlap).await?;
        self.descriptor = next;
        Ok(RotationReport {
            index_id: present.index_id,
            from_epoch: present.epoch,
            epoch: self.descriptor.epoch,
            from_fingerprint: present.public_key_fingerprint(),
            fingerprint,
            overlap,
            simulated: self.simulated,
            remarks: self.remarks.clone(),
        })
    }

    /// Has the keeper forget a key for ever. What is encrypted under it only, such as an
    /// older copy of the index, is lost with it.
    ///
    /// # Errors
    /// When the keeper refuses or cannot be reached, and for the key that the index is
    /// encrypted under now.
    pub async fn retire(&mut self, fingerprint: &[u8; 32]) -> Result<(), ClientError> {
        if *fingerprint == self.descriptor.public_key_fingerprint() {
            return Err(ClientError::KeyInUse);
        }
        let request = v1::RetireKeyRequest {
            fingerprint: fingerprint.to_vec().into(),
        };
        within(limits::PREPARE_DEADLINE, self.keeper.retire_key(request)).await?;
        self.keys.retain(|key| key != fingerprint);
        Ok(())
    }

    async fn new_key(&mut self, present: &Descriptor) -> Result<PublicKey, ClientError> {
        let set = present.packing.set();
        let request = v1::NewKeyRequest {
            parameter_set: set.name().to_owned(),
            index_id: present.index_id.to_vec().into(),
            from_fingerprint: present.public_key_fingerprint().to_vec().into(),
        };
        let reply = within(limits::PREPARE_DEADLINE, self.keeper.new_key(request)).await?;
        let key = PublicKey::from_bytes(&reply.public_key)
            .map_err(|error| ClientError::Reply(error.to_string()))?;
        if key.parameter_set() == set {
            Ok(key)
        } else {
            Err(ClientError::Reply(format!(
                "the keeper made a key of the set {} where {} was asked for",
                key.parameter_set().name(),
                set.name()
            )))
        }
    }

    async fn commit(&mut self, next: &Descriptor, overlap: Duration) -> Result<(), ClientError> {
        let descriptor = next.to_bytes(&self.config.descriptor_key);
        let request = v1::CommitRotationRequest {
            descriptor: descriptor.into(),
            overlap_seconds: u32::try_from(overlap.as_secs()).unwrap_or(u32::MAX),
        };
        let limit = limits::MAX_REQUEST_TIME;
        let Err(error) = within(limit, self.searcher.commit_rotation(request)).await else {
            return Ok(());
        };
        // The answer may be lost and not the commit; or the searcher serves the new
        // epoch and could not tell the keeper yet.
        let Ok((searcher, served, _)) = self.config.described().await else {
            return Err(error);
        };
        self.searcher = searcher;
        let (served, due) = (
            (served.epoch, served.public_key_fingerprint()),
            (next.epoch, next.public_key_fingerprint()),
        );
        if served != due {
            return Err(error);
        }
        if let ClientError::Refused { message, .. } = error {
            self.remarks.push(message);
        }
        Ok(())
    }
}

/// Rotates the key of an index; with `retire` waits until the overlap is over and has
/// the keeper forget the key before.
///
/// # Errors
/// As [`OwnerSession::connect`], [`OwnerSession::rotate`] and [`OwnerSession::retire`].
pub async fn rotate(
    config: OwnerConfig,
    overlap: Duration,
    retire: bool,
) -> Result<RotationReport, ClientError> {
    let mut session = OwnerSession::connect(config).await?;
    let report = session.rotate(overlap).await?;
    if retire {
        tokio::time::sleep(overlap).await;
        session.retire(&report.from_fingerprint).await?;
    }
    Ok(report)
}

impl OwnerConfig {
    fn peer<'a>(&'a self, address: &'a str) -> Peer<'a> {
        Peer {
            address,
            identity: &self.identity,
            trust: &self.trust,
            verifier: &self.verifier,
            timeout: self.connect_timeout,
        }
    }

    /// A connection to the searcher and what it serves.
    async fn described(
        &self,
    ) -> Result<(SearcherClient<Channel>, Descriptor, Arc<Appraisal>), ClientError> {
        let (mut searcher, appraisal) = self.peer(&self.searcher).searcher().await?;
        let (descriptor, _) = describe(
            &mut searcher,
            &appraisal,
            &self.descriptor_key,
            self.connect_timeout,
        )
        .await?;
        Ok((searcher, descriptor, appraisal))
    }
}

/// Fingerprints of the keys a keeper holds, which its evidence must name.
pub(crate) async fn keys(
    keeper: &mut KeeperClient<Channel>,
    appraisal: &Appraisal,
    timeout: Duration,
) -> Result<Vec<[u8; 32]>, ClientError> {
    let description = within(timeout, keeper.describe(v1::DescribeRequest {})).await?;
    check_version(description.protocol_version, Role::Keeper)?;
    let keys = description
        .public_keys
        .iter()
        .map(|key| PublicKey::from_bytes(key).map(|key| key.fingerprint()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ClientError::Reply(error.to_string()))?;
    if appraisal.claims.subject.ckks_keys == key_set_digest(&keys) {
        Ok(keys)
    } else {
        Err(ClientError::Untrusted {
            role: Role::Keeper,
            cause: "its evidence names other decryption keys than it says to hold".to_owned(),
        })
    }
}
