//! A request on its way to its answer: at once, when it is durable, from a thread, or later.

use std::sync::Arc;

use protocol::fields::Header;
use protocol::frame::Command;
use protocol::json;
use protocol::reply::{Refusal, ReplyCode};
use remoting::outbox::{Chunk, Outbox, ReplyTo};
use remoting::peer::Peer;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::broker::Broker;
use crate::registration;

/// A request with whoever asks and whoever is asked.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub broker: &'a Arc<Broker>,
    pub peer: &'a Arc<Peer>,
    pub request: &'a Command<'a>,
    pub to: ReplyTo,
    /// One permit for each answer of this connection that a thread works on, or that is not taken yet.
    pub threads: &'a Arc<Semaphore>,
}

/// Answers of one connection that may be worked on by threads at a time: they hold what they have read
/// until it is written, and share the threads with other connections.
pub const THREADS_PER_CONNECTION_MAX: usize = 32;

/// How most requests end.
pub type Outcome = Result<Command<'static>, Refusal>;

impl Context<'_> {
    /// The request's header.
    pub fn header<T: for<'f> Header<'f>>(&self) -> Result<T, Refusal> {
        Ok(self.request.fields.read()?)
    }

    /// The request's JSON body.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        json::read(&self.request.body).map_err(|error| {
            let remark = format!("the body of request {} is malformed: {error}", self.request.code);
            Refusal::new(ReplyCode::SystemError, remark)
        })
    }
}

/// Answers at once.
pub fn answer(
    context: &Context<'_>,
    out: &mut Outbox,
    handler: impl FnOnce(&Context<'_>) -> Outcome,
) {
    put(&mut out.now, context.to, handler(context));
}

/// Answers when what the request changed is as durable as the broker promises.
pub fn durably(
    context: &Context<'_>,
    out: &mut Outbox,
    handler: impl FnOnce(&Context<'_>) -> Outcome,
) {
    let before = context.broker.store.appended_position();
    let outcome = handler(context);
    let end = context.broker.store.appended_position();
    if outcome.is_err() || end == before || !context.broker.config.load().sync_flush {
        return put(&mut out.now, context.to, outcome);
    }
    let durable = context.broker.store.durable(end);
    later(context, out, async move {
        durable.await.map_err(not_durable)?;
        outcome
    });
}

/// The same for a change of topics, and when nameservers know of it.
pub fn announced(
    context: &Context<'_>,
    out: &mut Outbox,
    handler: impl FnOnce(&Context<'_>) -> Outcome,
) {
    let outcome = handler(context);
    if outcome.is_err() {
        return put(&mut out.now, context.to, outcome);
    }
    let broker = context.broker.clone();
    later(context, out, async move {
        if broker.config.load().sync_flush {
            let end = broker.store.appended_position();
            broker.store.durable(end).await.map_err(not_durable)?;
        }
        registration::caught_up(&broker).await;
        outcome
    });
}

fn not_durable(error: store::FlushError) -> Refusal {
    Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string())
}

/// Answers from a thread that may wait for the disk or compute for long.
pub fn blocking(
    context: &Context<'_>,
    out: &mut Outbox,
    handler: impl FnOnce(&Context<'_>) -> Outcome + Send + 'static,
) {
    later(context, out, on_thread(context, handler));
}

/// The outcome of work on a thread that may block.
fn on_thread(
    context: &Context<'_>,
    handler: impl FnOnce(&Context<'_>) -> Outcome + Send + 'static,
) -> impl Future<Output = Outcome> + Send + 'static {
    let (broker, peer, to) = (context.broker.clone(), context.peer.clone(), context.to);
    let (request, threads) = (context.request.clone().into_owned(), context.threads.clone());
    async move {
        let _permit = threads.acquire().await.expect("it is never closed");
        let shared = threads.clone();
        let work = tokio::task::spawn_blocking(move || {
            let threads = &shared;
            handler(&Context { broker: &broker, peer: &peer, request: &request, to, threads })
        });
        let defect = |_| crate::broker::defect();
        work.await.map_err(defect)?
    }
}

/// Both: computes or reads for long, and what it changed is durable when it answers.
pub fn blocking_durably(
    context: &Context<'_>,
    out: &mut Outbox,
    handler: impl FnOnce(&Context<'_>) -> Outcome + Send + 'static,
) {
    let broker = context.broker.clone();
    let before = broker.store.appended_position();
    let work = on_thread(context, handler);
    later(context, out, async move {
        let outcome = work.await?;
        // Not on the thread: when the disk hangs, others need the threads.
        let end = broker.store.appended_position();
        if end > before && broker.config.load().sync_flush {
            broker.store.durable(end).await.map_err(not_durable)?;
        }
        Ok(outcome)
    });
}

/// Answers when `outcome` is there.
pub fn later(
    context: &Context<'_>,
    out: &mut Outbox,
    outcome: impl Future<Output = Outcome> + Send + 'static,
) {
    let to = context.to;
    out.later(async move { chunk(to, outcome.await) });
}

fn chunk(to: ReplyTo, outcome: Outcome) -> Chunk {
    let mut chunk = Chunk::default();
    put(&mut chunk, to, outcome);
    chunk
}

fn put(chunk: &mut Chunk, to: ReplyTo, outcome: Outcome) {
    match outcome {
        Ok(reply) => chunk.answer(to, reply),
        Err(refusal) => chunk.refuse(to, &refusal),
    }
}
