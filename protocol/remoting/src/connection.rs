//! One connection, one task: read, decode every whole frame, act, write all answers at once.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use protocol::frame::{self, Command, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::clock;
use crate::outbox::{Chunk, Later, Outbox, Pause};
use crate::peer::Peer;
use crate::process::Shutdown;

/// A connection on which nothing was read or written for so long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(120);
/// Answers of one connection that may be outstanding; at the limit it is not read until some are out.
pub const LATER_MAX: usize = 20_000;
/// How long a stopping process waits for answers that are still to come.
const DRAIN_MAX: Duration = Duration::from_secs(3);

const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// What serves the requests of one connection.
///
/// `request` is called for each frame of one read in order, then `flush` once; a session may collect
/// work in `request` and do it as a group in `flush`. Neither may block.
pub trait Session: Send + 'static {
    fn request(&mut self, request: Command<'_>, out: &mut Outbox);
    fn flush(&mut self, out: &mut Outbox);
    /// The connection is gone; called once.
    fn closed(&mut self);
}

/// Why a connection ended, other than by its peer's wish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Serves `stream` until it ends or `shutdown` is set off.
pub(crate) async fn run<S: Session>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut session: S,
    peer: Arc<Peer>,
    commands: mpsc::Receiver<Command<'static>>,
    shutdown: Shutdown,
) {
    let mut connection = Connection {
        stream,
        commands,
        out: Outbox::default(),
        later: FuturesUnordered::new(),
        input: Vec::new(),
        written: 0,
    };
    let outcome = connection.serve(&mut session, &peer, &shutdown).await;
    peer.close();
    session.closed();
    match outcome {
        Ok(()) => debug!(peer = %peer.remote, "connection closed"),
        Err(Failure::Frame(error)) => {
            warn!(peer = %peer.remote, %error, "closing a connection that sent no command");
        }
        Err(Failure::Io(error)) => debug!(peer = %peer.remote, %error, "connection lost"),
    }
}

/// Done when the pause is; never without one.
async fn paused(pause: &mut Option<Pause>) {
    match pause {
        Some(pause) => pause.await,
        None => std::future::pending().await,
    }
}

struct Connection<T> {
    stream: T,
    commands: mpsc::Receiver<Command<'static>>,
    out: Outbox,
    later: FuturesUnordered<Later>,
    /// Bytes read and not yet decoded; its capacity follows the traffic.
    input: Vec<u8>,
    /// How much of `out.now` the socket has taken.
    written: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    async fn serve<S: Session>(
        &mut self,
        session: &mut S,
        peer: &Peer,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        let mut active = clock::instant();
        let mut idle = tokio::time::interval(IDLE_MAX / 4);
        loop {
            self.reserve();
            tokio::select! {
                biased;
                Some(chunk) = self.later.next(), if !self.later.is_empty() => {
                    self.out.now.append(chunk);
                }
                Some(command) = self.commands.recv() => {
                    self.out.now.command(&command);
                }
                () = paused(&mut self.out.pause), if self.out.pause.is_some() => {
                    self.out.pause = None;
                    self.flush(session);
                    self.decode(session, peer)?;
                }
                read = self.stream.read_buf(&mut self.input),
                    if self.out.pause.is_none() && self.later.len() < LATER_MAX =>
                {
                    if read? == 0 {
                        return Ok(());
                    }
                    self.decode(session, peer)?;
                }
                () = shutdown.cancelled() => return self.drain().await,
                _ = idle.tick() => {
                    if active.elapsed() >= IDLE_MAX && self.later.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
            }
            active = clock::instant();
            self.take_ready();
            self.write().await?;
        }
    }

    /// Room for the next read: more for busy connections and for the rest of a frame already begun,
    /// never more than twice what has arrived.
    fn reserve(&mut self) {
        if self.input.is_empty() && self.input.capacity() > READ_BYTES_MAX {
            self.input = Vec::new();
        }
        let wanted = self.input.len().clamp(READ_BYTES_MIN, READ_BYTES_MAX);
        if self.input.capacity() - self.input.len() < wanted {
            self.input.reserve(wanted);
        }
    }

    fn decode<S: Session>(&mut self, session: &mut S, peer: &Peer) -> Result<(), Failure> {
        let filled = self.input.len() == self.input.capacity();
        let mut at = 0;
        while self.out.pause.is_none()
            && let Some(len) = frame::frame_len(&self.input[at..])?
        {
            let Some(frame) = self.input.get_mut(at..at + len) else { break };
            at += len;
            let command = Command::decode(frame)?;
            if command.is_reply() {
                peer.answered(command);
            } else {
                session.request(command, &mut self.out);
            }
        }
        self.input.drain(..at);
        if self.out.pause.is_none() {
            self.flush(session);
        }
        // A read that filled the buffer says there is more: the next one may take more at once.
        if filled && self.input.capacity() < READ_BYTES_MAX {
            self.input.reserve(self.input.capacity() * 2);
        }
        Ok(())
    }

    fn flush<S: Session>(&mut self, session: &mut S) {
        session.flush(&mut self.out);
        self.later.extend(self.out.later.drain(..));
    }

    /// Takes every answer that is ready, so that one write carries them all.
    fn take_ready(&mut self) {
        while let Some(Some(chunk)) = self.later.next().now_or_never() {
            self.out.now.append(chunk);
        }
        while let Ok(command) = self.commands.try_recv() {
            self.out.now.command(&command);
        }
    }

    async fn write(&mut self) -> Result<(), Failure> {
        while self.written < self.out.now.len() {
            let mut slices: Vec<IoSlice<'_>> = Vec::new();
            self.out.now.slices(self.written, &mut slices);
            let stream = &mut self.stream;
            let count =
                poll_fn(|cx| Pin::new(&mut *stream).poll_write_vectored(cx, &slices)).await?;
            if count == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            self.written += count;
        }
        self.written = 0;
        self.out.now.clear();
        Ok(())
    }

    /// Answers what is in flight, reads nothing more.
    async fn drain(&mut self) -> Result<(), Failure> {
        let wait = async {
            while let Some(chunk) = self.later.next().await {
                self.out.now.append(chunk);
            }
        };
        // What is not answered by then will be asked again elsewhere.
        let _ = tokio::time::timeout(DRAIN_MAX, wait).await;
        while let Ok(command) = self.commands.try_recv() {
            self.out.now.command(&command);
        }
        self.write().await
    }
}

impl Chunk {
    /// A chunk with one refusal in it.
    pub fn refusal(to: crate::outbox::ReplyTo, refusal: &protocol::reply::Refusal) -> Self {
        let mut chunk = Self::default();
        chunk.refuse(to, refusal);
        chunk
    }
}
