//! The other side of a connection: whom to push to or to call, as long as it is there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::frame::Command;
use tokio::sync::{mpsc, oneshot};

/// Commands waiting to be written to one peer.
const OUTGOING_MAX: usize = 1024;

/// One connected process.
#[derive(Debug)]
pub struct Peer {
    /// Unique within this process; a peer that comes back is another.
    pub id: u64,
    pub remote: SocketAddr,
    pub local: SocketAddr,
    outgoing: mpsc::Sender<Command<'static>>,
    waiting: Mutex<HashMap<i32, oneshot::Sender<Command<'static>>>>,
    next_opaque: AtomicI32,
    closed: AtomicBool,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: String, reason: String },
    #[error("the connection to {0} is closed")]
    Closed(SocketAddr),
    #[error("{0} reads too slowly: {OUTGOING_MAX} commands wait for it")]
    Full(SocketAddr),
    #[error("{address} did not answer within {timeout:?}")]
    Timeout { address: SocketAddr, timeout: Duration },
}

/// A call that waits; also one that is given up leaves nothing behind.
struct Waiting<'p> {
    peer: &'p Peer,
    opaque: i32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.peer.waiting.lock().remove(&self.opaque);
    }
}

impl Peer {
    pub(crate) fn new(
        remote: SocketAddr,
        local: SocketAddr,
    ) -> (Self, mpsc::Receiver<Command<'static>>) {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let (outgoing, commands) = mpsc::channel(OUTGOING_MAX);
        let peer = Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            remote,
            local,
            outgoing,
            waiting: Mutex::default(),
            next_opaque: AtomicI32::new(1),
            closed: AtomicBool::new(false),
        };
        (peer, commands)
    }

    /// Sends a request that nobody answers.
    pub fn push(&self, mut request: Command<'static>) -> Result<(), CallError> {
        request.set_oneway();
        request.opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        self.enqueue(request)
    }

    /// Sends a request that nobody answers, as soon as there is room for it.
    pub async fn tell(
        &self,
        mut request: Command<'static>,
        timeout: Duration,
    ) -> Result<(), CallError> {
        request.set_oneway();
        request.opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        let timed_out = CallError::Timeout { address: self.remote, timeout };
        let sent = tokio::time::timeout(timeout, self.outgoing.send(request)).await;
        sent.map_err(|_| timed_out)?.map_err(|_| CallError::Closed(self.remote))
    }

    /// Sends a request, as soon as there is room for it, and waits for its answer.
    pub async fn call(
        &self,
        mut request: Command<'static>,
        timeout: Duration,
    ) -> Result<Command<'static>, CallError> {
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        request.opaque = opaque;
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(opaque, answer);
        let _waiting = Waiting { peer: self, opaque };
        if self.is_closed() {
            return Err(CallError::Closed(self.remote));
        }
        // Whoever waits for room is served in turn; there mostly is some, and the request need not be kept.
        let room = match self.outgoing.try_send(request) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(request)) => {
                Some(Box::pin(self.outgoing.send(request)))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(CallError::Closed(self.remote));
            }
        };
        let exchange = async {
            if let Some(room) = room {
                room.await.ok()?;
            }
            answered.await.ok()
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => Err(CallError::Closed(self.remote)),
            Err(_) => Err(CallError::Timeout { address: self.remote, timeout }),
        }
    }

    /// Calls that wait for this peer's answer.
    pub fn outstanding(&self) -> usize {
        self.waiting.lock().len()
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn enqueue(&self, request: Command<'static>) -> Result<(), CallError> {
        if self.is_closed() {
            return Err(CallError::Closed(self.remote));
        }
        self.outgoing.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CallError::Full(self.remote),
            mpsc::error::TrySendError::Closed(_) => CallError::Closed(self.remote),
        })
    }

    /// Gives a reply to whoever waits for it; an answer nobody waits for any more is dropped.
    pub(crate) fn answered(&self, reply: Command<'_>) {
        let waiting = self.waiting.lock().remove(&reply.opaque);
        if let Some(waiting) = waiting {
            // The caller may have given up in this very moment.
            let _ = waiting.send(reply.into_owned());
        }
    }

    /// Nothing will come from this peer any more: whoever waits learns it now.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waiting.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use protocol::header::Empty;

    use super::*;

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_nothing_behind() {
        let nobody = ([127, 0, 0, 1], 1).into();
        let (peer, mut commands) = Peer::new(nobody, nobody);
        let call = peer.call(Command::request(1, &Empty {}), Duration::from_secs(60));
        tokio::select! {
            biased;
            _ = call => unreachable!("nobody answers"),
            sent = commands.recv() => assert!(sent.is_some()),
        }
        assert!(peer.waiting.lock().is_empty());
    }
}
