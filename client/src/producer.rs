//! Sending: one message or many, in order, later, or when a transaction commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use protocol::grpc::telemetry_command::Command;
use protocol::grpc::{self, MessageType};
use remoting::clock;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use tracing::{Instrument as _, debug, debug_span, warn};

use crate::core::Core;
use crate::delivery::Delivery;
use crate::endpoints::Address;
use crate::error::{self, Error};
use crate::message::{Envelope, Message};
use crate::name::Topic;
use crate::options::Options;
use crate::route::{Queue, Route};
use crate::session::{Heard, Stub};
use crate::settings::{Agreed, Role};
use crate::transaction::{Resolution, Transaction};

/// How often a message is tried unless told otherwise.
const ATTEMPTS: u32 = 3;

type Checker = Arc<dyn Fn(Delivery) -> BoxFuture<'static, Resolution> + Send + Sync>;

/// Sends messages. Made by [`Producer::builder`]; can be shared between tasks.
#[derive(Debug)]
pub struct Producer {
    core: Arc<Core>,
    sent: AtomicUsize,
    compress_from: Option<usize>,
    transactional: bool,
    /// Ends the client's tasks when the producer is dropped without [`Producer::shutdown`].
    _end: DropGuard,
}

/// Builds a [`Producer`].
pub struct Builder {
    options: Options,
    topics: Result<Vec<Topic>, Error>,
    attempts_max: u32,
    compress_from: Option<usize>,
    checker: Option<Checker>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("topics", &self.topics).finish_non_exhaustive()
    }
}

/// What the server says of a message it has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    pub message_id: String,
    /// Where it lies in its queue.
    pub offset: i64,
    /// Takes a delayed message back; see [`Producer::recall`].
    pub recall_handle: Option<String>,
    pub(crate) transaction_id: String,
}

impl Producer {
    pub fn builder(options: Options) -> Builder {
        Builder {
            options,
            topics: Ok(Vec::new()),
            attempts_max: ATTEMPTS,
            compress_from: None,
            checker: None,
        }
    }

    /// Sends a message and waits until it is stored.
    pub async fn send(&self, message: &Message) -> Result<Receipt, Error> {
        let sent = self.send_all(std::slice::from_ref(message), message.kind()).await?;
        let (_, mut receipts) = sent;
        receipts.pop().unwrap_or_else(|| Err(Error::Answer("it has no entries".to_owned())))
    }

    /// Sends messages of one topic and one type in one request. Each has an outcome of its own.
    pub async fn send_batch(
        &self,
        messages: &[Message],
    ) -> Result<Vec<Result<Receipt, Error>>, Error> {
        let invalid = |why: &str| Error::invalid("the batch", why);
        let Some(first) = messages.first() else { return Err(invalid("it is empty")) };
        let (topic, kind, group) = (&first.topic, first.kind(), &first.message_group);
        if messages.iter().any(|message| message.topic != *topic) {
            return Err(invalid("it has messages of several topics"));
        }
        if messages.iter().any(|message| message.kind() != kind) {
            return Err(invalid("it has messages of several types"));
        }
        if messages.iter().any(|message| message.message_group != *group) {
            return Err(invalid("it has messages of several message groups"));
        }
        Ok(self.send_all(messages, kind).await?.1)
    }

    /// Sends a message that consumers see when the transaction is committed. The producer must have been built
    /// with a [`Builder::checker`], which the server asks if it is never told.
    pub async fn send_in_transaction(&self, message: &Message) -> Result<Transaction, Error> {
        let invalid = |why: &str| Error::invalid("the transaction", why);
        if !self.transactional {
            return Err(invalid("the producer has no checker"));
        }
        if message.kind() != MessageType::Normal {
            return Err(invalid("the message is ordered, delayed or has a priority"));
        }
        let messages = std::slice::from_ref(message);
        let (proxy, mut receipts) = self.send_all(messages, MessageType::Transaction).await?;
        let receipt =
            receipts.pop().ok_or_else(|| Error::Answer("it has no entries".to_owned()))?;
        let (core, topic) = (self.core.clone(), message.topic.clone());
        Ok(Transaction { core, proxy, topic, receipt: receipt? })
    }

    /// Takes a delayed message back that has not been delivered yet, by the handle of its receipt; gives its id.
    pub async fn recall(&self, topic: &Topic, recall_handle: &str) -> Result<String, Error> {
        let request = grpc::RecallMessageRequest {
            topic: Some(self.core.resource(topic.as_str())),
            recall_handle: recall_handle.to_owned(),
        };
        let call = |mut stub: Stub, request| async move {
            stub.recall_message(request).await.map(tonic::Response::into_inner)
        };
        let (_, answer) = self.core.call(&[], request, call).await?;
        error::check(answer.status.as_ref(), topic.as_str())?;
        Ok(answer.message_id)
    }

    /// Says good-bye and ends. Sends that are under way fail with [`Error::Closed`].
    pub async fn shutdown(self) {
        self.core.end().await;
    }

    async fn send_all(
        &self,
        messages: &[Message],
        kind: MessageType,
    ) -> Result<(Address, Vec<Result<Receipt, Error>>), Error> {
        let topic = &messages[0].topic;
        let span = debug_span!("send", %topic, messages = messages.len());
        async {
            self.announce(topic);
            let agreed = self.core.agreed();
            let route = self.core.route(topic).await?;
            check(messages, kind, &route, &agreed)?;
            let sealed: Vec<grpc::Message> =
                messages.iter().map(|message| self.seal(message, kind)).collect();
            self.try_all(topic, messages, sealed, &route, &agreed).await
        }
        .instrument(span)
        .await
    }

    /// Tells the proxies of a topic when it is first sent to.
    fn announce(&self, topic: &Topic) {
        self.core.change_role(|role| {
            if let Role::Producer { topics } = role
                && !topics.iter().any(|known| known == topic.as_str())
            {
                topics.push(topic.as_str().to_owned());
            }
        });
    }

    fn seal(&self, message: &Message, kind: MessageType) -> grpc::Message {
        Envelope {
            namespace: &self.core.options.namespace,
            hostname: &self.core.hostname,
            id: self.core.ids.next(),
            kind,
            now_ms: clock::now_ms(),
            compress_from: self.compress_from,
        }
        .seal(message)
    }

    async fn try_all(
        &self,
        topic: &Topic,
        messages: &[Message],
        mut sealed: Vec<grpc::Message>,
        route: &Route,
        agreed: &Agreed,
    ) -> Result<(Address, Vec<Result<Receipt, Error>>), Error> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let group = messages[0].message_group.as_deref();
        let transaction = sealed.iter().any(|message| {
            let system = message.system_properties.as_ref();
            system.is_some_and(|system| system.message_type() == MessageType::Transaction)
        });
        let mut failed: Vec<String> = Vec::new();
        let mut attempt = 1;
        loop {
            let queue = match group {
                Some(group) => route.queue_of_group(group),
                None => route.queue_in_turn(number + failed.len(), &failed),
            };
            let queue = queue.ok_or_else(|| Error::WrongMessageType {
                reason: format!("topic {topic} has no queue that can be written to"),
            })?;
            for message in &mut sealed {
                if let Some(system) = &mut message.system_properties {
                    system.queue_id = queue.id;
                }
            }
            let outcome = self.attempt(topic, queue, sealed.clone()).await;
            let error = match outcome {
                Ok((proxy, receipts)) => match receipts.iter().find_map(|one| one.clone().err()) {
                    // Of a batch, some may be stored: whoever sent it decides about the others.
                    Some(error) if receipts.len() == 1 && error.is_retryable() => error,
                    _ => return Ok((proxy, receipts)),
                },
                Err(error) => error,
            };
            // A second half of a transaction would have to be checked for nothing.
            if !error.is_retryable() || transaction || attempt >= agreed.retry.attempts_max {
                return Err(error);
            }
            debug!(%topic, attempt, %error, "trying again");
            failed.push(queue.broker.clone());
            // The first retry goes to another server at once, unless this one asked for patience.
            if attempt > 1 || matches!(error, Error::Throttled { .. }) {
                tokio::time::sleep(agreed.retry.backoff.after(attempt)).await;
            }
            attempt += 1;
        }
    }

    async fn attempt(
        &self,
        topic: &Topic,
        queue: &Queue,
        messages: Vec<grpc::Message>,
    ) -> Result<(Address, Vec<Result<Receipt, Error>>), Error> {
        let count = messages.len();
        let ids: Vec<String> = messages
            .iter()
            .map(|message| message.system_properties.as_ref())
            .map(|system| system.map(|system| system.message_id.clone()).unwrap_or_default())
            .collect();
        let request = grpc::SendMessageRequest { messages };
        let call = |mut stub: Stub, request| async move {
            stub.send_message(request).await.map(tonic::Response::into_inner)
        };
        let (proxy, answer) = self.core.call(&queue.proxies, request, call).await?;
        error::check(answer.status.as_ref(), topic.as_str())?;
        let receipt = |entry: grpc::SendResultEntry| {
            error::check(entry.status.as_ref(), topic.as_str())?;
            Ok(Receipt {
                message_id: entry.message_id,
                offset: entry.offset,
                recall_handle: Some(entry.recall_handle).filter(|handle| !handle.is_empty()),
                transaction_id: entry.transaction_id,
            })
        };
        let mut receipts: Vec<_> = answer.entries.into_iter().map(receipt).collect();
        if receipts.len() == 1 && count > 1 {
            // Stock proxies answer a batch with one entry for all.
            let one = receipts.remove(0);
            receipts = ids.into_iter().map(|id| with_id(&one, id)).collect();
        }
        if receipts.len() != count {
            return Err(Error::Answer(format!("{} entries for {count} messages", receipts.len())));
        }
        Ok((proxy, receipts))
    }
}

fn with_id(one: &Result<Receipt, Error>, message_id: String) -> Result<Receipt, Error> {
    one.clone().map(|receipt| Receipt { message_id, ..receipt })
}

/// What can be said against messages before they are sent.
fn check(
    messages: &[Message],
    kind: MessageType,
    route: &Route,
    agreed: &Agreed,
) -> Result<(), Error> {
    let max = agreed.body_bytes_max;
    if let Some(message) = messages.iter().find(|message| message.body.len() > max) {
        let why = format!("it has {} bytes, the server takes {max}", message.body.len());
        return Err(Error::invalid("the body", why));
    }
    if agreed.validate_message_type && !route.accepts(kind) {
        let reason =
            format!("{} takes no messages of type {}", messages[0].topic, kind.as_str_name());
        return Err(Error::WrongMessageType { reason });
    }
    Ok(())
}

impl Builder {
    /// A topic that will be sent to: its route is fetched, and checked to exist, before the producer is ready.
    pub fn topic(mut self, topic: &str) -> Self {
        self.topics = self.topics.and_then(|mut topics| {
            topics.push(Topic::new(topic)?);
            Ok(topics)
        });
        self
    }

    /// How often a message is tried, unless the server says otherwise.
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts.max(1);
        self
    }

    /// Compress bodies of at least so many bytes with GZIP; none are unless this is given.
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.compress_from = Some(bytes);
        self
    }

    /// Tells what became of a transaction whose producer never said. The message comes as it was sent.
    pub fn checker<F, R>(mut self, check: F) -> Self
    where
        F: Fn(Delivery) -> R + Send + Sync + 'static,
        R: Future<Output = Resolution> + Send + 'static,
    {
        self.checker = Some(Arc::new(move |delivery| check(delivery).boxed()));
        self
    }

    /// Connects, and waits until a server has answered.
    pub async fn start(self) -> Result<Producer, Error> {
        let topics = self.topics?;
        let names = topics.iter().map(|topic| topic.as_str().to_owned()).collect();
        let role = Role::Producer { topics: names };
        let before = Agreed::before(self.attempts_max);
        let (core, asked) = Core::start(self.options, role, before, None).await?;
        let end = core.stop.clone().drop_guard();
        core.learn(&topics).await?;
        let transactional = self.checker.is_some();
        if let Some(checker) = self.checker {
            core.tasks.spawn(recover(core.clone(), asked, checker));
        }
        Ok(Producer {
            core,
            sent: AtomicUsize::new(rand::random::<u16>().into()),
            compress_from: self.compress_from,
            transactional,
            _end: end,
        })
    }
}

/// Answers the server's questions about transactions, one after the other.
async fn recover(core: Arc<Core>, mut asked: mpsc::Receiver<Heard>, checker: Checker) {
    loop {
        let heard = tokio::select! {
            heard = asked.recv() => heard,
            () = core.stop.cancelled() => return,
        };
        let Some(Heard { proxy, command, .. }) = heard else { return };
        let Command::RecoverOrphanedTransactionCommand(command) = command else { continue };
        let Some(message) = command.message else { continue };
        let (delivery, damage) = Delivery::open(message, &proxy);
        if let Some(damage) = damage {
            warn!(message_id = delivery.message_id, %damage, "a transaction's message is damaged");
            continue;
        }
        let receipt = Receipt {
            message_id: delivery.message_id.clone(),
            offset: delivery.queue_offset,
            recall_handle: None,
            transaction_id: command.transaction_id,
        };
        let (topic, id) = (delivery.topic.clone(), delivery.message_id.clone());
        let checked = std::panic::AssertUnwindSafe(checker(delivery)).catch_unwind().await;
        let Ok(resolution) = checked else {
            warn!(message_id = id, "the checker panicked; the server will ask again");
            continue;
        };
        debug!(message_id = id, ?resolution, "an orphaned transaction");
        let transaction = Transaction { core: core.clone(), proxy, topic, receipt };
        let source = grpc::TransactionSource::SourceServerCheck;
        if let Err(error) = transaction.resolve(resolution, source).await {
            warn!(message_id = id, %error, "a transaction could not be ended; the server will ask again");
        }
    }
}
