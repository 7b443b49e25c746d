//! The finished parts of a proxy, and the few steps that several requests share.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use parking_lot::Mutex;
use protocol::grpc::{Code, MessageType, TelemetryCommand};
use protocol::header::pop::ChangeInvisibleTimeReply;
use remoting::clock;
use remoting::process::Shutdown;
use tokio::sync::Notify;
use tracing::debug;

use crate::backend::Backend;
use crate::backend::faults::Faults;
use crate::backend::route::Route;
use crate::clients::Clients;
use crate::config::Config;
use crate::grpc::status::Failure;
use crate::handle::Handle;
use crate::receipts::{Left, Receipts, Settled};

/// One proxy.
#[derive(Debug)]
pub struct Front {
    pub config: Config,
    pub backend: Backend,
    pub clients: Clients,
    pub faults: Faults,
    pub receipts: Mutex<Receipts>,
    /// Set off when a renewal has ended.
    pub renewed: Notify,
    /// Whose turn it is among equals: queues, brokers, producers.
    pub turn: AtomicUsize,
    pub stats: Stats,
    pub started_ms: i64,
    /// As brokers know us.
    pub own_id: String,
    /// The process ends: nobody waits for messages any more.
    pub ending: Shutdown,
}

/// What a proxy counts.
#[derive(Debug, Default)]
pub struct Stats {
    pub connections: AtomicU64,
    pub messages_in: AtomicU64,
    pub messages_out: AtomicU64,
    /// Messages a second, in and out, over the last period.
    pub rates: Mutex<(f64, f64)>,
    sampled: Mutex<Option<(Instant, u64, u64)>>,
}

/// Rates are worked out over no less than this.
const SAMPLE_MIN: Duration = Duration::from_secs(5);

impl Stats {
    /// Works out the rates since this was called last, if that is long enough ago.
    pub fn sample(&self, at: Instant) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let now = (at, read(&self.messages_in), read(&self.messages_out));
        let mut sampled = self.sampled.lock();
        let before = *sampled.get_or_insert(now);
        let seconds = at.duration_since(before.0);
        if seconds >= SAMPLE_MIN {
            let rate = |now: u64, before: u64| (now - before) as f64 / seconds.as_secs_f64();
            *self.rates.lock() = (rate(now.1, before.1), rate(now.2, before.2));
            *sampled = Some(now);
        }
    }
}

/// How long an acknowledgement waits for renewals of its receipts: clients wait for three seconds, and the
/// broker has to answer within what is left.
const RENEWAL_WAIT: Duration = Duration::from_secs(1);

/// How soon messages come back whose consumer is gone.
pub const RETURN_MS: i64 = 1000;

/// Receipts of one broker that are renewed or given back at the same time.
pub const AT_ONCE_MAX: usize = 32;

impl Front {
    /// A proxy before `backend`.
    pub fn new(config: Config, backend: Backend, ending: Shutdown) -> Arc<Self> {
        let own_id = format!("ferromq-proxy@{}@{}", config.name, std::process::id());
        Arc::new(Self {
            own_id,
            ending,
            config,
            backend,
            clients: Clients::default(),
            faults: Faults::default(),
            receipts: Mutex::default(),
            renewed: Notify::new(),
            turn: AtomicUsize::new(0),
            stats: Stats::default(),
            started_ms: clock::now_ms(),
        })
    }

    /// Where a topic is; a topic that is nowhere is an error of the client.
    pub async fn route(&self, topic: &str) -> Result<Arc<Route>, Failure> {
        let route = self.backend.route(topic).await?;
        route.ok_or_else(|| {
            Failure::new(Code::TopicNotFound, format!("there is no topic `{topic}`"))
        })
    }

    /// What kinds of messages a topic takes, by its attribute `message.type`.
    pub async fn accepted(&self, topic: &str) -> Vec<MessageType> {
        let Ok(Some(config)) = self.backend.topic(topic).await else {
            return vec![MessageType::Unspecified];
        };
        let attributes = &config.attributes;
        let named = attributes.get("message.type").or_else(|| attributes.get("+message.type"));
        accepted(named.map(String::as_str))
    }

    /// The newest handles of messages whose receipts may have been renewed; renewed no more from here on.
    /// One whose renewal does not end stays what it is, and its client may ask again.
    pub async fn settle(
        &self,
        client: &str,
        group: &str,
        handles: &[&str],
    ) -> Vec<Result<String, Failure>> {
        let message = "the receipt is being renewed and its broker does not answer";
        let busy = || Err(Failure::new(Code::ProxyTimeout, message));
        let mut newest: Vec<Result<String, Failure>> = vec![busy(); handles.len()];
        let waiting = async {
            loop {
                let mut renewed = pin!(self.renewed.notified());
                // From here on no renewal ends unseen.
                renewed.as_mut().enable();
                let mut settled = true;
                {
                    let mut receipts = self.receipts.lock();
                    let open = newest.iter_mut().zip(handles).filter(|(newest, _)| newest.is_err());
                    for (newest, handle) in open {
                        match receipts.settle(client, group, handle) {
                            Settled::Unknown => *newest = Ok((*handle).to_owned()),
                            Settled::Now(handle) => *newest = Ok(handle),
                            Settled::Busy => settled = false,
                        }
                    }
                }
                if settled {
                    break;
                }
                renewed.await;
            }
        };
        // Those that are not open any more are of use without the others.
        let _ = tokio::time::timeout(RENEWAL_WAIT, waiting).await;
        newest
    }

    /// The same for one message.
    pub async fn settle_one(
        &self,
        client: &str,
        group: &str,
        handle: &str,
    ) -> Result<String, Failure> {
        let mut newest = self.settle(client, group, &[handle]).await;
        newest.pop().expect("as many as handles")
    }

    /// Acknowledges messages, each broker's at once; as many outcomes as handles.
    pub async fn ack(
        &self,
        group: &str,
        topic: &str,
        handles: &[Handle<'_>],
    ) -> Vec<Result<(), Failure>> {
        let mut outcomes: Vec<Result<(), Failure>> = vec![Ok(()); handles.len()];
        let mut done = vec![false; handles.len()];
        while let Some(first) = done.iter().position(|done| !done) {
            let broker = handles[first].broker;
            let places: Vec<usize> =
                (first..handles.len()).filter(|at| handles[*at].broker == broker).collect();
            let of_broker: Vec<Handle<'_>> = places.iter().map(|at| handles[*at]).collect();
            let answers = self.backend.ack(broker, group, topic, &of_broker).await;
            for (place, answer) in places.into_iter().zip(answers) {
                done[place] = true;
                outcomes[place] = answer.map_err(settling);
            }
        }
        outcomes
    }

    /// Hides a message for `invisible_ms` from now on, and gives the new handle.
    pub async fn hide(
        &self,
        group: &str,
        topic: &str,
        handle: &Handle<'_>,
        invisible_ms: i64,
        suspend: bool,
    ) -> Result<String, Failure> {
        let reply = self.backend.hide(group, topic, handle, invisible_ms, suspend).await;
        let ChangeInvisibleTimeReply { pop_time, invisible_time, revive_qid } =
            reply.map_err(settling)?;
        Ok(handle.renewed(pop_time, invisible_time, revive_qid))
    }

    /// Gives messages back that their consumers have left or never got: every broker's at the same time.
    pub async fn give_back(&self, left: Vec<Left>) {
        let mut by_broker: HashMap<String, Vec<Left>> = HashMap::new();
        for left in left {
            if let Ok(handle) = Handle::parse(&left.handle) {
                by_broker.entry(handle.broker.to_owned()).or_default().push(left);
            }
        }
        join_all(by_broker.into_values().map(|left| self.give_back_to_one(left))).await;
    }

    async fn give_back_to_one(&self, left: Vec<Left>) {
        let each = |left| self.return_message(left);
        stream::iter(left).for_each_concurrent(AT_ONCE_MAX, each).await;
    }

    async fn return_message(&self, Left { group, topic, handle }: Left) {
        let Ok(handle) = Handle::parse(&handle) else { return };
        if let Err(failure) = self.hide(&group, &topic, &handle, RETURN_MS, false).await {
            debug!(group, topic, %failure, "a message comes back only after its time");
        }
    }

    /// Tells a client something on its stream.
    pub fn tell(&self, client_id: &str, command: TelemetryCommand) -> bool {
        self.clients.tell(client_id, command)
    }
}

/// What the attribute `message.type` stands for; topics without it are for plain messages.
pub fn accepted(attribute: Option<&str>) -> Vec<MessageType> {
    match attribute {
        None | Some("NORMAL") => vec![MessageType::Normal],
        Some("FIFO") => vec![MessageType::Fifo],
        Some("DELAY") => vec![MessageType::Delay],
        Some("TRANSACTION") => vec![MessageType::Transaction],
        Some("LITE") => vec![MessageType::Lite],
        Some("PRIORITY") => vec![MessageType::Priority],
        Some("MIXED") => vec![
            MessageType::Normal,
            MessageType::Fifo,
            MessageType::Delay,
            MessageType::Transaction,
        ],
        Some(_) => vec![MessageType::Unspecified],
    }
}

/// What a broker's refusal to settle means: a message it does not hold under this handle.
fn settling(failed: remoting::pool::Failed) -> Failure {
    use protocol::reply::ReplyCode;
    use remoting::pool::Failed;
    match &failed {
        Failed::Refused { code, remark }
            if [
                ReplyCode::NoMessage,
                ReplyCode::MessageIllegal,
                ReplyCode::InvalidParameter,
                ReplyCode::BrokerNotExist,
            ]
            .iter()
            .any(|known| known.to_wire() == *code) =>
        {
            Failure::new(Code::InvalidReceiptHandle, remark.clone())
        }
        _ => failed.into(),
    }
}
