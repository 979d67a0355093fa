//! When a role stops.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::failure::{Failure, Outcome};

/// Resolves at SIGINT, SIGTERM, or, for a supervised role, when standard
/// input closes. To be called inside a runtime.
///
/// # Errors
/// If signals cannot be caught.
pub fn requested(supervised: bool) -> Outcome<impl Future<Output = ()> + Send + 'static> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let closed = supervised.then(input_closed);
    Ok(async move {
        let closed = async {
            match closed {
                Some(closed) => {
                    let _ = closed.await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = closed => {}
        }
    })
}

/// The exit code of a program that Ctrl-C ended.
pub const INTERRUPTED: i32 = 130;

/// Calls `act` at each SIGINT and SIGTERM, for verbs without a runtime.
///
/// # Errors
/// If signals cannot be caught.
pub fn on_interrupt(act: impl Fn() + Send + 'static) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot catch signals: {error}")))?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                act();
            }
        });
    });
    Ok(())
}

fn listen(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(|error| Failure::failed(format_args!("cannot catch signals: {error}")))
}

fn input_closed() -> oneshot::Receiver<()> {
    let (send, receive) = oneshot::channel();
    // A thread of its own: it sleeps in `read` until the other end goes away.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = send.send(());
    });
    receive
}
