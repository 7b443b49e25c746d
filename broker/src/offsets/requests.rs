//! What clients ask about positions: committed offsets, ends of queues, offsets by time.

use protocol::frame::Command;
use protocol::header::Empty;
use protocol::header::offset::{
    GetEarliestMsgStoretime, GetEarliestMsgStoretimeReply, GetMaxOffset, GetMaxOffsetReply,
    GetMinOffset, GetMinOffsetReply, QueryConsumerOffset, QueryConsumerOffsetReply, SearchOffset,
    SearchOffsetReply, UpdateConsumerOffset,
};
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use store::{Access, Boundary, Limits, QueueRef, Status};
use tracing::debug;

use crate::answer::{Context, Outcome};
use crate::broker::Broker;
use crate::event::Event;
use crate::topics::QUEUES_MAX;

/// Code 14. A group without an offset starts at 0 where nothing was ever deleted: that includes an empty
/// queue, since what arrives in it before the consumer's first pull would else be passed over.
pub fn query(context: &Context<'_>) -> Outcome {
    let request: QueryConsumerOffset = context.header()?;
    let QueryConsumerOffset { consumer_group: group, topic, queue_id, .. } = &request;
    let broker = context.broker;
    let offset = match broker.offsets.committed(group, topic, *queue_id) {
        Some(offset) => {
            // What is told is kept: it must not be less after a crash. But where nothing can be kept, a group
            // that reads some messages twice is better than one that cannot start.
            if let Err(error) = write_pending(broker) {
                debug!(group, topic, queue_id, %error, "told an offset that is not in the log");
            }
            Some(offset)
        }
        None if request.set_zero_if_not_found == Some(false) => None,
        None => {
            let queue = broker.store.find_queue(topic, *queue_id);
            let from_zero = queue.is_none_or(|queue| {
                broker.store.min_offset(queue) <= 0 && in_memory(broker, queue)
            });
            from_zero.then_some(0)
        }
    };
    match offset {
        Some(offset) => Ok(Command::reply(&QueryConsumerOffsetReply { offset })),
        None => Err(Refusal::new(
            ReplyCode::QueryNotFound,
            "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
        )),
    }
}

/// Whether the first message of a queue, if it has any, is still in memory.
pub(crate) fn in_memory(broker: &Broker, queue: QueueRef) -> bool {
    let first = Limits { messages: 1, bytes: 1, scan: 1 };
    let read = broker.store.read(queue, 0, first, Access::Cached, store::All);
    read.is_ok_and(|read| read.status != Status::Cold)
}

/// Commits that came with pulls enter the log.
pub fn write_pending(broker: &Broker) -> Result<(), Refusal> {
    if !broker.offsets.has_unwritten() {
        return Ok(());
    }
    let taken = std::cell::OnceCell::new();
    let take = || taken.get_or_init(|| broker.offsets.take_unwritten()).as_slice();
    let written = broker.journal.catch_up(&broker.store, clock::now_ms(), take);
    written.map_err(|error| {
        broker.offsets.put_unwritten_back(taken.into_inner().unwrap_or_default());
        Refusal::new(ReplyCode::ServiceNotAvailable, error.to_string())
    })
}

/// Code 15.
pub fn update(context: &Context<'_>) -> Outcome {
    let request: UpdateConsumerOffset = context.header()?;
    let UpdateConsumerOffset { consumer_group: group, topic, queue_id, commit_offset } = request;
    let broker = context.broker;
    if broker.groups.get(&group).is_none() {
        let remark = format!("Group {group} not exist!");
        return Err(Refusal::new(ReplyCode::SubscriptionGroupNotExist, remark));
    }
    if broker.topics.get(&topic).is_none() {
        let remark = format!("Topic {topic} not exist!");
        return Err(Refusal::new(ReplyCode::TopicNotExist, remark));
    }
    if queue_id < 0 {
        let remark = format!("QueueId is null, topic is {topic}");
        return Err(Refusal::new(ReplyCode::SystemError, remark));
    }
    if queue_id >= QUEUES_MAX {
        let remark = format!("queueId {queue_id} is not below {QUEUES_MAX}, topic is {topic}");
        return Err(Refusal::new(ReplyCode::InvalidParameter, remark));
    }
    if commit_offset < 0 {
        let remark = format!("Offset is null, topic is {topic}");
        return Err(Refusal::new(ReplyCode::SystemError, remark));
    }
    let known = broker.offsets.committed(&group, &topic, queue_id);
    let pending = broker.offsets.reset_pending(&group, &topic, queue_id);
    if !pending && known != Some(commit_offset) {
        broker.record(&[Event::Offset { group, topic, queue_id, offset: commit_offset }])?;
    } else if broker.offsets.has_unwritten() {
        write_pending(broker)?;
    }
    Ok(Command::reply(&Empty {}))
}

/// Code 30. A topic or queue nobody knows ends at 0.
pub fn max(context: &Context<'_>) -> Outcome {
    let request: GetMaxOffset = context.header()?;
    let queue = context.broker.store.find_queue(&request.topic, request.queue_id);
    let offset = queue.map_or(0, |queue| context.broker.store.max_offset(queue));
    Ok(Command::reply(&GetMaxOffsetReply { offset }))
}

/// Code 31.
pub fn min(context: &Context<'_>) -> Outcome {
    let request: GetMinOffset = context.header()?;
    let queue = context.broker.store.find_queue(&request.topic, request.queue_id);
    let offset = queue.map_or(0, |queue| context.broker.store.min_offset(queue));
    Ok(Command::reply(&GetMinOffsetReply { offset }))
}

/// Code 29.
pub fn search(context: &Context<'_>) -> Outcome {
    let request: SearchOffset = context.header()?;
    let boundary = match request.boundary_type.as_deref() {
        Some(kind) if kind.eq_ignore_ascii_case("upper") => Boundary::Upper,
        _ => Boundary::Lower,
    };
    let store = &context.broker.store;
    let offset = match store.find_queue(&request.topic, request.queue_id) {
        Some(queue) => {
            store.offset_by_time(queue, request.timestamp, boundary).map_err(unreadable)?
        }
        None => 0,
    };
    Ok(Command::reply(&SearchOffsetReply { offset }))
}

/// Code 32; −1 when the queue is empty.
pub fn earliest(context: &Context<'_>) -> Outcome {
    let request: GetEarliestMsgStoretime = context.header()?;
    let store = &context.broker.store;
    let time = match store.find_queue(&request.topic, request.queue_id) {
        Some(queue) => store.earliest_store_time(queue).map_err(unreadable)?,
        None => None,
    };
    Ok(Command::reply(&GetEarliestMsgStoretimeReply { timestamp: time.unwrap_or(-1) }))
}

/// The disk does not give back what it holds.
pub fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReplyCode::SystemError, format!("cannot read the store: {error}"))
}
