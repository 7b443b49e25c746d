//! What clients ask about popping, and how it is answered.

use protocol::body::{BatchAckEntry, BatchAckMessageRequestBody};
use protocol::fields::Header;
use protocol::frame::{Command, Head};
use protocol::header::Empty;
use protocol::header::pop::{
    AckMessage, ChangeInvisibleTime, Notification, PollingInfo, PollingInfoReply, PopMessage,
    PopMessageReply,
};
use protocol::header::pull::PeekMessage;
use protocol::reply::{Refusal, ReplyCode};
use remoting::outbox::{Chunk, Outbox, ReplyTo};
use store::Access;

use super::handle::{self, Handle};
use super::ledger::Runs;
use super::settle::{self, Ack};
use super::take::{Look, Pop, PopReply};
use super::{Kind, ledger};
use crate::answer::{self, Context, Outcome};
use crate::broker::Broker;

/// Code 200050.
pub fn pop(context: &Context<'_>, out: &mut Outbox) {
    let to = context.to;
    let pop = context.header().and_then(|request: PopMessage| Pop::check(context.broker, &request));
    let pop = match pop {
        Ok(pop) => pop,
        Err(refusal) => return out.now.refuse(to, &refusal),
    };
    match pop.look(Access::Cached) {
        Ok(Look::Found(reply)) => {
            pop.pass_on(&reply);
            give(&mut out.now, to, &reply);
        }
        Ok(Look::Nothing { reply, .. }) if !pop.waits() => give(&mut out.now, to, &reply),
        Ok(_) => out.later(async move {
            let mut chunk = Chunk::default();
            match pop.serve().await {
                Ok(reply) => give(&mut chunk, to, &reply),
                Err(refusal) => chunk.refuse(to, &refusal),
            }
            chunk
        }),
        Err(refusal) => out.now.refuse(to, &refusal),
    }
}

fn give(chunk: &mut Chunk, to: ReplyTo, reply: &PopReply) {
    put(chunk, to, reply.code, &reply.header, &reply.slices);
}

fn put(
    chunk: &mut Chunk,
    to: ReplyTo,
    code: ReplyCode,
    header: &PopMessageReply,
    body: &[bytes::Bytes],
) {
    if to.oneway {
        return;
    }
    let mut head = Head::reply(code, to.opaque, to.encoding);
    head.remark = Some(if code == ReplyCode::Success { "FOUND" } else { "NO_MESSAGE_IN_QUEUE" });
    chunk.frame(&head, |sink| Header::write(header, sink), body);
}

/// Refuses a queue that the topic does not have, and an offset that the queue does not have.
fn check_offset(
    broker: &Broker,
    topic: &str,
    kind: Kind,
    group: &str,
    queue_id: i32,
    offset: i64,
) -> Result<(), Refusal> {
    let retries;
    let topic = match kind {
        Kind::Topic => topic,
        Kind::Retry => {
            retries = protocol::name::retry_topic(group);
            &retries
        }
    };
    let known = broker.topic(topic)?;
    let readable = known.config.read_queue_nums;
    if !(0..readable).contains(&queue_id) {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{readable}]"
        );
        return Err(Refusal::new(ReplyCode::MessageIllegal, remark));
    }
    let queue = known.queue(&broker.store, queue_id)?;
    let (min, max) = (broker.store.min_offset(queue), broker.store.max_offset(queue));
    if !(min..max).contains(&offset) {
        let remark = format!(
            "offset is illegal, key:{topic}@{queue_id}, commit:{offset}, store:{min}~{max}"
        );
        return Err(Refusal::new(ReplyCode::NoMessage, remark));
    }
    Ok(())
}

fn stale(count: u32) -> Refusal {
    let remark = format!("{count} of the messages were delivered again since, or never");
    Refusal::new(ReplyCode::NoMessage, remark)
}

/// Code 200051.
pub fn ack(context: &Context<'_>) -> Outcome {
    let request: AckMessage = context.header()?;
    let broker = context.broker;
    let (group, topic) = (&request.consumer_group, &request.topic);
    let handle = Handle::read(&request.extra_info)?;
    let topic = handle::real_topic(topic, group);
    let ack = Ack { queue_id: request.queue_id, ..Ack::of(&handle, group, topic, request.offset) };
    check_offset(broker, topic, ack.kind, group, ack.queue_id, request.offset)?;
    let left = settle::ack(broker, &ack)?;
    if left > 0 {
        return Err(stale(left));
    }
    settle::keep(broker)?;
    Ok(Command::reply(&Empty {}))
}

/// Code 200151. Refused only if nothing of it could be settled: there is one answer for all.
pub fn batch_ack(context: &Context<'_>) -> Outcome {
    let body: BatchAckMessageRequestBody = context.body()?;
    if body.acks.is_empty() {
        return Err(Refusal::new(ReplyCode::NoMessage, "there is nothing to acknowledge"));
    }
    let (mut asked, mut left) = (0, 0);
    for entry in &body.acks {
        let messages = bits(entry);
        asked += messages.iter().map(|run| run.count() as u32).sum::<u32>();
        let ack = Ack {
            group: &entry.consumer_group,
            topic: handle::real_topic(&entry.topic, &entry.consumer_group),
            kind: if handle::is_retry(&entry.retry) { Kind::Retry } else { Kind::Topic },
            queue_id: entry.queue_id,
            popped_ms: entry.pop_time,
            revive_queue: entry.revive_queue_id,
            messages,
        };
        left += settle::ack(context.broker, &ack)?;
    }
    settle::keep(context.broker)?;
    if asked > 0 && left == asked {
        return Err(stale(left));
    }
    Ok(Command::reply(&Empty {}))
}

/// The messages of an entry: bits counted from its start.
fn bits(entry: &BatchAckEntry) -> Runs {
    let words = entry.bit_set.chunks(8).zip((0i64..).step_by(64));
    let runs = words.filter_map(|(bytes, at)| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        ledger::Run::new(entry.start_offset.checked_add(at)?, u64::from_le_bytes(word))
    });
    // Ends of the number range are no offsets.
    runs.filter(|run| (0..i64::MAX - 64).contains(&run.first)).collect()
}

/// Code 200053.
pub fn change_invisible(context: &Context<'_>) -> Outcome {
    let request: ChangeInvisibleTime = context.header()?;
    let group = &request.consumer_group;
    let handle = Handle::read(&request.extra_info)?;
    let handle = Handle { queue_id: request.queue_id, ..handle };
    let topic = handle::real_topic(&request.topic, group);
    let kind = if handle.retry { Kind::Retry } else { Kind::Topic };
    check_offset(context.broker, topic, kind, group, request.queue_id, request.offset)?;
    let reply = settle::hide(
        context.broker,
        group,
        topic,
        &handle,
        request.offset,
        request.invisible_time,
    )?;
    settle::keep(context.broker)?;
    Ok(Command::reply(&reply))
}

/// A pop that asks for nothing that the request does not say.
fn pop_of(group: String, topic: String, queue_id: i32) -> PopMessage {
    PopMessage {
        consumer_group: group,
        topic,
        queue_id,
        max_msg_nums: 1,
        invisible_time: 0,
        poll_time: 0,
        born_time: 0,
        init_mode: 0,
        exp_type: None,
        exp: None,
        order: None,
        attempt_id: None,
    }
}

/// Code 200054.
pub fn notification(context: &Context<'_>, out: &mut Outbox) {
    let pop = context.header().and_then(|request: Notification| {
        let Notification { consumer_group, topic, queue_id, .. } = request;
        let pop = PopMessage {
            poll_time: request.poll_time,
            born_time: request.born_time,
            order: request.order,
            attempt_id: request.attempt_id,
            ..pop_of(consumer_group, topic, queue_id)
        };
        Pop::check(context.broker, &pop)
    });
    match pop {
        Ok(pop) => {
            answer::later(context, out, async move { Ok(Command::reply(&pop.watch().await?)) })
        }
        Err(refusal) => out.now.refuse(context.to, &refusal),
    }
}

/// Code 200052: the next messages, which stay where they are. May have to wait for the disk.
pub fn peek(context: &Context<'_>, out: &mut Outbox) {
    let to = context.to;
    let pop = context.header().and_then(|request: PeekMessage| {
        let PeekMessage { consumer_group, topic, queue_id, max_msg_nums } = request;
        let pop = PopMessage { max_msg_nums, ..pop_of(consumer_group, topic, queue_id) };
        Pop::check(context.broker, &pop)
    });
    let pop = match pop {
        Ok(pop) => pop,
        Err(refusal) => return out.now.refuse(to, &refusal),
    };
    let threads = context.threads.clone();
    out.later(async move {
        let _permit = threads.acquire().await.expect("it is never closed");
        let peeked = tokio::task::spawn_blocking(move || pop.peek()).await;
        let mut chunk = Chunk::default();
        match peeked.unwrap_or_else(|_| Err(crate::broker::defect())) {
            Ok(reply) => {
                let none = reply.slices.is_empty();
                let code = if none { ReplyCode::PullNotFound } else { ReplyCode::Success };
                let header = PopMessageReply {
                    start_offset_info: None,
                    msg_offset_info: None,
                    revive_qid: 0,
                    ..reply.header
                };
                put(&mut chunk, to, code, &header, &reply.slices);
            }
            Err(refusal) => chunk.refuse(to, &refusal),
        }
        chunk
    });
}

/// Code 200055.
pub fn polling_info(context: &Context<'_>) -> Outcome {
    let request: PollingInfo = context.header()?;
    context.broker.topic(&request.topic)?;
    let known = context.broker.pops.find(&request.consumer_group, &request.topic);
    let waiting = known.map_or(0, |consumption| consumption.waiting());
    let polling_num = i32::try_from(waiting).unwrap_or(i32::MAX);
    Ok(Command::reply(&PollingInfoReply { polling_num }))
}
