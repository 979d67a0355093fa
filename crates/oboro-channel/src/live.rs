//! Open connections, so that those of a revoked key can be closed.

use crate::{Clock, PeerInfo, Serial, Trust};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

/// A period of zero would never let go of the processor.
const SHORTEST: Duration = Duration::from_millis(10);

/// The open connections of one listener or one channel.
#[derive(Clone, Default)]
pub(crate) struct Live(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Entry>,
}

struct Entry {
    serial: Serial,
    not_after: SystemTime,
    peer: String,
    close: oneshot::Sender<()>,
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Live {
    /// The stream, on the books until it is dropped.
    pub(crate) fn guard<S>(&self, stream: S, peer: &PeerInfo) -> Guarded<S> {
        let (close, closed) = oneshot::channel();
        let mut table = lock(&self.0);
        let id = table.next;
        table.next += 1;
        table.open.insert(
            id,
            Entry {
                serial: peer.serial,
                not_after: peer.not_after,
                peer: format!("{} {}", peer.role, peer.short_key()),
                close,
            },
        );
        Guarded {
            stream,
            closed: Closed::Watching(closed),
            _entry: OnTheBooks {
                table: Arc::downgrade(&self.0),
                id,
            },
        }
    }

    /// Looks for a newer revocation list every `period`, and closes what would not be
    /// let in any more.
    pub(crate) fn watch(&self, trust: &Trust, clock: &Clock, period: Duration) -> Watch {
        let (live, trust, clock) = (self.clone(), trust.clone(), clock.clone());
        let watching = tokio::spawn(async move {
            loop {
                tokio::time::sleep(period.max(SHORTEST)).await;
                let reading = trust.clone();
                match tokio::task::spawn_blocking(move || reading.refresh()).await {
                    Ok(Ok(false)) | Err(_) => {}
                    Ok(Ok(true)) => tracing::info!("a newer revocation list is in use"),
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "the revocation list in use stays in use");
                    }
                }
                live.close_unwelcome(&trust, clock.now());
            }
        });
        Watch(watching.abort_handle())
    }

    fn close_unwelcome(&self, trust: &Trust, now: SystemTime) {
        let checks = trust.checks();
        let mut table = lock(&self.0);
        let unwelcome = table.open.extract_if(|_, entry| {
            let objection = checks.objection(&entry.serial, entry.not_after, now);
            if let Some(reason) = &objection {
                tracing::warn!(peer = entry.peer, %reason, "connection closed");
            }
            objection.is_some()
        });
        for (_, entry) in unwelcome {
            let _ = entry.close.send(());
        }
    }
}

/// Ends the watching task when dropped.
pub(crate) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct OnTheBooks {
    table: Weak<Mutex<Table>>,
    id: u64,
}

impl Drop for OnTheBooks {
    fn drop(&mut self) {
        if let Some(table) = self.table.upgrade() {
            lock(&table).open.remove(&self.id);
        }
    }
}

enum Closed {
    Watching(oneshot::Receiver<()>),
    /// Whoever could have closed it is gone.
    Never,
    Yes,
}

/// A stream that fails once its peer is unwelcome.
pub(crate) struct Guarded<S> {
    stream: S,
    closed: Closed,
    _entry: OnTheBooks,
}

impl<S> Guarded<S> {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Closed::Watching(receiver) = &mut self.closed {
            self.closed = match Pin::new(receiver).poll(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => Closed::Yes,
                Poll::Ready(Err(_)) => Closed::Never,
            };
        }
        match self.closed {
            Closed::Yes => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer's certificate is revoked or expired",
            )),
            _ => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
