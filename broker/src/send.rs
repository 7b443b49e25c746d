//! SEND: check, encode outside of any lock, and commit what one read of a connection brought as a group.

use std::net::SocketAddr;
use std::sync::Arc;

use protocol::fields::Sink;
use protocol::frame::{Command, Head};
use protocol::header::send::Send;
use protocol::id;
use protocol::message::{self, BatchEntry};
use protocol::name;
use protocol::properties::{self, name as property};
use protocol::record::sys_flag;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use remoting::outbox::{Chunk, Outbox, ReplyTo};
use remoting::peer::Peer;
use store::{AppendError, Batch, NewMessage, PushError, QueueRef, Stored};

use crate::broker::{Broker, invalid, refused};
use crate::config::Config;
use crate::durable::Gate;
use crate::registration::caught_up;
use crate::topics::{self, Topic, perm};
use crate::transaction;

/// Bytes of a group after which it is committed although more could be collected.
const GROUP_BYTES_MAX: usize = 1 << 20;
const NO_TIMERS: &str = "messages with TIMER_* properties are not served by this broker yet; \
                         the delay levels (DELAY) are";
/// Messages of one batch request.
const BATCH_MESSAGES_MAX: usize = 65_535;
/// Messages of one that is kept whole: the stock broker reads their number as a `short`.
const INNER_MESSAGES_MAX: usize = i16::MAX as usize;

/// The sends of one connection that enter the log together.
#[derive(Debug)]
pub struct Group {
    batch: Batch,
    pending: Vec<Pending>,
    has_delayed: bool,
    /// A topic was made for one of the pending messages.
    made_topic: bool,
    /// Unique keys of the pending messages, one after another.
    keys: Vec<u8>,
    last: Option<Last>,
    gate: Arc<Gate>,
    /// What is added to the properties of every message, and what it was made from.
    suffix: Arc<Suffix>,
}

/// The topic of the last message, and what was put to it and is not in its counters yet: many messages go to
/// one topic, and many connections would fight for its counters over each.
#[derive(Debug)]
struct Last {
    topic: Arc<Topic>,
    /// Of the table the topic was found in.
    generation: u64,
    requests: u64,
    messages: u64,
    bytes: u64,
}

/// A request whose answer waits for the commit.
#[derive(Debug, Clone, Copy)]
struct Pending {
    to: ReplyTo,
    queue_id: i32,
    messages: usize,
    key: (usize, usize),
    /// The answer waits for the disk, where the broker promises that.
    wait: bool,
    /// A batch that is one record; its client has to know, because it counts the ids.
    whole: bool,
}

#[derive(Debug)]
struct Suffix {
    text: Vec<u8>,
    region: String,
    trace_on: bool,
}

impl Suffix {
    fn new(config: &Config) -> Self {
        let trace = if config.trace_on { "true" } else { "false" };
        let text = properties::encode([
            (property::MSG_REGION, config.region.as_str()),
            (property::TRACE_SWITCH, trace),
            (property::CLUSTER, config.cluster.as_str()),
        ]);
        Self { text, region: config.region.clone(), trace_on: config.trace_on }
    }
}

/// What the broker has to know of a message's properties.
#[derive(Debug, Default)]
struct Seen<'a> {
    unique_key: Option<&'a [u8]>,
    delay_level: i32,
    transaction: bool,
    timer: bool,
    no_wait: bool,
    /// There are some that only the broker may set.
    foreign: bool,
}

impl<'a> Seen<'a> {
    fn look(properties: &'a [u8]) -> Self {
        let mut seen = Self::default();
        for (name, value) in properties::pairs(properties) {
            match name {
                b"UNIQ_KEY" => seen.unique_key = Some(value),
                b"DELAY" => seen.delay_level = number(value),
                b"TRAN_MSG" => seen.transaction = value.eq_ignore_ascii_case(b"true"),
                b"TIMER_DELAY_MS" | b"TIMER_DELAY_SEC" | b"TIMER_DELIVER_MS" => seen.timer = true,
                b"WAIT" => seen.no_wait = !value.eq_ignore_ascii_case(b"true"),
                b"POP_CK" | b"MSG_REGION" | b"TRACE_ON" | b"CLUSTER" => seen.foreign = true,
                _ => {}
            }
        }
        seen
    }
}

fn number(text: &[u8]) -> i32 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Group {
    pub fn new(broker: &Broker, gate: Arc<Gate>) -> Self {
        Self {
            batch: Batch::new(),
            pending: Vec::new(),
            has_delayed: false,
            made_topic: false,
            keys: Vec::new(),
            last: None,
            gate,
            suffix: Arc::new(Suffix::new(&broker.config.load())),
        }
    }

    /// Checks and encodes one request. It is answered by [`Group::commit`], or here by the refusal.
    pub fn add(
        &mut self,
        broker: &Broker,
        peer: &Peer,
        request: &Command<'_>,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let send: Send<'_> = request.fields.read()?;
        let config = broker.config.load();
        // Taken out while its message is added, and put back whatever comes of that.
        let mut last = self.topic(broker, &config, &send)?;
        let added = self.add_to(&mut last, &config, broker, peer, request, &send, out);
        self.last = Some(last);
        added
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of one request")]
    fn add_to(
        &mut self,
        last: &mut Last,
        config: &Config,
        broker: &Broker,
        peer: &Peer,
        request: &Command<'_>,
        send: &Send<'_>,
        out: &mut Outbox,
    ) -> Result<(), Refusal> {
        let topic = &last.topic;
        let queue_id = match send.queue_id {
            ..0 => pick_queue(request.opaque, topic.config.write_queue_nums)?,
            queue_id => queue_id,
        };
        if queue_id >= topic.queue_count() {
            let Topic { name, config, .. } = topic.as_ref();
            return Err(invalid(format_args!(
                "request queueId[{queue_id}] is illegal, topic [{name}] has {} write and {} read queues",
                config.write_queue_nums, config.read_queue_nums
            )));
        }
        if send.sys_flag & sys_flag::INNER_BATCH != 0 {
            // It would take as many offsets of the queue as a property says. Ours are counted.
            return Err(illegal("a batch is marked as an inner one by brokers only".to_owned()));
        }
        if request.body.is_empty() {
            return Err(illegal("the body of the message is empty".to_owned()));
        }
        if self.batch.bytes() + request.body.len() > GROUP_BYTES_MAX {
            // A large message or batch must not be refused for the company it came in.
            self.commit(broker, out);
        }
        check_size(config, &topic.name, request.body.len())?;
        if send.batch || request.code == 320 {
            self.add_batch(broker, peer, request, send, last, queue_id)?;
        } else {
            self.add_one(broker, config, peer, request, send, last, queue_id)?;
        }
        if self.batch.bytes() >= GROUP_BYTES_MAX {
            self.commit(broker, out);
        }
        Ok(())
    }

    /// The topic a message is sent to, made now where that is wanted.
    fn topic(
        &mut self,
        broker: &Broker,
        config: &Config,
        send: &Send<'_>,
    ) -> Result<Last, Refusal> {
        let generation = broker.topics.generation();
        if let Some(last) = self.last.take()
            && last.generation == generation
            && *last.topic.name == *send.topic
        {
            return Ok(last);
        }
        if config.accept_sends_from_ms > clock::now_ms() {
            let remark = format!(
                "broker unable to service, until {} (startAcceptSendRequestTimeStamp)",
                config.accept_sends_from_ms
            );
            return Err(Refusal::new(ReplyCode::SystemError, remark));
        }
        let topic = match broker.topics.get(send.topic) {
            Some(topic) => topic,
            None => {
                self.made_topic = true;
                create_topic(broker, send)?
            }
        };
        if !name::may_send_to(send.topic) {
            let remark = format!("Sending message to topic[{}] is forbidden.", send.topic);
            return Err(Refusal::new(ReplyCode::NoPermission, remark));
        }
        if !perm::may_write(config.permission) && topic.config.order {
            let remark =
                format!("the broker[{}] sending message is forbidden", config.advertised_ip);
            return Err(Refusal::new(ReplyCode::NoPermission, remark));
        }
        // The generation from before the look-up: a change in between is seen by the next message.
        Ok(Last { topic, generation, requests: 0, messages: 0, bytes: 0 })
    }

    #[expect(clippy::too_many_lines, reason = "the checks of one message, in the stock order")]
    #[expect(clippy::too_many_arguments, reason = "all that is known of one request")]
    fn add_one(
        &mut self,
        broker: &Broker,
        config: &Config,
        peer: &Peer,
        request: &Command<'_>,
        send: &Send<'_>,
        last: &mut Last,
        mut queue_id: i32,
    ) -> Result<(), Refusal> {
        let (owned, mut waiting);
        // Another topic than the one it was sent to.
        let mut other = None;
        let mut properties = send.properties.unwrap_or_default().as_bytes();
        let seen = Seen::look(properties);
        if seen.foreign {
            owned = without_foreign(properties);
            properties = &owned;
        }
        let reconsume_times = send.reconsume_times.unwrap_or(0);
        if let Some(group) = name::retry_group(send.topic)
            && let Some(dead) = dead_letters(broker, request, send, group, reconsume_times)?
        {
            (other, queue_id) = (Some(dead), 0);
        }
        let topic = other.as_ref().unwrap_or(&last.topic);
        let mut delay_level = seen.delay_level;
        let dead;
        if topic.name.starts_with(name::DEAD_LETTER_PREFIX) {
            // Nothing delays a dead letter; the stock broker leaves this mark.
            delay_level = 0;
            if name::retry_group(send.topic).is_some() {
                let mut marked = properties.to_vec();
                properties::set(&mut marked, property::DELAY_TIME_LEVEL, b"-1");
                dead = marked;
                properties = &dead;
            }
        }
        // Clients older than 4.6.1 leave the mark on what they send again.
        let half = seen.transaction && !(reconsume_times > 0 && delay_level > 0);
        if half {
            may_begin(broker, seen.timer || delay_level > 0)?;
        }
        if seen.timer && delay_level == 0 {
            return Err(Refusal::new(ReplyCode::SystemError, NO_TIMERS));
        }
        let mut added = Vec::new();
        let reply_queue = queue_id;
        if delay_level > 0 {
            waiting = properties.to_vec();
            let level = delay_level.min(config.delay_levels_ms.len() as i32);
            let schedule = delayed(broker, &mut waiting, topic, queue_id, level)?;
            (other, queue_id) = (Some(schedule), level - 1);
            properties = &waiting;
            self.has_delayed = true;
        }
        let key_at = self.keys.len();
        match seen.unique_key {
            Some(key) => self.keys.extend_from_slice(key),
            None => {
                let key = broker.unique_id();
                self.keys.extend_from_slice(key.as_bytes());
                properties::append(&mut added, property::UNIQ_KEY, key.as_bytes());
            }
        }
        let unended;
        if half {
            let key = &self.keys[key_at..];
            let meant = other.as_ref().unwrap_or(&last.topic);
            unended = transaction::half(properties, key, &meant.name, queue_id);
            properties = &unended;
            (other, queue_id) = (Some(broker.topic(name::TRANSACTION_HALF_TOPIC)?), 0);
        }
        let parts = [properties, separator(properties), &added, &self.suffix.text];
        let mut message = NewMessage {
            reconsume_times,
            properties: &parts,
            ..blank_message(broker, peer, send, &request.body)
        };
        if half {
            message.sys_flag &= !sys_flag::TRANSACTION_MASK;
        }
        let topic = other.as_ref().unwrap_or(&last.topic);
        let queue = topic.queue(&broker.store, queue_id)?;
        broker.store.push(&mut self.batch, queue, &message).map_err(not_pushed)?;
        last.add_one(other.as_deref(), request.body.len());
        self.pending.push(Pending {
            to: ReplyTo::new(request),
            queue_id: reply_queue,
            messages: 1,
            key: (key_at, self.keys.len()),
            wait: !seen.no_wait,
            whole: false,
        });
        Ok(())
    }

    /// The messages of a batch, one record each or all of them in one; either all of them or none.
    fn add_batch(
        &mut self,
        broker: &Broker,
        peer: &Peer,
        request: &Command<'_>,
        send: &Send<'_>,
        last: &mut Last,
        queue_id: i32,
    ) -> Result<(), Refusal> {
        let topic = last.topic.as_ref();
        if name::retry_group(send.topic).is_some() {
            return Err(illegal("a batch may not be sent to a retry topic".to_owned()));
        }
        let shared = send.properties.unwrap_or_default().as_bytes();
        let outer = Seen::look(shared);
        if outer.delay_level > 0 || outer.transaction || outer.timer {
            return Err(illegal("a batch may be neither delayed nor transactional".to_owned()));
        }
        // Everything is looked at before anything is taken: all of a batch enters, or nothing.
        let mut messages = Vec::new();
        for item in message::batch_entries(&request.body) {
            let item = item.map_err(|error| illegal(format!("the batch is malformed: {error}")))?;
            let seen = Seen::look(item.properties);
            if seen.delay_level > 0 || seen.transaction || seen.timer {
                return Err(illegal("a batch may be neither delayed nor transactional".to_owned()));
            }
            if messages.len() == BATCH_MESSAGES_MAX {
                return Err(illegal(format!("a batch may have {BATCH_MESSAGES_MAX} messages")));
            }
            messages.push((item, seen.unique_key.is_some()));
        }
        if messages.is_empty() {
            return Err(illegal("the batch is empty".to_owned()));
        }
        // Clients that know of whole batches give them a key.
        let whole = topic.keeps_batches_whole() && outer.unique_key.is_some();
        let queue = topic.queue(&broker.store, queue_id)?;
        if whole {
            self.push_whole(broker, peer, request, send, queue, messages.len())?;
        } else {
            self.push_each(broker, peer, send, queue, &messages)?;
        }
        last.add(messages.len(), request.body.len());
        let key_at = self.keys.len();
        self.keys.extend_from_slice(outer.unique_key.unwrap_or_default());
        self.pending.push(Pending {
            to: ReplyTo::new(request),
            queue_id,
            messages: if whole { 1 } else { messages.len() },
            key: (key_at, self.keys.len()),
            wait: !outer.no_wait,
            whole,
        });
        Ok(())
    }

    /// A record for each message of a batch. What the request itself carries belongs to none of them.
    fn push_each(
        &mut self,
        broker: &Broker,
        peer: &Peer,
        send: &Send<'_>,
        queue: QueueRef,
        messages: &[(BatchEntry<'_>, bool)],
    ) -> Result<(), Refusal> {
        let mark = self.batch.len();
        for (item, has_key) in messages {
            let mut added = Vec::new();
            if !has_key {
                let key = broker.unique_id();
                properties::append(&mut added, property::UNIQ_KEY, key.as_bytes());
            }
            let inner = item.properties;
            let parts = [inner, separator(inner), &added];
            let message = NewMessage {
                flag: item.flag,
                properties: &parts,
                ..blank_message(broker, peer, send, item.body)
            };
            if let Err(error) = broker.store.push(&mut self.batch, queue, &message) {
                self.batch.truncate(mark);
                return Err(not_pushed(error));
            }
        }
        Ok(())
    }

    /// The batch as it came, as one record that takes an offset for each of its messages.
    fn push_whole(
        &mut self,
        broker: &Broker,
        peer: &Peer,
        request: &Command<'_>,
        send: &Send<'_>,
        queue: QueueRef,
        messages: usize,
    ) -> Result<(), Refusal> {
        if messages > INNER_MESSAGES_MAX {
            return Err(illegal(format!(
                "a batch that is kept whole may have {INNER_MESSAGES_MAX} messages"
            )));
        }
        let mut properties = without_foreign(send.properties.unwrap_or_default().as_bytes());
        properties::set(&mut properties, property::INNER_NUM, messages.to_string().as_bytes());
        let blank = store::INNER_BASE_BLANK.as_bytes();
        properties::set(&mut properties, property::INNER_BASE, blank);
        let cluster = broker.config.load().cluster.clone();
        properties::set(&mut properties, property::CLUSTER, cluster.as_bytes());
        let parts = [properties.as_slice()];
        let message = NewMessage {
            sys_flag: send.sys_flag | sys_flag::NEED_UNWRAP | sys_flag::INNER_BATCH,
            properties: &parts,
            ..blank_message(broker, peer, send, &request.body)
        };
        broker.store.push(&mut self.batch, queue, &message).map_err(not_pushed)
    }

    /// Appends what was collected and answers it: now, or when it is on disk.
    pub fn commit(&mut self, broker: &Broker, out: &mut Outbox) {
        if let Some(last) = &mut self.last {
            last.count();
        }
        if self.pending.is_empty() {
            return;
        }
        let now_ms = clock::now_ms();
        let appended = if out.alone && broker.config.load().sync_flush {
            broker.store.append_alone(&mut self.batch, now_ms)
        } else {
            broker.store.append(&mut self.batch, now_ms)
        };
        let end = match appended {
            Ok(appended) => appended.end,
            Err(AppendError::Unsynced { wait_for, .. }) => {
                // The disk is behind: nothing more is read from here until it has caught up.
                let durable = broker.store.durable(wait_for);
                out.pause(async move {
                    // A failed disk is reported by the append that follows.
                    let _ = durable.await;
                });
                return;
            }
            Err(error) => {
                broker.stats.flow.put_failed(self.batch.len());
                let refusal = refused(error);
                self.pending.iter().for_each(|pending| out.now.refuse(pending.to, &refusal));
                self.clear();
                return;
            }
        };
        broker.arrived(&self.batch);
        if std::mem::take(&mut self.has_delayed) {
            broker.delay_arrived.notify_one();
        }
        broker.stats.flow.put(self.batch.len(), self.batch.bytes());
        broker.stats.flow.sent.add(self.batch.len() as u64);
        self.answer(broker, end, out);
        self.clear();
        let suffix = &self.suffix;
        let config = broker.config.load();
        if suffix.region != config.region || suffix.trace_on != config.trace_on {
            self.suffix = Arc::new(Suffix::new(&config));
        }
    }

    fn answer(&mut self, broker: &Broker, end: u64, out: &mut Outbox) {
        let config = broker.config.load();
        let host = broker.store_host;
        let waits = config.sync_flush && broker.store.durable_position() < end;
        // Who learns that a first message is stored may look for its topic at once.
        let announced = std::mem::take(&mut self.made_topic).then(|| caught_up(broker));
        let mut waiting = Vec::new();
        let mut entries = self.batch.entries();
        for pending in &self.pending {
            let mut places = entries.by_ref().take(pending.messages);
            let Some(first) = places.next() else { break };
            let more: Vec<u64> = places.map(|entry| entry.position).collect();
            if pending.to.oneway {
                continue;
            }
            let answer = Answer { pending: *pending, first, more };
            if (waits && pending.wait) || announced.is_some() {
                waiting.push(answer);
            } else {
                answer.write(&mut out.now, ReplyCode::Success, host, &self.keys, &self.suffix);
            }
        }
        drop(entries);
        if waiting.is_empty() {
            return;
        }
        let (keys, suffix) = (std::mem::take(&mut self.keys), self.suffix.clone());
        let durable = waits.then(|| self.gate.durable(&broker.store, end));
        let timeout = config.sync_flush_timeout;
        out.later(async move {
            let mut chunk = Chunk::default();
            if let Some(announced) = announced {
                announced.await;
            }
            let durable = async {
                match durable {
                    Some(durable) => durable.await,
                    None => Ok(()),
                }
            };
            let code = match tokio::time::timeout(timeout, durable).await {
                Ok(Ok(())) => ReplyCode::Success,
                // Stored, but not known to be on disk: clients have a status for this.
                Err(_) => ReplyCode::FlushDiskTimeout,
                Ok(Err(error)) => {
                    let refusal = Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string());
                    waiting.iter().for_each(|answer| chunk.refuse(answer.pending.to, &refusal));
                    return chunk;
                }
            };
            for answer in &waiting {
                answer.write(&mut chunk, code, host, &keys, &suffix);
            }
            chunk
        });
    }

    /// Refuses what was collected, after a defect that may have left it half done.
    pub fn abandon(&mut self, refusal: &Refusal, out: &mut Outbox) {
        self.pending.iter().for_each(|pending| out.now.refuse(pending.to, refusal));
        self.clear();
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.made_topic = false;
        self.pending.clear();
        self.keys.clear();
    }
}

/// A request whose messages are in the log, and where.
#[derive(Debug)]
struct Answer {
    pending: Pending,
    first: Stored,
    /// Positions of the other messages of a batch.
    more: Vec<u64>,
}

impl Answer {
    fn write(
        &self,
        chunk: &mut Chunk,
        code: ReplyCode,
        host: SocketAddr,
        keys: &[u8],
        suffix: &Suffix,
    ) {
        let Pending { to, queue_id, key, whole, .. } = self.pending;
        let mut head = Head::reply(code, to.opaque, to.encoding);
        if code == ReplyCode::FlushDiskTimeout {
            head.remark = Some("stored, but the disk did not confirm it in time");
        }
        let trace = if suffix.trace_on { "true" } else { "false" };
        let mut ids = id::encode_offset_id(host, self.first.position.cast_signed());
        for position in &self.more {
            ids.push(',');
            ids.push_str(&id::encode_offset_id(host, position.cast_signed()));
        }
        let mut digits = itoa::Buffer::new();
        let fields = |sink: &mut protocol::frame::FieldWriter<'_>| {
            sink.put("queueId", digits.format(queue_id).as_bytes());
            sink.put("TRACE_ON", trace.as_bytes());
            sink.put("MSG_REGION", suffix.region.as_bytes());
            sink.put("msgId", ids.as_bytes());
            sink.put("queueOffset", digits.format(self.first.queue_offset).as_bytes());
            if key.0 < key.1 {
                sink.put("transactionId", &keys[key.0..key.1]);
                if whole {
                    sink.put("batchUniqId", &keys[key.0..key.1]);
                }
            }
        };
        chunk.frame(&head, fields, &[]);
    }
}

/// A topic nobody created, made like its template; or a retry topic.
fn create_topic(broker: &Broker, send: &Send<'_>) -> Result<Arc<Topic>, Refusal> {
    name::check_topic(send.topic).map_err(invalid)?;
    if send.topic.starts_with(name::OWN_PREFIX) {
        return Err(crate::broker::topic_missing(send.topic));
    }
    const UNIT: i32 = 1;
    const UNIT_SUBSCRIPTION: i32 = 2;
    let retry = name::retry_group(send.topic).is_some();
    let sys_flag = match (send.unit_mode, retry) {
        (false, _) => 0,
        (true, false) => UNIT,
        (true, true) => UNIT_SUBSCRIPTION,
    };
    let template = broker.topics.get(send.default_topic);
    let template = template.filter(|template| {
        *template.name != *name::DEFAULT_TOPIC || broker.config.load().auto_create_topic
    });
    let queues = send.default_topic_queue_nums;
    let made = template
        .and_then(|template| topics::inherited(&template.config, send.topic, queues, sys_flag));
    match made {
        Some(config) => broker.create_topic(config),
        None if retry => broker.topic_or_create(send.topic, 1, sys_flag),
        None => Err(crate::broker::topic_missing(send.topic)),
    }
}

/// Whether a half message may come.
fn may_begin(broker: &Broker, delayed: bool) -> Result<(), Refusal> {
    let config = broker.config.load();
    if config.reject_transactions {
        let ip = config.advertised_ip;
        let remark = format!("the broker[{ip}] sending transaction message is forbidden");
        return Err(Refusal::new(ReplyCode::NoPermission, remark));
    }
    if delayed {
        return Err(illegal("a transactional message may not be delayed".to_owned()));
    }
    if broker.transactions.is_full() {
        let remark = format!(
            "{} half messages wait for their end, the limit of a broker",
            transaction::ledger::WAITING_MAX
        );
        return Err(Refusal::new(ReplyCode::SystemBusy, remark));
    }
    Ok(())
}

/// Where a message goes that names no queue: requests of one client come round to all.
fn pick_queue(opaque: i32, write_queues: i32) -> Result<i32, Refusal> {
    if write_queues <= 0 {
        return Err(Refusal::new(ReplyCode::NoPermission, "the topic has no queue to write to"));
    }
    Ok(opaque.rem_euclid(write_queues))
}

/// The dead-letter topic of a group, for a message that was retried too often.
fn dead_letters(
    broker: &Broker,
    request: &Command<'_>,
    send: &Send<'_>,
    group: &str,
    reconsume_times: i32,
) -> Result<Option<Arc<Topic>>, Refusal> {
    let config = broker.groups.get(group).ok_or_else(|| {
        let remark = format!("subscription group not exist, {group}");
        Refusal::new(ReplyCode::SubscriptionGroupNotExist, remark)
    })?;
    let own = send.max_reconsume_times;
    let own = own.filter(|_| request.version >= protocol::language::version::V3_4_9);
    // A group that consumes in order retries in place: what it sends here has failed for good.
    let in_order = broker.locks.any_held(group, clock::now_ms());
    if !in_order && reconsume_times <= own.unwrap_or(config.retry_max_times) {
        return Ok(None);
    }
    broker.topic_or_create(&name::dead_letter_topic(group), 1, 0).map(Some)
}

/// Sends a message to the topic of its delay level; its own topic and queue wait in the properties.
pub fn delayed(
    broker: &Broker,
    properties: &mut Vec<u8>,
    topic: &Topic,
    queue_id: i32,
    level: i32,
) -> Result<Arc<Topic>, Refusal> {
    properties::set(properties, property::DELAY_TIME_LEVEL, level.to_string().as_bytes());
    properties::set(properties, property::REAL_TOPIC, topic.name.as_bytes());
    properties::set(properties, property::REAL_QUEUE_ID, queue_id.to_string().as_bytes());
    broker.topic(name::SCHEDULE_TOPIC)
}

/// The properties without those that only the broker sets.
fn without_foreign(properties: &[u8]) -> Vec<u8> {
    let foreign =
        |name: &[u8]| matches!(name, b"POP_CK" | b"MSG_REGION" | b"TRACE_ON" | b"CLUSTER");
    let mut kept = Vec::with_capacity(properties.len());
    for (name, value) in properties::pairs(properties).filter(|(name, _)| !foreign(name)) {
        kept.extend_from_slice(name);
        kept.push(properties::NAME_END);
        kept.extend_from_slice(value);
        kept.push(properties::VALUE_END);
    }
    kept
}

/// What has to stand between these properties and more; old writers leave the last end out.
fn separator(properties: &[u8]) -> &'static [u8] {
    match properties.last() {
        None | Some(&properties::VALUE_END) => b"",
        Some(_) => b"\x02",
    }
}

fn blank_message<'a>(
    broker: &Broker,
    peer: &Peer,
    send: &Send<'_>,
    body: &'a [u8],
) -> NewMessage<'a> {
    NewMessage {
        flag: send.flag,
        sys_flag: send.sys_flag,
        born_timestamp: send.born_timestamp,
        born_host: peer.remote,
        store_host: broker.store_host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: &[],
    }
}

fn check_size(config: &Config, topic: &str, bytes: usize) -> Result<(), Refusal> {
    let max = config.message_bytes_max;
    if bytes > max {
        let remark = format!(
            "the body for topic {topic} has {bytes} bytes, over the limit of {max} (maxMessageSize)"
        );
        return Err(illegal(remark));
    }
    Ok(())
}

fn count(topic: &Topic, requests: u64, messages: u64, bytes: u64) {
    topic.put.add_steps(messages, requests);
    topic.put_bytes.add_steps(bytes, requests);
}

impl Last {
    /// One message, that went to this topic or to another one.
    fn add_one(&mut self, other: Option<&Topic>, bytes: usize) {
        match other {
            Some(other) => count(other, 1, 1, bytes as u64),
            None => self.add(1, bytes),
        }
    }

    fn add(&mut self, messages: usize, bytes: usize) {
        self.requests += 1;
        self.messages += messages as u64;
        self.bytes += bytes as u64;
    }

    /// Brings the topic's counters up to date.
    fn count(&mut self) {
        if self.requests > 0 {
            count(&self.topic, self.requests, self.messages, self.bytes);
            (self.requests, self.messages, self.bytes) = (0, 0, 0);
        }
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        self.count();
    }
}

fn illegal(remark: String) -> Refusal {
    Refusal::new(ReplyCode::MessageIllegal, remark)
}

pub fn not_pushed(error: PushError) -> Refusal {
    illegal(error.to_string())
}
