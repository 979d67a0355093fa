//! A keeper whose state is put back, found out by the counter of a real software TPM.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../oboro-tpm/tests/swtpm/mod.rs"]
mod swtpm;

use common::{Home, refusal, register, release, state};
use oboro_channel::Role;
use oboro_ckks::ParameterSet;
use oboro_keeper::KeeperError;
use oboro_protocol::{Reason, v1};
use oboro_tpm::{CounterAuth, MonotonicCounter, NvCounter};
use std::sync::Arc;
use swtpm::Swtpm;

fn counter(machine: &Swtpm) -> Arc<dyn MonotonicCounter> {
    let auth = CounterAuth::default();
    Arc::new(NvCounter::open(machine.open(), NvCounter::DEFAULT_INDEX, auth).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn fail_a_keeper_rolled_back() {
    let Some(mut machine) = Swtpm::start() else {
        return;
    };
    let home = Home::new(ParameterSet::N2048Q50);
    let file = home.directory().join("keeper.state");
    let keeper = home.serve(Some(counter(&machine)), |_| ()).await;
    assert!(keeper.server.protection().contains("0x01804f42"));
    let mut searcher = keeper.client(Role::Searcher).await;
    let description = searcher.describe(v1::DescribeRequest {}).await.unwrap();
    assert!(description.into_inner().rollback_protected);
    searcher.register(register(state(1, 1, 1))).await.unwrap();
    let old = std::fs::read(&file).unwrap();
    searcher.register(register(state(1, 2, 2))).await.unwrap();
    let newest = std::fs::read(&file).unwrap();
    drop(searcher);
    let home = keeper.stop().await;

    // The host puts the older state back, so that the older index would be the newest.
    std::fs::write(&file, &old).unwrap();
    for _ in 0..2 {
        let refused = home.state(Some(counter(&machine))).err().unwrap();
        assert!(
            matches!(refused, KeeperError::RolledBack { .. }),
            "{refused}"
        );
        // Switching the machine off and on does not help it.
        machine.reboot();
    }
    // Nor does leaving the counter out.
    let refused = home.state(None).err().unwrap();
    assert!(matches!(refused, KeeperError::CounterMissing), "{refused}");

    std::fs::write(&file, &newest).unwrap();
    let keeper = home.serve(Some(counter(&machine)), |_| ()).await;
    let mut searcher = keeper.client(Role::Searcher).await;
    let stale = refusal(searcher.release(release(state(1, 1, 1)))).await;
    assert_eq!(stale, Reason::Stale);
    searcher.release(release(state(1, 2, 2))).await.unwrap();
}

#[test]
fn fail_another_machine() {
    let (Some(one), Some(other)) = (Swtpm::start(), Swtpm::start()) else {
        return;
    };
    let home = Home::new(ParameterSet::N2048Q50);
    for _ in 0..3 {
        drop(home.state(Some(counter(&one))).unwrap());
    }
    let refused = home.state(Some(counter(&other))).err().unwrap();
    assert!(
        matches!(refused, KeeperError::AnotherCounter { .. }),
        "{refused}"
    );
    assert!(home.state(Some(counter(&one))).is_ok());
}
