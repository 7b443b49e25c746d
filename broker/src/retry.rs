//! A consumer gives a message back: it comes again later, or goes to the dead letters.

use std::sync::Arc;

use protocol::body::SubscriptionGroupConfig;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::send::ConsumerSendMsgBack;
use protocol::id;
use protocol::language::version;
use protocol::name;
use protocol::properties::{self, name as property};
use protocol::record::Record;
use protocol::reply::{Refusal, ReplyCode};
use remoting::outbox::Outbox;
use store::{Access, Batch, NewMessage};

use crate::answer::{self, Context, Outcome};
use crate::broker::Broker;
use crate::offsets::requests::unreadable;
use crate::send::{delayed, not_pushed};
use crate::stats::kind;
use crate::topics::{Topic, perm};

/// Code 36. Reads the message from the log, which may have to wait for the disk.
pub fn send_back(context: &Context<'_>, out: &mut Outbox) {
    answer::blocking_durably(context, out, give_back);
}

fn give_back(context: &Context<'_>) -> Outcome {
    let request: ConsumerSendMsgBack = context.header()?;
    let broker = context.broker;
    let group = &request.group;
    let config = broker.groups.get(group).ok_or_else(|| {
        let remark = format!("subscription group not exist, {group}");
        Refusal::new(ReplyCode::SubscriptionGroupNotExist, remark)
    })?;
    let own = broker.config.load();
    if !perm::may_write(own.permission) {
        let remark = format!("the broker[{}] sending message is forbidden", own.advertised_ip);
        return Err(Refusal::new(ReplyCode::NoPermission, remark));
    }
    if config.retry_queue_nums <= 0 {
        return Ok(Command::reply(&Empty {}));
    }
    let missing = || {
        let remark = format!("look message by offset failed, {}", request.offset);
        Refusal::new(ReplyCode::SystemError, remark)
    };
    let position = u64::try_from(request.offset).map_err(|_| missing())?;
    let record = broker.store.message_at(position, Access::Blocking).map_err(unreadable)?;
    let record = record.ok_or_else(missing)?;
    let (message, _) = Record::decode(&record).map_err(|_| missing())?;

    let max = request.max_reconsume_times.filter(|_| context.request.version >= version::V3_4_9);
    let max = max.unwrap_or(config.retry_max_times);
    let dead = message.reconsume_times >= max || request.delay_level < 0;
    let mut topic = destination(broker, group, &config, dead, request.unit_mode)?;
    let mut queue_id = match topic.config.write_queue_nums {
        ..=1 => 0,
        queues => (position % queues.unsigned_abs() as u64) as i32,
    };

    let mut properties = of_retried(&message);
    let back = properties::get_str(&properties, property::RETRY_TOPIC).map(str::to_owned);
    if dead {
        // The stock broker leaves this mark.
        properties::set(&mut properties, property::DELAY_TIME_LEVEL, b"0");
    } else {
        const FIRST_LEVEL: i32 = 3;
        let level = match request.delay_level {
            0 => FIRST_LEVEL.saturating_add(message.reconsume_times),
            level => level,
        };
        let level = level.clamp(1, own.delay_levels_ms.len() as i32);
        topic = delayed(broker, &mut properties, &topic, queue_id, level)?;
        queue_id = level - 1;
    }
    let times = message.reconsume_times.saturating_add(1);
    store_copy(broker, &topic, queue_id, &message, &properties, times)?;
    if !dead {
        broker.delay_arrived.notify_one();
    }
    // What a producer wrote is counted only if it names a topic.
    if let Some(back) = back.filter(|back| broker.topics.get(back).is_some()) {
        broker.stats.counter(kind::SEND_BACK_PUT_NUMS, &format!("{back}@{group}")).add(1);
    }
    Ok(Command::reply(&Empty {}))
}

/// Puts a message that was popped too often to the dead letters of a group, as a consumer would that gives
/// it back too often.
pub fn bury(broker: &Broker, group: &str, message: &Record<'_>, times: i32) -> Result<(), Refusal> {
    let config = broker.group(group)?;
    let topic = destination(broker, group, &config, true, false)?;
    let mut properties = of_retried(message);
    properties::set(&mut properties, property::DELAY_TIME_LEVEL, b"0");
    store_copy(broker, &topic, 0, message, &properties, times)
}

/// Stores a message once more, as delivered so many times.
fn store_copy(
    broker: &Broker,
    topic: &Topic,
    queue_id: i32,
    message: &Record<'_>,
    properties: &[u8],
    reconsume_times: i32,
) -> Result<(), Refusal> {
    let mut batch = Batch::new();
    let message = NewMessage {
        flag: message.flag,
        sys_flag: message.sys_flag,
        born_timestamp: message.born_timestamp,
        born_host: message.born_host,
        store_host: broker.store_host,
        reconsume_times,
        prepared_transaction_offset: 0,
        body: message.body,
        properties: &[properties],
    };
    let queue = topic.queue(&broker.store, queue_id)?;
    broker.store.push(&mut batch, queue, &message).map_err(not_pushed)?;
    broker.append(&mut batch)?;
    Ok(())
}

/// The properties of the copy: where the message came from, which its first copy already says.
fn of_retried(message: &Record<'_>) -> Vec<u8> {
    let mut properties = message.properties.to_vec();
    if !properties::contains(&properties, property::RETRY_TOPIC) {
        properties::set(&mut properties, property::RETRY_TOPIC, message.topic.as_bytes());
    }
    if !properties::contains(&properties, property::ORIGIN_MESSAGE_ID) {
        let id = id::encode_offset_id(message.store_host, message.physical_offset);
        properties::set(&mut properties, property::ORIGIN_MESSAGE_ID, id.as_bytes());
    }
    properties
}

/// The topic the copy is for: the group's retries, or its dead letters.
fn destination(
    broker: &Broker,
    group: &str,
    config: &SubscriptionGroupConfig,
    dead: bool,
    unit_mode: bool,
) -> Result<Arc<Topic>, Refusal> {
    let unit_subscription = if unit_mode { 2 } else { 0 };
    let topic = if dead {
        broker.topic_or_create(&name::dead_letter_topic(group), 1, 0)?
    } else {
        let queues = config.retry_queue_nums;
        broker.topic_or_create(&name::retry_topic(group), queues, unit_subscription)?
    };
    if !perm::may_write(topic.config.perm) {
        let remark = format!("the topic[{}] sending message is forbidden", topic.name);
        return Err(Refusal::new(ReplyCode::NoPermission, remark));
    }
    Ok(topic)
}
