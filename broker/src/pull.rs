//! PULL: what a consumer may read, from which offset, and what it is told when there is nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::body::MessageModel;
use protocol::frame::Head;
use protocol::header::pull::{PullMessage, PullMessageReply};
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use remoting::outbox::{Chunk, Outbox, ReplyTo};
use store::{Access, Limits, QueueRef, Read, Status};
use tokio::sync::Semaphore;

use crate::answer::Context;
use crate::broker::Broker;
use crate::filter::Wanted;
use crate::groups::FORBIDDEN_READ;
use crate::stats::kind;
use crate::topics::perm;

/// Units of a queue looked at for one pull that filters.
const SCAN_MAX: usize = 4096;
/// How long a pull may wait, whatever it asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Bits of `sysFlag`.
mod flag {
    pub(super) const COMMIT: i32 = 1;
    pub(super) const SUSPEND: i32 = 2;
    pub(super) const SUBSCRIPTION: i32 = 4;
}

/// Which rule forbade a pull.
mod forbidden {
    pub(super) const BROKER: i32 = 1;
    pub(super) const GROUP: i32 = 2;
    pub(super) const TOPIC: i32 = 3;
    pub(super) const BROADCAST: i32 = 4;
    pub(super) const SUBSCRIPTION: i32 = 5;
}

/// A pull that may be served.
#[derive(Debug)]
struct Pull {
    broker: Arc<Broker>,
    request: PullMessage,
    to: ReplyTo,
    queue: QueueRef,
    wanted: Wanted,
    suggest_broker_id: i64,
    threads: Arc<Semaphore>,
}

/// Why a pull is refused, with the rule for those clients that look.
struct Refused(Refusal, Option<i32>);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal, None)
    }
}

/// Codes 11 and 361.
pub fn pull(context: &Context<'_>, out: &mut Outbox) {
    let to = context.to;
    let pull = match check(context) {
        Ok(pull) => pull,
        Err(Refused(refusal, kind)) => {
            let mut head = Head::reply(refusal.code, to.opaque, to.encoding);
            head.remark = Some(&refusal.remark);
            let header = PullMessageReply { forbidden_type: kind, ..empty_reply() };
            if kind.is_none() {
                out.now.refuse(to, &refusal);
            } else if !to.oneway {
                out.now.frame(&head, |sink| protocol::fields::Header::write(&header, sink), &[]);
            }
            return;
        }
    };
    pull.commit();
    if pull.follow_reset(&mut out.now) {
        return;
    }
    match pull.read(pull.request.queue_offset, Access::Cached) {
        Ok(read) if read.status == Status::Cold => out.later(pull.read_cold()),
        Ok(read) if pull.should_wait(&read) => match pull.broker.waiting.enter(pull.queue) {
            Some(ticket) => out.later(pull.wait(ticket)),
            None => pull.answer(&mut out.now, &read),
        },
        Ok(read) => pull.answer(&mut out.now, &read),
        Err(refusal) => out.now.refuse(to, &refusal),
    }
}

fn check(context: &Context<'_>) -> Result<Pull, Refused> {
    let broker = context.broker;
    let request: PullMessage = context.header()?;
    let config = broker.config.load();
    let PullMessage { consumer_group: group, topic: topic_name, queue_id, .. } = &request;
    let deny = |remark: String, kind| {
        Err(Refused(Refusal::new(ReplyCode::NoPermission, remark), Some(kind)))
    };
    let ip = config.advertised_ip;
    if !perm::may_read(config.permission) {
        return deny(format!("the broker[{ip}] pulling message is forbidden"), forbidden::BROKER);
    }
    if context.request.code == 361 && !config.lite_pull {
        let remark = format!("the broker[{ip}] for lite pull consumer is forbidden");
        return deny(remark, forbidden::BROKER);
    }
    let group_config = broker.group(group)?;
    if !group_config.consume_enable {
        return deny(format!("subscription group no permission, {group}"), forbidden::GROUP);
    }
    let topic = broker.topic(topic_name)?;
    if !perm::may_read(topic.config.perm) {
        let remark = format!("the topic[{topic_name}] pulling message is forbidden");
        return deny(remark, forbidden::TOPIC);
    }
    let readable = topic.config.read_queue_nums;
    if !(0..readable).contains(queue_id) {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{topic_name}] topicConfig.readQueueNums:[{readable}] \
             consumer:[{}]",
            context.peer.remote
        );
        return Err(Refusal::new(ReplyCode::InvalidParameter, remark).into());
    }
    let by_properties = broker.config.load().property_filter;
    let wanted = if request.sys_flag & flag::SUBSCRIPTION != 0 {
        let kind = request.expression_type.as_deref().unwrap_or("TAG");
        let text = request.subscription.as_deref().unwrap_or("*");
        Wanted::parse(kind, text, by_properties)?
    } else {
        let missing = |remark: &'static str| Refusal::new(ReplyCode::SubscriptionNotExist, remark);
        let Some((model, subscription)) = broker.clients.subscription(group, topic_name) else {
            return Err(missing("the consumer's group info not exist").into());
        };
        if model == MessageModel::Broadcasting && !group_config.consume_broadcast_enable {
            let remark = format!("the consumer group[{group}] can not consume by broadcast way");
            return deny(remark, forbidden::BROADCAST);
        }
        if broker.groups.forbidden(group, topic_name) & FORBIDDEN_READ != 0 {
            let remark =
                format!("the consumer group[{group}] is forbidden for topic[{topic_name}]");
            return deny(remark, forbidden::SUBSCRIPTION);
        }
        let Some(subscription) = subscription else {
            return Err(missing("the consumer's subscription not exist").into());
        };
        if subscription.sub_version < request.sub_version {
            let remark = "the consumer's subscription not latest";
            return Err(Refusal::new(ReplyCode::SubscriptionNotLatest, remark).into());
        }
        Wanted::parse(&subscription.expression_type, &subscription.sub_string, by_properties)?
    };
    let queue = topic.queue(&broker.store, *queue_id)?;
    let (broker, threads) = (broker.clone(), context.threads.clone());
    Ok(Pull { broker, request, to: context.to, queue, wanted, suggest_broker_id: 0, threads })
}

fn empty_reply() -> PullMessageReply {
    PullMessageReply {
        suggest_which_broker_id: 0,
        next_begin_offset: 0,
        min_offset: 0,
        max_offset: 0,
        offset_delta: None,
        topic_sys_flag: None,
        group_sys_flag: None,
        forbidden_type: None,
    }
}

impl Pull {
    /// The commit that came along.
    fn commit(&self) {
        let PullMessage { consumer_group, topic, queue_id, commit_offset, .. } = &self.request;
        let offsets = &self.broker.offsets;
        offsets.set_pulled(consumer_group, topic, *queue_id, self.request.queue_offset);
        if self.request.sys_flag & flag::COMMIT != 0 && *commit_offset >= 0 {
            offsets.commit_with_pull(consumer_group, topic, *queue_id, *commit_offset);
            let pops = &self.broker.pops;
            pops.pulled(consumer_group, topic, *queue_id, *commit_offset, clock::now_ms());
        }
    }

    fn read(&self, offset: i64, access: Access) -> Result<Read, Refusal> {
        let config = self.broker.config.load();
        let asked = usize::try_from(self.request.max_msg_nums).unwrap_or(0);
        let bytes = self.request.max_msg_bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let limits = Limits {
            messages: asked.min(config.pull_messages_max).max(1),
            bytes: bytes.unwrap_or(usize::MAX).clamp(100, config.pull_bytes_max.max(100)),
            scan: SCAN_MAX,
        };
        let read = self.broker.store.read(self.queue, offset, limits, access, &self.wanted);
        read.map_err(|error| {
            let remark = format!("cannot read queue {}: {error}", self.request.queue_id);
            Refusal::new(ReplyCode::SystemError, remark)
        })
    }

    /// Only who has read to the end of a queue waits.
    fn should_wait(&self, read: &Read) -> bool {
        self.request.sys_flag & flag::SUSPEND != 0
            && self.request.suspend_timeout_millis > 0
            && code(read, self.request.queue_offset) == ReplyCode::PullNotFound
    }

    async fn read_cold(self) -> Chunk {
        let to = self.to;
        let threads = self.threads.clone();
        let _permit = threads.acquire().await.expect("it is never closed");
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Chunk::default();
            match self.read(self.request.queue_offset, Access::Blocking) {
                Ok(read) => self.answer(&mut chunk, &read),
                Err(refusal) => chunk.refuse(to, &refusal),
            }
            chunk
        });
        read.await.unwrap_or_else(|_| Chunk::refusal(to, &crate::broker::defect()))
    }

    /// Answers when a message arrives that is wanted, or the time is up.
    async fn wait(self, ticket: crate::wait::Ticket) -> Chunk {
        let config = self.broker.config.load();
        let asked = Duration::from_millis(self.request.suspend_timeout_millis.unsigned_abs());
        let timeout = if config.long_polling { asked.min(WAIT_MAX) } else { config.short_polling };
        drop(config);
        let mut time_up = std::pin::pin!(tokio::time::sleep(timeout));
        let mut offset = self.request.queue_offset;
        let shutdown = self.broker.shutdown.clone();
        let mut chunk = Chunk::default();
        loop {
            let arrived = ticket.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            // From here on no arrival is missed.
            arrived.as_mut().enable();
            if self.follow_reset(&mut chunk) {
                return chunk;
            }
            let read = match self.read(offset, Access::Cached) {
                Ok(read) => read,
                Err(refusal) => {
                    chunk.refuse(self.to, &refusal);
                    return chunk;
                }
            };
            match read.status {
                Status::NoMatch => {
                    offset = read.next_offset;
                    if offset < read.max_offset {
                        continue;
                    }
                }
                Status::Empty if offset == 0 => {}
                Status::AtEnd => {}
                Status::Cold => return self.read_cold().await,
                _ => {
                    self.answer(&mut chunk, &read);
                    return chunk;
                }
            }
            let go_on = tokio::select! {
                () = arrived => true,
                () = &mut time_up => false,
                () = shutdown.cancelled() => false,
            };
            if !go_on {
                let moved = offset != self.request.queue_offset;
                let code =
                    if moved { ReplyCode::PullRetryImmediately } else { code(&read, offset) };
                let reply = PullMessageReply { next_begin_offset: offset, ..self.positions() };
                chunk.reply_with_code(self.to, code, &reply, &[]);
                self.broker.stats.flow.pulled(0);
                return chunk;
            }
        }
    }

    /// Sends the group elsewhere if somebody reset its offset, also while it waited.
    fn follow_reset(&self, chunk: &mut Chunk) -> bool {
        let PullMessage { consumer_group, topic, queue_id, .. } = &self.request;
        let reset = self.broker.offsets.take_reset(consumer_group, topic, *queue_id);
        if let Some(offset) = reset {
            let reply = PullMessageReply { next_begin_offset: offset, ..self.positions() };
            chunk.reply_with_code(self.to, ReplyCode::PullOffsetMoved, &reply, &[]);
        }
        reset.is_some()
    }

    fn answer(&self, chunk: &mut Chunk, read: &Read) {
        let reply = PullMessageReply {
            suggest_which_broker_id: self.suggest_broker_id,
            next_begin_offset: read.next_offset,
            min_offset: read.min_offset,
            max_offset: read.max_offset,
            ..empty_reply()
        };
        let code = code(read, self.request.queue_offset);
        let body: &[Bytes] = if code == ReplyCode::Success { &read.slices } else { &[] };
        chunk.reply_with_code(self.to, code, &reply, body);
        let found = if code == ReplyCode::Success { read.entries.len() } else { 0 };
        self.broker.stats.flow.pulled(found);
        if code == ReplyCode::Success {
            let key = format!("{}@{}", self.request.topic, self.request.consumer_group);
            let stats = &self.broker.stats;
            stats.counter(kind::GROUP_GET_NUMS, &key).add(read.entries.len() as u64);
            stats.counter(kind::GROUP_GET_SIZE, &key).add(read.bytes as u64);
        }
    }

    fn positions(&self) -> PullMessageReply {
        let store = &self.broker.store;
        PullMessageReply {
            min_offset: store.min_offset(self.queue),
            max_offset: store.max_offset(self.queue),
            ..empty_reply()
        }
    }
}

/// What a read means to the consumer.
fn code(read: &Read, asked: i64) -> ReplyCode {
    match read.status {
        Status::Found => ReplyCode::Success,
        Status::NoMatch => ReplyCode::PullRetryImmediately,
        Status::AtEnd => ReplyCode::PullNotFound,
        Status::Empty if asked == 0 => ReplyCode::PullNotFound,
        Status::Empty | Status::BelowMin | Status::BeyondEnd => ReplyCode::PullOffsetMoved,
        Status::Cold => ReplyCode::SystemBusy,
    }
}

/// Tags of a subscription text, for those who only list them.
pub fn tags_of(subscription: &str) -> BTreeSet<String> {
    subscription
        .split("||")
        .map(str::trim)
        .filter(|tag| !tag.is_empty() && *tag != "*")
        .map(str::to_owned)
        .collect()
}
