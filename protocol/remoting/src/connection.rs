//! One connection, one task: read, decode every whole frame, act, write all answers at once.

use std::future::poll_fn;
use std::io::IoSlice;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use protocol::frame::{self, Command, FrameError};
use protocol::language::version;
use protocol::reply::{Refusal, ReplyCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use crate::clock;
use crate::look::Look;
use crate::outbox::{Chunk, Later, Outbox, Pause, ReplyTo};
use crate::peer::Peer;
use crate::process::Shutdown;

/// A connection on which nothing was read or written for so long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(120);
/// Answers of one connection that may be outstanding; at the limit it is not read until some are out.
pub const LATER_MAX: usize = 20_000;
/// Bytes of requests of one connection whose answers are outstanding; at the limit it is not read either.
pub const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a stopping process waits for answers that are still to come.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How long a peer that goes on sending is listened to after the last answer, and how long a silent one.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_QUIET_MAX: Duration = Duration::from_millis(20);

/// Answers gathered for one write; at the limit they are written before more is served.
const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The connection that was served last.
static SERVED_LAST: AtomicU64 = AtomicU64::new(0);

const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 256 * 1024;

/// What serves the requests of one connection.
///
/// `request` is called for each frame of one read in order, then `flush` once; a session may collect
/// work in `request` and do it as a group in `flush`. Neither may block for longer than a wake-up takes.
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
    #[error("the peer reads nothing")]
    Stalled,
}

/// Serves `stream`, of which `input` has been read already, until it ends or `shutdown` is set off.
pub(crate) async fn run<S: Session>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    input: Vec<u8>,
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
        held_bytes: 0,
        input,
        written: 0,
        begun: false,
        look: Look::new(clock::instant()),
    };
    // A defect ends this connection; what is known of its peer is cleaned up all the same.
    let serving = AssertUnwindSafe(connection.serve(&mut session, &peer, &shutdown));
    let outcome = serving.catch_unwind().await;
    peer.close();
    session.closed();
    let Ok(outcome) = outcome else {
        error!(peer = %peer.remote, "a connection met a defect");
        return;
    };
    match outcome {
        Ok(()) => debug!(peer = %peer.remote, "connection closed"),
        Err(Failure::Frame(error)) => {
            warn!(peer = %peer.remote, %error, "closing a connection that sent no command");
        }
        Err(error) => debug!(peer = %peer.remote, %error, "connection lost"),
    }
}

/// Done when the pause is; never without one.
async fn paused(pause: &mut Option<Pause>) {
    match pause {
        Some(pause) => pause.await,
        None => std::future::pending().await,
    }
}

/// An answer to come, with what is held for it.
struct Weighed {
    bytes: usize,
    answer: Later,
}

impl Future for Weighed {
    type Output = (usize, Chunk);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let bytes = self.bytes;
        self.answer.as_mut().poll(cx).map(|chunk| (bytes, chunk))
    }
}

struct Connection<T> {
    stream: T,
    commands: mpsc::Receiver<Command<'static>>,
    out: Outbox,
    later: FuturesUnordered<Weighed>,
    /// What the requests behind `later` came with.
    held_bytes: usize,
    /// Bytes read and not yet decoded; its capacity follows the traffic.
    input: Vec<u8>,
    /// How much of `out.now` the socket has taken.
    written: usize,
    /// Whole frames may be left in `input`, their answers to be written after others.
    begun: bool,
    look: Look,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    async fn serve<S: Session>(
        &mut self,
        session: &mut S,
        peer: &Peer,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        let mut idle = tokio::time::interval(IDLE_MAX / 4);
        self.begun = !self.input.is_empty();
        self.go_on(session, peer, shutdown).await?;
        loop {
            self.reserve();
            let looks = self.look.is_on() && self.goes_on_looking(peer);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.drain().await,
                Some(answer) = self.later.next(), if !self.later.is_empty() => self.take(answer),
                Some(command) = self.commands.recv() => {
                    self.out.now.command(&command);
                }
                () = paused(&mut self.out.pause), if self.out.pause.is_some() => {
                    self.out.pause = None;
                    session.flush(&mut self.out);
                    self.decode(session, peer)?;
                }
                read = self.stream.read_buf(&mut self.input),
                    if self.out.pause.is_none()
                        && self.later.len() < LATER_MAX
                        && self.held_bytes < HELD_BYTES_MAX =>
                {
                    if read? == 0 {
                        return Ok(());
                    }
                    self.out.alone = SERVED_LAST.swap(peer.id, Ordering::Relaxed) == peer.id;
                    self.look.arrived(self.out.alone, clock::instant());
                    self.decode(session, peer)?;
                }
                _ = idle.tick() => {
                    let waits = !self.later.is_empty() || self.out.pause.is_some();
                    if self.look.silence(clock::instant()) >= IDLE_MAX && !waits {
                        return Ok(());
                    }
                    continue;
                }
                // Others that are ready are served in between.
                () = tokio::task::yield_now(), if looks => continue,
            }
            self.take_ready();
            self.write_all(shutdown).await?;
            self.go_on(session, peer, shutdown).await?;
            self.look.answered(clock::instant());
        }
    }

    fn goes_on_looking(&mut self, peer: &Peer) -> bool {
        let alone = self.later.is_empty() && SERVED_LAST.load(Ordering::Relaxed) == peer.id;
        self.look.goes_on(alone, clock::instant())
    }

    /// Serves what is left of the last read.
    async fn go_on<S: Session>(
        &mut self,
        session: &mut S,
        peer: &Peer,
        shutdown: &Shutdown,
    ) -> Result<(), Failure> {
        while self.begun && self.out.pause.is_none() {
            self.decode(session, peer)?;
            self.take_ready();
            self.write_all(shutdown).await?;
        }
        Ok(())
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
        self.begun = false;
        while self.out.pause.is_none()
            && let Some(len) = frame::frame_len(&self.input[at..])?
        {
            let Some(frame) = self.input.get_mut(at..at + len) else { break };
            at += len;
            let command = Command::decode(frame)?;
            if command.is_reply() {
                peer.answered(command);
            } else {
                self.out.serving_bytes = len;
                session.request(command, &mut self.out);
            }
            if self.out.now.len() >= WRITE_BYTES_MAX {
                self.begun = true;
                break;
            }
        }
        self.input.drain(..at);
        self.out.serving_bytes = 0;
        if self.out.pause.is_none() {
            session.flush(&mut self.out);
        }
        for (bytes, answer) in self.out.later.drain(..) {
            self.held_bytes += bytes;
            self.later.push(Weighed { bytes, answer });
        }
        // A read that filled the buffer says there is more: the next one may take more at once.
        if filled && self.input.capacity() < READ_BYTES_MAX {
            self.input.reserve(self.input.capacity() * 2);
        }
        Ok(())
    }

    fn take(&mut self, (bytes, chunk): (usize, Chunk)) {
        self.held_bytes -= bytes;
        self.out.now.append(chunk);
    }

    /// Takes the answers that are ready, so that one write carries many.
    fn take_ready(&mut self) {
        while self.out.now.len() < WRITE_BYTES_MAX
            && let Some(Some(answer)) = self.later.next().now_or_never()
        {
            self.take(answer);
        }
        while self.out.now.len() < WRITE_BYTES_MAX
            && let Ok(command) = self.commands.try_recv()
        {
            self.out.now.command(&command);
        }
    }

    /// Writes what is there, unless the peer takes none of it for too long.
    async fn write_all(&mut self, shutdown: &Shutdown) -> Result<(), Failure> {
        // Most of the time the socket takes everything at once, and no timer is needed.
        if let Some(outcome) = self.write().now_or_never() {
            return outcome;
        }
        loop {
            let before = self.written;
            let limit = async {
                tokio::select! {
                    () = tokio::time::sleep(IDLE_MAX) => {}
                    () = shutdown.cancelled() => tokio::time::sleep(DRAIN_MAX).await,
                }
            };
            tokio::select! {
                outcome = self.write() => return outcome,
                () = limit => {}
            }
            if self.written == before || shutdown.is_cancelled() {
                return Err(Failure::Stalled);
            }
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
        // An encrypting stream may hold back what the socket did not take.
        self.stream.flush().await?;
        self.written = 0;
        self.out.now.clear();
        Ok(())
    }

    /// Answers what is in flight, reads nothing more.
    async fn drain(&mut self) -> Result<(), Failure> {
        let wait = async {
            while let Some((_, chunk)) = self.later.next().await {
                self.out.now.append(chunk);
            }
        };
        // What is not answered by then will be asked again elsewhere.
        let _ = tokio::time::timeout(DRAIN_MAX, wait).await;
        while let Ok(command) = self.commands.try_recv() {
            self.out.now.command(&command);
        }
        tokio::time::timeout(DRAIN_MAX, self.write()).await.unwrap_or(Err(Failure::Stalled))?;
        // Whoever writes even longer will find the connection closed.
        let _ = tokio::time::timeout(LINGER_MAX, self.turn_away()).await;
        self.linger().await
    }

    /// Tells a peer that goes on asking to ask elsewhere, if it is of a kind that understands.
    async fn turn_away(&mut self) -> Result<(), Failure> {
        let refusal = Refusal::new(ReplyCode::GoAway, "the process is shutting down, ask another");
        loop {
            let mut at = 0;
            while let Some(len) = frame::frame_len(&self.input[at..])? {
                let Some(frame) = self.input.get_mut(at..at + len) else { break };
                at += len;
                let request = Command::decode(frame)?;
                if !request.is_reply() && request.version > version::V5_3_1 {
                    self.out.now.refuse(ReplyTo::new(&request), &refusal);
                }
            }
            self.input.drain(..at);
            self.write().await?;
            self.reserve();
            let read = self.stream.read_buf(&mut self.input);
            match tokio::time::timeout(LINGER_QUIET_MAX, read).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) | Err(_) => return Ok(()),
            }
        }
    }

    /// Ends our half and reads on for a moment: bytes left unread would reset the connection, and with it
    /// go answers that the peer has not read yet.
    async fn linger(&mut self) -> Result<(), Failure> {
        self.stream.shutdown().await?;
        self.input = vec![0; READ_BYTES_MIN];
        let discard = async {
            loop {
                let read = self.stream.read(&mut self.input);
                match tokio::time::timeout(LINGER_QUIET_MAX, read).await {
                    Ok(Ok(1..)) => {}
                    Ok(Ok(0) | Err(_)) | Err(_) => return,
                }
            }
        };
        // Whoever writes even longer has not read its end of the connection.
        let _ = tokio::time::timeout(LINGER_MAX, discard).await;
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use protocol::header::Empty;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::outbox::ReplyTo;

    /// Answers everything with a body of so many bytes.
    struct Answers(usize, Arc<AtomicUsize>);

    impl Session for Answers {
        fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
            self.1.fetch_add(1, Ordering::SeqCst);
            let body = Bytes::from(vec![0; self.0]);
            out.now.reply(ReplyTo::new(&request), &Empty {}, &[body]);
        }
        fn flush(&mut self, _: &mut Outbox) {}
        fn closed(&mut self) {
            self.1.fetch_add(1_000_000, Ordering::SeqCst);
        }
    }

    fn serve(
        body: usize,
    ) -> (tokio::io::DuplexStream, Arc<AtomicUsize>, Shutdown, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let nobody = ([127, 0, 0, 1], 1).into();
        let (peer, commands) = Peer::new(nobody, nobody);
        let (served, shutdown) = (Arc::new(AtomicUsize::new(0)), Shutdown::new());
        let session = Answers(body, served.clone());
        let task = tokio::spawn(run(
            theirs,
            Vec::new(),
            session,
            Arc::new(peer),
            commands,
            shutdown.clone(),
        ));
        (ours, served, shutdown, task)
    }

    fn requests(count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        (0..count).for_each(|_| Command::request(1, &Empty {}).encode(&mut bytes));
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_not_served_further_and_does_not_outlive_the_process() {
        let (mut ours, served, shutdown, task) = serve(1 << 20);
        ours.write_all(&requests(100)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun = served.load(Ordering::SeqCst);
        assert!(begun <= 1 + WRITE_BYTES_MAX / (1 << 20), "{begun} answers wait in memory");
        shutdown.cancel();
        task.await.unwrap();
        assert!(served.load(Ordering::SeqCst) >= 1_000_000, "the session is told");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_for_long_is_closed() {
        let (mut ours, _, _shutdown, task) = serve(1 << 20);
        ours.write_all(&requests(1)).await.unwrap();
        task.await.unwrap();
    }

    /// Answers nothing before the end of time.
    struct Silent(Arc<AtomicUsize>);

    impl Session for Silent {
        fn request(&mut self, _: Command<'_>, out: &mut Outbox) {
            self.0.fetch_add(1, Ordering::SeqCst);
            out.later(std::future::pending());
        }
        fn flush(&mut self, _: &mut Outbox) {}
        fn closed(&mut self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn large_requests_without_answers_are_not_read_without_end() {
        let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
        let nobody = ([127, 0, 0, 1], 1).into();
        let (peer, commands) = Peer::new(nobody, nobody);
        let served = Arc::new(AtomicUsize::new(0));
        let session = Silent(served.clone());
        tokio::spawn(run(theirs, Vec::new(), session, Arc::new(peer), commands, Shutdown::new()));
        let mut request = Vec::new();
        Command::request(1, &Empty {}).with_body(vec![0; 4 << 20]).encode(&mut request);
        let mut taken = 0;
        let sending = async {
            loop {
                ours.write_all(&request).await.unwrap();
                taken += 1;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), sending).await.is_err());
        assert!((4..=6).contains(&taken), "{taken} requests of 4 MiB were taken");
        assert!(served.load(Ordering::SeqCst) >= 4);
    }

    #[tokio::test]
    async fn who_asks_a_process_that_stops_is_told_to_go_elsewhere() {
        let (mut ours, _, shutdown, task) = serve(0);
        ours.write_all(&requests(1)).await.unwrap();
        let mut word = [0; 4];
        ours.read_exact(&mut word).await.unwrap();
        let mut frame = vec![0; u32::from_be_bytes(word) as usize];
        ours.read_exact(&mut frame).await.unwrap();
        shutdown.cancel();
        tokio::task::yield_now().await;
        let mut old = Command::request(1, &Empty {});
        old.version = version::V4_9_4;
        let mut bytes = Vec::new();
        old.encode(&mut bytes);
        bytes.extend(requests(1));
        ours.write_all(&bytes).await.unwrap();
        let mut answers = Vec::new();
        ours.read_to_end(&mut answers).await.unwrap();
        let len = frame::frame_len(&answers).unwrap().unwrap();
        assert_eq!(len, answers.len(), "the old client is not told what it does not know");
        let answer = Command::decode(&mut answers).unwrap();
        assert_eq!(answer.code, ReplyCode::GoAway.to_wire());
        task.await.unwrap();
    }

    #[tokio::test]
    async fn requests_of_one_read_are_all_answered_however_large_the_answers() {
        let (mut ours, served, _shutdown, _task) = serve(1 << 20);
        ours.write_all(&requests(20)).await.unwrap();
        let mut word = [0; 4];
        for _ in 0..20 {
            ours.read_exact(&mut word).await.unwrap();
            let mut frame = vec![0; u32::from_be_bytes(word) as usize];
            ours.read_exact(&mut frame).await.unwrap();
        }
        assert_eq!(served.load(Ordering::SeqCst), 20);
    }
}
