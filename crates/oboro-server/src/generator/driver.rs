//! One build, from the owner's first message to its last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use oboro_owner::enclave::{Batch, Job, generate};
use oboro_owner::{BuildReport, OwnerError};
use oboro_protocol::build::v1::{self, build_reply, build_request};
use oboro_protocol::build::{BUILD_LIFETIME, IDLE_LIFETIME};
use oboro_protocol::{Failure, Reason, validate};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::{Status, Streaming};

use super::{delivery, job, progress};

/// Messages with records that wait: one is worked on while another one arrives.
const QUEUE: usize = 2;

/// The way to the owner.
pub(super) type Replies = mpsc::Sender<Result<v1::BuildReply, Status>>;

/// Makes the index that `begin` asks for in the folder `index` and brings it to the owner.
///
/// # Errors
/// One sentence for the owner. Whatever happens, no thread works on the build any more
/// when this ends; what it left in the folder is for the caller to remove.
pub(super) async fn drive(
    begin: v1::Begin,
    incoming: Streaming<v1::BuildRequest>,
    replies: &Replies,
    index: PathBuf,
    threads: Option<usize>,
) -> Result<(), Failure> {
    let (job, due) = job::from_message(begin)?;
    let mut build = Build {
        incoming,
        replies: replies.clone(),
        idle: IDLE_LIFETIME,
        end: Instant::now() + BUILD_LIFETIME,
    };
    build.run(job, due, index, threads).await
}

struct Build {
    incoming: Streaming<v1::BuildRequest>,
    replies: Replies,
    idle: Duration,
    /// When it must be over.
    end: Instant,
}

/// Stops the thread of a build that nobody waits for any more.
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Build {
    async fn run(
        &mut self,
        mut job: Job,
        due: usize,
        index: PathBuf,
        threads: Option<usize>,
    ) -> Result<(), Failure> {
        let cancel = Cancel(Arc::default());
        job.options.cancel = Arc::clone(&cancel.0);
        job.options.threads = threads;
        job.options.progress = Some(progress::told(self.replies.clone()));
        let early = timeout_at(self.end, self.early(&job, due))
            .await
            .map_err(|_| late())??;
        let (vectors, bytes) = (job.vectors, job.dimension * job.form.width());
        let (records, queue) = mpsc::channel(QUEUE);
        let out = index.clone();
        let mut making = tokio::task::spawn_blocking(move || make(&job, early, queue, &out));
        let made = tokio::select! {
            made = &mut making => made,
            why = timeout_at(self.end, self.feed(vectors, bytes, records)) => {
                // The folder is cleared next, so its thread must be over.
                drop(cancel);
                let _ = making.await;
                return Err(why.unwrap_or_else(|_| late()));
            }
        };
        let report = made.map_err(|_| {
            Failure::new(
                Reason::Internal,
                "the build broke off; the generator's log says where",
            )
        })??;
        timeout_at(self.end, self.deliver(report, index))
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// The owner's next message; `None` when it has ended its side.
    async fn next(&mut self) -> Result<Option<build_request::Part>, Failure> {
        match tokio::time::timeout(self.idle, self.incoming.message()).await {
            Ok(Ok(Some(message))) => match message.part {
                Some(part) => Ok(Some(part)),
                None => Err(bad("a message is empty")),
            },
            Ok(Ok(None)) => Ok(None),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(Failure::new(
                Reason::Deadline,
                format!("the owner sent nothing for {} s", self.idle.as_secs()),
            )),
        }
    }

    /// The vectors that come before the records.
    async fn early(&mut self, job: &Job, due: usize) -> Result<Vec<f32>, Failure> {
        let due = due * job.dimension;
        let mut early = Vec::new();
        while early.len() < due {
            let Some(build_request::Part::Early(part)) = self.next().await? else {
                return Err(bad("vectors to train on are missing"));
            };
            let values = job.form.unpack(&part.vectors).unwrap_or_default();
            if values.is_empty() || values.len() > due - early.len() {
                return Err(bad(
                    "vectors to train on are damaged, or more than announced",
                ));
            }
            early.extend(values);
        }
        Ok(early)
    }

    /// Hands records on until all have come, each when the one before is taken; then waits
    /// for the owner to go. Ends with the reason why the build is to be given up.
    async fn feed(
        &mut self,
        vectors: usize,
        vector_bytes: usize,
        records: mpsc::Sender<v1::Records>,
    ) -> Failure {
        let mut come = 0;
        while come < vectors {
            let part = match self.next().await {
                Ok(Some(build_request::Part::Records(part))) => part,
                Ok(_) => return bad("records are missing"),
                Err(failure) => return failure,
            };
            match validate::build::records(&part, vector_bytes) {
                Ok(count) if come + count <= vectors => come += count,
                Ok(_) => return bad("more records come than were announced"),
                Err(failure) => return failure,
            }
            if records.send(part).await.is_err() {
                // The build has failed, and says itself why.
                return std::future::pending().await;
            }
        }
        drop(records);
        // The build takes its time; a connection that breaks shows at once.
        match self.incoming.message().await {
            Ok(Some(_)) => bad("more comes than was announced"),
            Ok(None) | Err(_) => gone(),
        }
    }

    /// Brings the files to the owner, which says when it has them.
    async fn deliver(&mut self, report: BuildReport, index: PathBuf) -> Result<(), Failure> {
        let (pieces, mut queue) = mpsc::channel(QUEUE);
        let reading = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut send = |part| pieces.blocking_send(part).is_ok();
            if send(delivery::built(&index, &report)?) {
                delivery::pieces(&index, &report, &mut send)?;
            }
            Ok(())
        });
        while let Some(part) = queue.recv().await {
            send(&self.replies, self.idle, part).await?;
        }
        if !matches!(reading.await, Ok(Ok(()))) {
            return Err(Failure::new(
                Reason::Internal,
                "the files of the index could not be read again",
            ));
        }
        match self.next().await? {
            Some(build_request::Part::Done(_)) => Ok(()),
            Some(_) => Err(bad("more comes than was announced")),
            None => Err(gone()),
        }
    }
}

async fn send(replies: &Replies, idle: Duration, part: build_reply::Part) -> Result<(), Failure> {
    let reply = v1::BuildReply { part: Some(part) };
    match tokio::time::timeout(idle, replies.send(Ok(reply))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(gone()),
        Err(_) => Err(Failure::new(
            Reason::Deadline,
            "the owner does not take the files of its index",
        )),
    }
}

/// Builds on the thread that calls it.
fn make(
    job: &Job,
    early: Vec<f32>,
    mut queue: mpsc::Receiver<v1::Records>,
    out: &Path,
) -> Result<BuildReport, Failure> {
    let (mut first, mut wrong) = (0, None);
    let mut next = || {
        let batch = batch_of(queue.blocking_recv()?);
        match batch.into_records(job, first) {
            Ok(records) => {
                first += records.len();
                Some(records)
            }
            Err(error) => {
                wrong = Some(error);
                None
            }
        }
    };
    let result = generate(job, early, &mut next, out);
    match (result, wrong) {
        (Ok(report), _) => Ok(report),
        (Err(_), Some(error)) => Err(bad(error.to_string())),
        (Err(error @ (OwnerError::Index(_) | OwnerError::Threads { .. })), None) => {
            Err(Failure::new(Reason::Internal, error.to_string()))
        }
        (Err(error), None) => Err(bad(error.to_string())),
    }
}

fn batch_of(records: v1::Records) -> Batch<Bytes> {
    Batch {
        vectors: records.vectors,
        ids: records.ids,
        text_ids: records.text_ids,
        tags: records.tags,
        payloads: records
            .payloads
            .iter()
            .map(|payload| payload.to_vec())
            .collect(),
    }
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(Reason::BadRequest, message)
}

fn late() -> Failure {
    Failure::new(
        Reason::Deadline,
        "the build takes too long and was given up",
    )
}

fn gone() -> Failure {
    Failure::new(Reason::Deadline, "the owner has gone away")
}
