//! A connection within one process: requests go straight to a session, without a socket and without frames;
//! only what the session writes as frames, its answers, is read as such.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use protocol::frame::{self, Command};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::connection::Session;
use crate::outbox::{Chunk, Later, Outbox};
use crate::peer::{CallError, Peer};
use crate::process::Shutdown;
use crate::server::Service;

/// Requests that wait for the session.
const WAITING_MAX: usize = 4096;
/// Requests served as one group.
const GROUP_MAX: usize = 256;

/// The caller's end.
#[derive(Debug, Clone)]
pub struct Inside {
    requests: mpsc::Sender<Asked>,
    opaques: Arc<AtomicI32>,
}

#[derive(Debug)]
struct Asked {
    request: Command<'static>,
    /// Nobody waits for the answer to a one-way request.
    answer: Option<oneshot::Sender<Command<'static>>>,
}

/// Nobody is anywhere: this is what such a peer's address says.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Inside {
    /// Opens a session of `service`; what it pushes to its peer comes out of the receiver.
    pub fn open<S: Service>(
        service: &Arc<S>,
        shutdown: Shutdown,
    ) -> (Self, mpsc::Receiver<Command<'static>>) {
        let (peer, pushed) = Peer::new(NOWHERE, NOWHERE);
        let peer = Arc::new(peer);
        let session = service.open(&peer);
        let (requests, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            let mut serving = Serving {
                session,
                waiting: HashMap::new(),
                out: Outbox::default(),
                later: FuturesUnordered::new(),
            };
            // A defect ends this connection as it would any other.
            if AssertUnwindSafe(serving.run(asked, shutdown)).catch_unwind().await.is_err() {
                error!("a connection within the process met a defect");
            }
            peer.close();
            serving.session.closed();
        });
        (Self { requests, opaques: Arc::default() }, pushed)
    }

    /// Asks and waits for the answer.
    pub async fn call(
        &self,
        mut request: Command<'static>,
        timeout: Duration,
    ) -> Result<Command<'static>, CallError> {
        request.opaque = self.opaques.fetch_add(1, Ordering::Relaxed);
        let oneway = request.is_oneway();
        let (answer, answered) = oneshot::channel();
        let asked = Asked { request, answer: (!oneway).then_some(answer) };
        self.requests.send(asked).await.map_err(|_| CallError::Closed(NOWHERE))?;
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(CallError::Closed(NOWHERE)),
            Err(_) => Err(CallError::Timeout { address: NOWHERE, timeout }),
        }
    }
}

struct Serving<S> {
    session: S,
    waiting: HashMap<i32, oneshot::Sender<Command<'static>>>,
    out: Outbox,
    later: FuturesUnordered<Later>,
}

impl<S: Session> Serving<S> {
    async fn run(&mut self, mut asked: mpsc::Receiver<Asked>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Some(chunk) = self.later.next(), if !self.later.is_empty() => self.answer(chunk),
                first = asked.recv() => {
                    let Some(first) = first else { return };
                    // Whoever else is about to ask asks now, and shares one append.
                    tokio::task::yield_now().await;
                    self.serve(first, &mut asked).await;
                }
            }
        }
    }

    async fn serve(&mut self, first: Asked, asked: &mut mpsc::Receiver<Asked>) {
        let mut next = Some(first);
        let mut count = 0;
        while let Some(Asked { request, answer }) = next {
            // Those that were given up are not looked for any more.
            if self.waiting.len() > 2 * WAITING_MAX {
                self.waiting.retain(|_, waiting| !waiting.is_closed());
            }
            if let Some(answer) = answer {
                self.waiting.insert(request.opaque, answer);
            }
            self.session.request(request, &mut self.out);
            count += 1;
            next = if count < GROUP_MAX && self.out.pause.is_none() {
                asked.try_recv().ok()
            } else {
                None
            };
        }
        self.session.flush(&mut self.out);
        while let Some(pause) = self.out.pause.take() {
            pause.await;
            self.session.flush(&mut self.out);
        }
        self.later.extend(self.out.later.drain(..).map(|(_, later)| later));
        let now = std::mem::take(&mut self.out.now);
        self.answer(now);
    }

    /// Gives the answers in a chunk to those who wait for them.
    fn answer(&mut self, chunk: Chunk) {
        let mut bytes = chunk.into_bytes();
        let mut rest = bytes.as_mut_slice();
        while let Ok(Some(len)) = frame::frame_len(rest) {
            let (one, after) = rest.split_at_mut(len);
            rest = after;
            let Ok(reply) = Command::decode(one) else {
                error!("a session wrote what cannot be read");
                return;
            };
            if let Some(waiting) = self.waiting.remove(&reply.opaque) {
                // Whoever asked may have given up in this very moment.
                let _ = waiting.send(reply.into_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::header::Empty;

    use super::*;
    use crate::outbox::ReplyTo;

    /// Answers with the body it got; odd codes later.
    struct Echo;

    impl Session for Echo {
        fn request(&mut self, request: Command<'_>, out: &mut Outbox) {
            let (to, body) = (ReplyTo::new(&request), Bytes::from(request.body.into_owned()));
            if request.code % 2 == 0 {
                return out.now.reply(to, &Empty {}, &[body]);
            }
            out.later(async move {
                tokio::task::yield_now().await;
                let mut chunk = Chunk::default();
                chunk.reply(to, &Empty {}, &[body]);
                chunk
            });
        }
        fn flush(&mut self, _: &mut Outbox) {}
        fn closed(&mut self) {}
    }

    struct Echoes;

    impl Service for Echoes {
        type Session = Echo;
        fn open(self: &Arc<Self>, _: &Arc<Peer>) -> Echo {
            Echo
        }
    }

    #[tokio::test]
    async fn everybody_gets_the_answer_to_what_was_asked() {
        let (inside, _pushed) = Inside::open(&Arc::new(Echoes), Shutdown::new());
        let ask = async |code: i32| {
            let body = vec![code as u8; code as usize * 100];
            let request = Command::request(code, &Empty {}).with_body(body.clone());
            let reply = inside.call(request, Duration::from_secs(5)).await.unwrap();
            assert_eq!(reply.body.as_ref(), body);
        };
        futures_util::future::join_all((1..100).map(ask)).await;
    }

    #[tokio::test]
    async fn after_the_end_nobody_waits() {
        let shutdown = Shutdown::new();
        let (inside, _pushed) = Inside::open(&Arc::new(Echoes), shutdown.clone());
        shutdown.cancel();
        let request = Command::request(2, &Empty {});
        assert!(inside.call(request, Duration::from_secs(5)).await.is_err());
    }
}
