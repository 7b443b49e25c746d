//! A consumer that calls a listener with each message, and settles it by what the listener says.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::RwLock;
use protocol::grpc::telemetry_command::Command;
use protocol::grpc::{self, Code};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::core::{self, Core};
use crate::delivery::Delivery;
use crate::error::{self, Error};
use crate::name::{Group, Topic};
use crate::options::Options;
use crate::session::{Heard, Stub};
use crate::settings::{Agreed, Filter, Role};
use crate::simple::consumer_role;
use cache::{Amount, Cache};
use consume::{Consumption, Listener};
use queue::Reader;

mod cache;
mod consume;
mod queue;

const ASSIGNMENTS_EVERY: Duration = Duration::from_secs(5);
const CACHED_MESSAGES: usize = 1024;
const CACHED_BYTES: usize = 64 << 20;
const CONCURRENCY: usize = 20;
/// How long a shutdown waits for listeners.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);
/// How often a message is delivered before the server says how often.
const ATTEMPTS: u32 = 17;

/// What a listener says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done with and does not come again.
    Success,
    /// It comes again later; after too many attempts it becomes a dead letter.
    Failure,
}

/// Calls a listener with each message. Made by [`PushConsumer::builder`].
///
/// Messages of an ordered group ("FIFO", as the group was created at the server) are given one after the other
/// within each message group; those of any other group come as they are, several at once.
#[derive(Debug)]
pub struct PushConsumer {
    core: Arc<Core>,
    subscriptions: Arc<RwLock<BTreeMap<Topic, Filter>>>,
    /// Told when the subscriptions have changed.
    changed: Arc<Notify>,
    receiving: CancellationToken,
    consuming: TaskTracker,
    shutdown_patience: Duration,
    /// Ends the client's tasks when the consumer is dropped without [`PushConsumer::shutdown`].
    _end: DropGuard,
}

/// Builds a [`PushConsumer`].
pub struct Builder {
    options: Options,
    group: Result<Group, Error>,
    subscriptions: Result<BTreeMap<Topic, Filter>, Error>,
    limits: Amount,
    concurrency: usize,
    shutdown_patience: Duration,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("group", &self.group).finish_non_exhaustive()
    }
}

impl PushConsumer {
    pub fn builder(options: Options, group: &str) -> Builder {
        Builder {
            options,
            group: Group::new(group),
            subscriptions: Ok(BTreeMap::new()),
            limits: Amount { messages: CACHED_MESSAGES, bytes: CACHED_BYTES },
            concurrency: CONCURRENCY,
            shutdown_patience: SHUTDOWN_PATIENCE,
        }
    }

    /// Adds a topic, or changes what is wanted of it.
    pub async fn subscribe(&self, topic: &str, filter: Filter) -> Result<(), Error> {
        let topic = Topic::new(topic)?;
        self.core.route(&topic).await?;
        self.subscriptions.write().insert(topic, filter);
        self.tell();
        Ok(())
    }

    /// Receives no more of a topic; what has come is still consumed.
    pub fn unsubscribe(&self, topic: &Topic) {
        self.subscriptions.write().remove(topic);
        self.tell();
    }

    fn tell(&self) {
        self.core.change_role(|role| {
            if let Role::Consumer { subscriptions, .. } = role {
                let named = self.subscriptions.read();
                let named = named.iter().map(|(topic, filter)| (topic.to_string(), filter.clone()));
                *subscriptions = named.collect();
            }
        });
        self.changed.notify_one();
    }

    /// Receives no more, waits for the listeners to finish what has come, says good-bye and ends. What is not
    /// finished within [`Builder::shutdown_patience`] comes again, here or elsewhere.
    pub async fn shutdown(self) {
        self.receiving.cancel();
        self.consuming.close();
        let patience = self.shutdown_patience;
        if tokio::time::timeout(patience, self.consuming.wait()).await.is_err() {
            warn!(messages = self.consuming.len(), "not all messages were consumed in time");
        }
        self.core.end().await;
    }
}

impl Builder {
    /// A topic to receive, and what is wanted of it.
    pub fn subscribe(mut self, topic: &str, filter: Filter) -> Self {
        self.subscriptions = self.subscriptions.and_then(|mut subscriptions| {
            subscriptions.insert(Topic::new(topic)?, filter);
            Ok(subscriptions)
        });
        self
    }

    /// Messages held at most that have not been consumed; the queues share them.
    pub fn cached_messages_max(mut self, messages: usize) -> Self {
        self.limits.messages = messages.max(1);
        self
    }

    /// Bytes of bodies held at most, and one receive more; the queues share them.
    pub fn cached_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes.max(1);
        self
    }

    /// Calls of the listener that run at once.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = calls.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long a shutdown waits for listeners.
    pub fn shutdown_patience(mut self, patience: Duration) -> Self {
        self.shutdown_patience = patience;
        self
    }

    /// Connects, and calls `listener` with each message from then on. A listener that panics has failed.
    pub async fn start<F, R>(self, listener: F) -> Result<PushConsumer, Error>
    where
        F: Fn(Arc<Delivery>) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let listener: Listener = Arc::new(move |delivery| listener(delivery).boxed());
        let (group, subscriptions) = (self.group?, self.subscriptions?);
        let role = consumer_role(true, &group, &subscriptions);
        let before = Agreed::before(ATTEMPTS);
        let (core, asked) = Core::start(self.options, role, before, None).await?;
        let end = core.stop.clone().drop_guard();
        core.learn(subscriptions.keys()).await?;
        let (acks, done) = mpsc::channel(self.limits.messages.min(CACHED_MESSAGES));
        let consuming = TaskTracker::new();
        let consumption = Consumption {
            core: core.clone(),
            group,
            listener,
            permits: Arc::new(Semaphore::new(self.concurrency)),
            tasks: consuming.clone(),
            acks,
        };
        let subscriptions = Arc::new(RwLock::new(subscriptions));
        let changed = Arc::new(Notify::new());
        let receiving = core.stop.child_token();
        core.tasks.spawn(consumption.clone().acknowledge_all(done));
        core.tasks.spawn(verify(consumption.clone(), asked));
        let assignments = Assignments {
            consumption,
            subscriptions: subscriptions.clone(),
            limits: self.limits,
            stop: receiving.clone(),
            queues: Arc::default(),
            readers: HashMap::new(),
        };
        core.tasks.spawn(assignments.keep(changed.clone()));
        Ok(PushConsumer {
            core,
            subscriptions,
            changed,
            receiving,
            consuming,
            shutdown_patience: self.shutdown_patience,
            _end: end,
        })
    }
}

/// A queue by its topic, broker and number.
type Key = (Topic, String, i32);

/// Which queues are read.
struct Assignments {
    consumption: Consumption,
    subscriptions: Arc<RwLock<BTreeMap<Topic, Filter>>>,
    limits: Amount,
    stop: CancellationToken,
    /// How many queues share the limits.
    queues: Arc<AtomicUsize>,
    readers: HashMap<Key, (Filter, CancellationToken)>,
}

impl Assignments {
    async fn keep(mut self, changed: Arc<Notify>) {
        let mut next = tokio::time::interval(ASSIGNMENTS_EVERY);
        loop {
            tokio::select! {
                _ = next.tick() => {}
                () = changed.notified() => {}
                () = self.stop.cancelled() => return,
            }
            let wanted = self.subscriptions.read().clone();
            self.stop_readers(|key, filter| wanted.get(&key.0) == Some(filter));
            for (topic, filter) in wanted {
                match self.ask(&topic).await {
                    Ok(queues) => self.assign(&topic, &filter, queues),
                    Err(Error::Closed) => return,
                    Err(error) => warn!(%topic, %error, "the assignment stays as it was"),
                }
            }
        }
    }

    async fn ask(&self, topic: &Topic) -> Result<Vec<grpc::MessageQueue>, Error> {
        let core = &self.consumption.core;
        let request = grpc::QueryAssignmentRequest {
            topic: Some(core.resource(topic.as_str())),
            group: Some(core.resource(self.consumption.group.as_str())),
            endpoints: Some(core.options.endpoints.to_wire()),
        };
        let call = |mut stub: Stub, request| async move {
            stub.query_assignment(request).await.map(tonic::Response::into_inner)
        };
        let (_, answer) = core.call(&[], request, call).await?;
        error::check(answer.status.as_ref(), topic.as_str())?;
        Ok(answer.assignments.into_iter().filter_map(|one| one.message_queue).collect())
    }

    /// Starts readers of queues that are new, and stops those of queues that others have now.
    fn assign(&mut self, topic: &Topic, filter: &Filter, queues: Vec<grpc::MessageQueue>) {
        let keyed: HashMap<Key, grpc::MessageQueue> = queues
            .into_iter()
            .map(|queue| {
                let broker = queue.broker.clone().unwrap_or_default().name;
                ((topic.clone(), broker, queue.id), queue)
            })
            .collect();
        self.stop_readers(|key, _| key.0 != *topic || keyed.contains_key(key));
        for (key, queue) in keyed {
            if self.readers.contains_key(&key) {
                continue;
            }
            info!(%topic, broker = key.1, queue = key.2, "reading a queue");
            let stop = self.stop.child_token();
            self.readers.insert(key, (filter.clone(), stop.clone()));
            let reader = Reader {
                consumption: self.consumption.clone(),
                queue,
                filter: filter.clone(),
                limits: self.limits,
                queues: self.queues.clone(),
                cache: Arc::new(Cache::default()),
                stop,
            };
            self.consumption.core.tasks.spawn(reader.run());
        }
        self.queues.store(self.readers.len(), Ordering::Relaxed);
    }

    fn stop_readers(&mut self, stays: impl Fn(&Key, &Filter) -> bool) {
        self.readers.retain(|key, (filter, stop)| {
            let stays = stays(key, filter);
            if !stays {
                debug!(topic = %key.0, broker = key.1, queue = key.2, "reading the queue no more");
                stop.cancel();
            }
            stays
        });
        self.queues.store(self.readers.len(), Ordering::Relaxed);
    }
}

/// Has the listener try messages that an operator sends, and tells how it went.
async fn verify(consumption: Consumption, mut asked: mpsc::Receiver<Heard>) {
    loop {
        let heard = tokio::select! {
            heard = asked.recv() => heard,
            () = consumption.core.stop.cancelled() => return,
        };
        let Some(heard) = heard else { return };
        let Command::VerifyMessageCommand(command) = &heard.command else { continue };
        let result = grpc::VerifyMessageResult { nonce: command.nonce.clone() };
        let message = command.message.clone().unwrap_or_default();
        let (delivery, damage) = Delivery::open(message, &heard.proxy);
        let code = match (consumption.core.agreed().fifo, damage) {
            (true, _) => Code::VerifyFifoMessageUnsupported,
            (false, Some(_)) => Code::MessageCorrupted,
            (false, None) => match consumption.listen(&Arc::new(delivery)).await {
                Outcome::Success => Code::Ok,
                Outcome::Failure => Code::FailedToConsumeMessage,
            },
        };
        core::answer(&heard, code, Command::VerifyMessageResult(result));
    }
}
