//! How a process ends: one token that everything listens to, and the signals that set it off.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
pub use tokio_util::sync::DropGuard;

/// Tells every part of a process to finish what is in flight and stop.
pub type Shutdown = CancellationToken;

/// A token that SIGTERM and SIGINT cancel.
pub fn shutdown_on_signal() -> std::io::Result<Shutdown> {
    let token = Shutdown::new();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(token)
}
