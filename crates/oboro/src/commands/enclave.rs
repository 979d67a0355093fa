//! `oboro build --mode enclave`: an index made by an attested generator.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use oboro_attest::AttestedRole;
use oboro_channel::{ConnectOptions, Connection, Demand, Role, connect, explain};
use oboro_owner::enclave::{Batch, Built, Job, Link, Piece, Told};
use oboro_owner::{ListsReport, OpqReport, OwnerError, Stage, StageSeconds, TrialReport};
use oboro_protocol::build::v1::builder_client::BuilderClient;
use oboro_protocol::build::v1::{self, build_reply, build_request};
use oboro_protocol::build::{IDLE_LIFETIME, MAX_MESSAGE_BYTES};
use oboro_protocol::{Failure as Refusal, Reason};
use oboro_server::generator::{stage_of, to_message};
use oboro_server::roles::GENERATOR_ADDRESS;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::build::{self, Options};
use super::built;
use super::lorentz::Watched;
use crate::failure::{Failure, Kind, Outcome};
use crate::input::Input;
use crate::keys::{self, Folder};
use crate::output;
use crate::progress::Progress;
use crate::roles;
use crate::with_simulated::WithSimulated;

/// Longest time for connecting.
const CONNECT: Duration = Duration::from_secs(10);

/// How often it is looked whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Messages that wait on either way.
const QUEUE: usize = 2;

/// Builds.
pub(super) fn build(
    options: &Options,
    progress: &Progress,
    cancel: &Arc<AtomicBool>,
) -> Outcome<built::Built> {
    let input = Input::open(&options.vectors, options.records.format.as_deref())?;
    let mut source = input.records(&options.records, None)?;
    let folder = Folder::of(&options.keys, Role::Owner)?;
    let platforms = WithSimulated::new(options.allow_simulated);
    let verifier = options.policy.verifier(&platforms)?;
    let (owner, settings) = build::prepared(options, &source, progress, cancel)?;
    let (identity, trust) = (folder.identity()?, folder.trust()?);
    let runtime = roles::runtime(2)?;
    let address = options.generator.as_deref().unwrap_or(GENERATOR_ADDRESS);
    let connection = runtime.block_on(connect(
        address,
        &identity,
        &trust,
        Role::Generator,
        ConnectOptions {
            timeout: CONNECT,
            demand: Some(Demand::new(verifier, AttestedRole::Generator)),
            ..ConnectOptions::default()
        },
    ))?;
    let appraisal = connection.peer().appraisal;
    let simulated = appraisal.as_ref().is_some_and(|found| found.is_simulated());
    if simulated {
        progress.remark(output::SIMULATED);
    }
    for remark in appraisal.iter().flat_map(|found| &found.remarks) {
        progress.remark(format_args!("note: {remark}"));
    }
    let mut wire = Wire {
        runtime,
        connection,
        call: None,
    };
    let report = owner
        .build_enclave(
            &mut Watched::new(&mut source, options, progress),
            &mut wire,
            options.folder(),
            &settings,
            &mut keys::os_rng()?,
        )
        .map_err(|error| match error {
            EnclaveError::Owner(error) => build::named_failure(error, |error| input.failure(error)),
            EnclaveError::Wire(failure) => failure,
        })?;
    let mut built = built::Built::new(options, &report);
    built.generator = Some(built::Generator {
        address: address.to_owned(),
        simulated,
    });
    Ok(built)
}

/// What stops a build in an enclave.
enum EnclaveError {
    Owner(OwnerError),
    Wire(Failure),
}

impl From<OwnerError> for EnclaveError {
    fn from(error: OwnerError) -> Self {
        Self::Owner(error)
    }
}

/// The call that is the build.
struct Call {
    requests: mpsc::Sender<v1::BuildRequest>,
    replies: mpsc::Receiver<Result<v1::BuildReply, Status>>,
    last: (Stage, u64, u64),
}

/// The connection to the generator.
struct Wire {
    runtime: Runtime,
    connection: Connection,
    call: Option<Call>,
}

fn refusal(status: &Status) -> EnclaveError {
    EnclaveError::Wire(match Refusal::from_status(status) {
        Some(refusal) if refusal.reason == Reason::Busy => {
            Failure::new(Kind::Unreachable, refusal.message)
        }
        Some(refusal) => Failure::failed(format_args!(
            "the generator gave the build up: {}",
            refusal.message
        )),
        None => Failure::new(
            match status.code() {
                Code::PermissionDenied | Code::Unauthenticated => Kind::Refused,
                _ => Kind::Unreachable,
            },
            format_args!(
                "the generator went away, and nothing was built: {}",
                explain(status)
            ),
        ),
    })
}

fn gone() -> EnclaveError {
    EnclaveError::Wire(Failure::new(
        Kind::Unreachable,
        "the generator went away, and nothing was built",
    ))
}

fn out_of_turn() -> EnclaveError {
    OwnerError::Generator("it answered out of turn".to_owned()).into()
}

/// A reply that is no news of progress.
enum Answer {
    Built(Box<v1::Built>),
    Piece(Vec<u8>),
}

impl Call {
    /// Opens the call; the generator answers it after the first message.
    async fn open(connection: &Connection, first: v1::BuildRequest) -> Result<Self, EnclaveError> {
        let mut client = BuilderClient::new(connection.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (requests, sent) = mpsc::channel(QUEUE);
        let _ = requests.send(first).await;
        let opened = tokio::time::timeout(IDLE_LIFETIME, client.build(ReceiverStream::new(sent)));
        let mut stream = match opened.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(refusal(&status)),
            Err(_) => return Err(gone()),
        };
        let (forward, replies) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            loop {
                let reply = match stream.message().await {
                    Ok(Some(reply)) => Ok(reply),
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let last = reply.is_err();
                if forward.send(reply).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Self {
            requests,
            replies,
            last: (Stage::Train, 0, 0),
        })
    }

    /// What a reply says; news of progress is told and gives `None`.
    fn heard(
        &mut self,
        reply: Result<v1::BuildReply, Status>,
        told: &mut dyn FnMut(Stage, u64, u64) -> Result<(), OwnerError>,
    ) -> Result<Option<Answer>, EnclaveError> {
        match reply.map_err(|status| refusal(&status))?.part {
            Some(build_reply::Part::Progress(progress)) => {
                let stage = stage_of(progress.stage).ok_or_else(out_of_turn)?;
                self.last = (stage, progress.done, progress.total);
                told(stage, progress.done, progress.total)?;
                Ok(None)
            }
            Some(build_reply::Part::Built(built)) => Ok(Some(Answer::Built(Box::new(built)))),
            Some(build_reply::Part::Piece(piece)) => Ok(Some(Answer::Piece(piece.bytes.into()))),
            None => Err(out_of_turn()),
        }
    }

    /// Sends when there is room, and hears what comes meanwhile.
    async fn send(
        &mut self,
        part: build_request::Part,
        told: Told<'_>,
    ) -> Result<(), EnclaveError> {
        loop {
            let room = self.requests.clone().reserve_owned();
            let room = tokio::time::timeout(LOOK, room).await;
            let closed = match room {
                Ok(Ok(permit)) => {
                    permit.send(v1::BuildRequest { part: Some(part) });
                    return Ok(());
                }
                Ok(Err(_)) => true,
                Err(_) => false,
            };
            loop {
                let reply = match self.replies.try_recv() {
                    Ok(reply) => reply,
                    Err(mpsc::error::TryRecvError::Empty) if !closed => break,
                    // It says why, or never will.
                    Err(_) => match self.replies.recv().await {
                        Some(reply) => reply,
                        None => return Err(gone()),
                    },
                };
                if self.heard(reply, told)?.is_some() {
                    return Err(out_of_turn());
                }
            }
            // Whoever wants to stop is asked although there is no news.
            let (stage, done, total) = self.last;
            told(stage, done, total)?;
        }
    }

    /// The next answer.
    async fn answer(&mut self, told: Told<'_>) -> Result<Answer, EnclaveError> {
        loop {
            match tokio::time::timeout(LOOK, self.replies.recv()).await {
                Ok(Some(reply)) => {
                    if let Some(answer) = self.heard(reply, told)? {
                        return Ok(answer);
                    }
                }
                Ok(None) => return Err(gone()),
                Err(_) => {
                    let (stage, done, total) = self.last;
                    told(stage, done, total)?;
                }
            }
        }
    }
}

impl Wire {
    fn send(&mut self, part: build_request::Part, told: Told<'_>) -> Result<(), EnclaveError> {
        let call = self.call.as_mut().ok_or_else(gone)?;
        self.runtime.block_on(call.send(part, told))
    }
}

impl Link for Wire {
    type Error = EnclaveError;

    fn begin(&mut self, job: &Job, _told: Told<'_>) -> Result<(), EnclaveError> {
        let first = v1::BuildRequest {
            part: Some(build_request::Part::Begin(to_message(job))),
        };
        let call = self.runtime.block_on(Call::open(&self.connection, first))?;
        self.call = Some(call);
        Ok(())
    }

    fn early(&mut self, vectors: Vec<u8>, told: Told<'_>) -> Result<(), EnclaveError> {
        let early = v1::Early {
            vectors: vectors.into(),
        };
        self.send(build_request::Part::Early(early), told)
    }

    fn records(&mut self, batch: Batch<Vec<u8>>, told: Told<'_>) -> Result<(), EnclaveError> {
        let records = v1::Records {
            vectors: batch.vectors.into(),
            ids: batch.ids,
            text_ids: batch.text_ids,
            tags: batch.tags,
            payloads: batch.payloads.into_iter().map(Into::into).collect(),
        };
        self.send(build_request::Part::Records(records), told)
    }

    fn built(&mut self, told: Told<'_>) -> Result<Built, EnclaveError> {
        let call = self.call.as_mut().ok_or_else(gone)?;
        let Answer::Built(built) = self.runtime.block_on(call.answer(told))? else {
            return Err(out_of_turn());
        };
        let (Some(trial), &[train, encode, trials, write]) = (built.trial, &built.seconds[..])
        else {
            return Err(out_of_turn());
        };
        Ok(Built {
            manifest: built.manifest.into(),
            rotation_cost: built.rotation_cost,
            opq: built.opq.map(|opq| OpqReport {
                turns: opq.turns as usize,
                distortion_without: opq.distortion_without,
                distortion_with: opq.distortion_with,
                recall_without: opq.recall_without,
                recall_with: opq.recall_with,
            }),
            lists: built.lists.map(|lists| ListsReport {
                lists: lists.lists as usize,
                probes_max: lists.probes_max,
                places: lists.places as usize,
                recall_10_at_10: lists.recall_10_at_10,
            }),
            trial: TrialReport {
                queries: trial.queries as usize,
                candidates: trial.candidates as usize,
                table_error: trial.table_error,
                table_error_bound: trial.table_error_bound,
                recall_10_at_10: trial.recall_10_at_10,
                recall_10_at_10_unranked: trial.recall_10_at_10_unranked,
                recall_in_lists: trial.recall_in_lists,
            },
            seconds: StageSeconds {
                train,
                encode,
                trial: trials,
                write,
                ..StageSeconds::default()
            },
        })
    }

    fn piece(&mut self) -> Result<Option<Piece>, EnclaveError> {
        let call = self.call.as_mut().ok_or_else(gone)?;
        match self.runtime.block_on(call.answer(&mut |_, _, _| Ok(())))? {
            Answer::Piece(piece) => Ok(Some(piece)),
            Answer::Built(_) => Err(out_of_turn()),
        }
    }

    fn done(&mut self) {
        if let Some(Call {
            requests,
            mut replies,
            ..
        }) = self.call.take()
        {
            // The generator then ends the call.
            let done = v1::BuildRequest {
                part: Some(build_request::Part::Done(v1::Done {})),
            };
            let ended = async {
                let _ = requests.send(done).await;
                tokio::time::timeout(CONNECT, replies.recv()).await
            };
            let _ = self.runtime.block_on(ended);
        }
    }

    fn abort(&mut self) {
        // The call ends with the connection, and with the call the build.
        self.call = None;
    }
}
