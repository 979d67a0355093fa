//! The keeper's record of the newest state of an index, written by the owner.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oboro_attest::{AttestedRole, PolicyVerifier};
use oboro_channel::{ConnectOptions, Demand, Role, connect, explain};
use oboro_index::IndexHead;
use oboro_protocol::v1::keeper_client::KeeperClient;
use oboro_protocol::v1::{self};
use oboro_protocol::{Failure as Refusal, Reason};

use super::build;
use crate::failure::{Failure, Kind, Outcome};
use crate::keys::Folder;
use crate::roles;
use crate::with_simulated::WithSimulated;

/// Longest time for connecting, and for the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A keeper that records states.
pub(super) struct Registry {
    address: String,
    keys: PathBuf,
    verifier: Arc<PolicyVerifier>,
}

impl Registry {
    /// What `oboro build` was told; a policy that is missing is said before the work.
    pub(super) fn of(options: &build::Options) -> Outcome<Option<Self>> {
        let Some(address) = &options.keeper else {
            return Ok(None);
        };
        let platforms = WithSimulated::new(options.allow_simulated);
        Ok(Some(Self {
            address: address.clone(),
            keys: options.keys.clone(),
            verifier: options.policy.verifier(&platforms)?,
        }))
    }

    /// Has the keeper record `state` as the newest.
    pub(super) fn register(self, state: &IndexHead) -> Outcome<()> {
        let folder = Folder::of(&self.keys, Role::Owner)?;
        let (identity, trust) = (folder.identity()?, folder.trust()?);
        let request = v1::RegisterRequest {
            state: Some(v1::IndexState {
                index_id: state.index_id.to_vec().into(),
                epoch: state.epoch,
                generation: state.generation,
                manifest_digest: state.manifest_digest.to_vec().into(),
            }),
            // A build is the first state of its index.
            ancestors: Vec::new().into(),
        };
        let options = ConnectOptions {
            timeout: TIMEOUT,
            demand: Some(Demand::new(self.verifier, AttestedRole::Keeper)),
            ..ConnectOptions::default()
        };
        roles::runtime(1)?.block_on(async {
            let connection =
                connect(&self.address, &identity, &trust, Role::Keeper, options).await?;
            let mut keeper = KeeperClient::new(connection.channel);
            let answer = tokio::time::timeout(TIMEOUT, keeper.register(request)).await;
            match answer {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(status)) => Err(refusal(&status)),
                Err(_) => Err(Failure::new(
                    Kind::Unreachable,
                    format_args!("the keeper at {} did not answer in time", self.address),
                )),
            }
        })
    }
}

fn refusal(status: &tonic::Status) -> Failure {
    match Refusal::from_status(status) {
        Some(failure) if failure.reason == Reason::Stale => Failure::refused(format_args!(
            "the keeper knows a newer state of this index: {}",
            failure.message
        )),
        Some(failure) => Failure::refused(format_args!(
            "the keeper does not record the index: {}",
            failure.message
        )),
        None => Failure::new(
            Kind::Unreachable,
            format_args!("the keeper did not answer: {}", explain(status)),
        ),
    }
}
