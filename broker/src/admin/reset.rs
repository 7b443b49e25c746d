//! Code 222: a group is put back, or forward, to a time or an offset.

use std::collections::BTreeMap;

use protocol::body::{MessageQueue, MessageQueueForC, ResetOffsetBody, ResetOffsetBodyForC};
use protocol::frame::Command;
use protocol::header::offset::ResetOffset;
use protocol::json::{self, Dialect};
use protocol::language::{Language, version};
use protocol::name;
use protocol::reply::{Refusal, ReplyCode};
use protocol::request::RequestCode;
use store::Boundary;
use tracing::{info, warn};

use super::clients::too_old;
use super::{body, failed};
use crate::answer::{Context, Outcome};
use crate::broker::{Broker, invalid};
use crate::event::Event;
use crate::offsets::requests::unreadable;
use crate::topics::Topic;

pub fn reset(context: &Context<'_>) -> Outcome {
    let request: ResetOffset = context.header()?;
    name::check_group(&request.group).map_err(invalid)?;
    if context.broker.config.load().server_side_reset {
        here(context.broker, &request)
    } else {
        at_the_clients(context.broker, &request, context.request.language == Language::Cpp)
    }
}

/// The offset of a time; a negative time means the end.
fn offset_at(broker: &Broker, topic: &str, queue_id: i32, time_ms: i64) -> Result<i64, Refusal> {
    let Some(queue) = broker.store.find_queue(topic, queue_id) else { return Ok(0) };
    if time_ms < 0 {
        return Ok(broker.store.max_offset(queue));
    }
    broker.store.offset_by_time(queue, time_ms, Boundary::Lower).map_err(unreadable)
}

/// The broker remembers it: commits are ignored, and the next pull is sent there.
fn here(broker: &Broker, request: &ResetOffset) -> Outcome {
    let ResetOffset { group, topic, queue_id, timestamp, .. } = request;
    let Some(known) = broker.topics.get(topic) else {
        let remark = format!("Topic {topic} does not exist");
        return Err(Refusal::new(ReplyCode::TopicNotExist, remark));
    };
    if broker.groups.get(group).is_none() {
        let remark = format!("Group {group} does not exist");
        return Err(Refusal::new(ReplyCode::SubscriptionGroupNotExist, remark));
    }
    let mut offsets = BTreeMap::new();
    if *queue_id >= 0 {
        let offset = match request.offset.filter(|offset| *offset != -1) {
            Some(offset) => within(broker, &known, *queue_id, offset)?,
            None => offset_at(broker, topic, *queue_id, *timestamp)?,
        };
        offsets.insert(*queue_id, offset);
    } else {
        for queue_id in 0..known.config.read_queue_nums {
            offsets.insert(queue_id, offset_at(broker, topic, queue_id, *timestamp)?);
        }
    }
    if offsets.is_empty() {
        return Err(failed("No queues to reset."));
    }
    for (queue_id, offset) in &offsets {
        broker.offsets.set_reset(group, topic, *queue_id, *offset);
    }
    let event = |(queue_id, offset): (&i32, &i64)| Event::Offset {
        group: group.clone(),
        topic: topic.clone(),
        queue_id: *queue_id,
        offset: *offset,
    };
    broker.record(&offsets.iter().map(event).collect::<Vec<_>>())?;
    info!(group, topic, ?offsets, "offsets reset");
    body(&ResetOffsetBody { offset_table: by_queue(broker, topic, offsets) })
}

fn by_queue(
    broker: &Broker,
    topic: &str,
    offsets: BTreeMap<i32, i64>,
) -> BTreeMap<MessageQueue, i64> {
    let config = broker.config.load();
    let named = |queue_id| MessageQueue::new(topic, config.name.as_str(), queue_id);
    offsets.into_iter().map(|(queue_id, offset)| (named(queue_id), offset)).collect()
}

fn within(broker: &Broker, topic: &Topic, queue_id: i32, offset: i64) -> Result<i64, Refusal> {
    if queue_id >= topic.config.read_queue_nums {
        return Err(invalid(format_args!(
            "queueId {queue_id} is not one of the {} queues of topic {}",
            topic.config.read_queue_nums, topic.name
        )));
    }
    let queue = broker.store.find_queue(&topic.name, queue_id);
    let (min, max) = queue
        .map_or((0, 0), |queue| (broker.store.min_offset(queue), broker.store.max_offset(queue)));
    // Stock lets one beyond the end pass.
    if offset < min || offset > max + 1 {
        let remark = format!("Target offset {offset} not in consume queue range [{min}-{max}]");
        return Err(failed(remark));
    }
    Ok(offset)
}

/// The clients are told to go there, as brokers did before they could do it themselves.
fn at_the_clients(broker: &Broker, request: &ResetOffset, for_cpp: bool) -> Outcome {
    let ResetOffset { group, topic, timestamp, is_force, .. } = request;
    let Some(known) = broker.topics.get(topic) else {
        let remark =
            format!("[reset-offset] reset offset failed, no topic in this broker. topic={topic}");
        return Err(Refusal::new(ReplyCode::TopicNotExist, remark));
    };
    let mut offsets = BTreeMap::new();
    for queue_id in 0..known.config.write_queue_nums {
        let Some(committed) = broker.offsets.committed(group, topic, queue_id) else {
            return Err(failed(format!("THe consumer group <{group}> not exist")));
        };
        let at_time = offset_at(broker, topic, queue_id, *timestamp)?.max(0);
        let to = if *is_force || at_time < committed { at_time } else { committed };
        offsets.insert(queue_id, to);
    }
    let online = broker.clients.consumer_group(group).map(|known| known.members);
    let Some(members) = online.filter(|members| !members.is_empty()) else {
        let remark = format!(
            "Consumer not online, so can not reset offset, Group: {group} Topic: {topic} \
             Timestamp: {timestamp}"
        );
        return Err(Refusal::new(ReplyCode::ConsumerNotOnline, remark));
    };
    if let Some(old) = members.values().find(|member| member.version < version::V3_0_7_SNAPSHOT) {
        return Err(too_old(old));
    }
    let offset_table = by_queue(broker, topic, offsets);
    let told = if for_cpp {
        json::write(&for_c(&offset_table), Dialect::Fastjson)
    } else {
        json::write(&ResetOffsetBody { offset_table: offset_table.clone() }, Dialect::Fastjson)
    };
    let header = ResetOffset { is_force: false, offset: None, queue_id: -1, ..request.clone() };
    for member in members.values() {
        let code = RequestCode::ResetConsumerClientOffset.to_wire();
        let push = Command::request(code, &header).with_body(told.clone());
        if let Err(error) = member.peer.push(push) {
            warn!(client = member.client_id, %error, "cannot tell a consumer of a reset");
        }
    }
    info!(group, topic, clients = members.len(), "consumers told to reset their offsets");
    body(&ResetOffsetBody { offset_table })
}

/// C++ clients cannot read objects as keys.
fn for_c(table: &BTreeMap<MessageQueue, i64>) -> ResetOffsetBodyForC {
    let queue = |(queue, offset): (&MessageQueue, &i64)| MessageQueueForC {
        broker_name: queue.broker_name.clone(),
        offset: *offset,
        queue_id: queue.queue_id,
        topic: queue.topic.clone(),
    };
    ResetOffsetBodyForC { offset_table: table.iter().map(queue).collect() }
}
