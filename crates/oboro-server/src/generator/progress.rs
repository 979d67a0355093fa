//! How far a build is, on the wire.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use oboro_owner::{ProgressFn, Stage};
use oboro_protocol::build::v1::{self, build_reply::Part};
use tokio::sync::mpsc;
use tonic::Status;

/// Shortest time between two messages of one stage.
const PAUSE: Duration = Duration::from_millis(100);

/// The number of a stage that a generator goes through.
#[must_use]
pub fn number_of(stage: Stage) -> Option<u32> {
    match stage {
        Stage::Train => Some(1),
        Stage::Encode => Some(2),
        Stage::Trial => Some(3),
        Stage::Write => Some(4),
        Stage::Turn => Some(5),
        Stage::Lists => Some(6),
        _ => None,
    }
}

/// The stage of a number.
#[must_use]
pub fn stage_of(number: u32) -> Option<Stage> {
    [
        Stage::Train,
        Stage::Encode,
        Stage::Trial,
        Stage::Write,
        Stage::Turn,
        Stage::Lists,
    ]
    .into_iter()
    .find(|&stage| number_of(stage) == Some(number))
}

/// Tells the owner, where there is room: news that waits is no news.
pub(super) fn told(replies: mpsc::Sender<Result<v1::BuildReply, Status>>) -> ProgressFn {
    let last: Mutex<Option<(Stage, Instant)>> = Mutex::new(None);
    std::sync::Arc::new(move |stage, done, total| {
        let (Some(number), Ok(mut last)) = (number_of(stage), last.lock()) else {
            return;
        };
        let now = Instant::now();
        let recent = |(shown, at): (Stage, Instant)| shown == stage && now - at < PAUSE;
        if last.is_some_and(recent) {
            return;
        }
        *last = Some((stage, now));
        let progress = v1::Progress {
            stage: number,
            done,
            total,
        };
        let _ = replies.try_send(Ok(v1::BuildReply {
            part: Some(Part::Progress(progress)),
        }));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_numbers() {
        for number in 1..=6 {
            assert_eq!(stage_of(number).and_then(number_of), Some(number));
        }
        assert_eq!(stage_of(0), None);
        assert_eq!(stage_of(7), None);
        assert_eq!(number_of(Stage::Read), None);
    }
}
