//! What clients ask about popping, and how it is answered.

use protocol::body::{BatchAckEntry, BatchAckMessageRequestBody};
use protocol::fields::Header;
use protocol::frame::{Command, Head};
use protocol::header::Empty;
use protocol::header::pop::{
    AckMessage, ChangeInvisibleTime, PollingInfo, PollingInfoReply, PopMessage,
};
use protocol::reply::{Refusal, ReplyCode};
use remoting::outbox::{Chunk, Outbox, ReplyTo};

use super::handle::{self, Handle};
use super::ledger::Runs;
use super::settle::{self, Ack};
use super::take::{Look, Pop, PopReply};
use super::{Kind, ledger};
use crate::answer::{Context, Outcome};
use crate::broker::Broker;

/// Code 200050.
pub fn pop(context: &Context<'_>, out: &mut Outbox) {
    let to = context.to;
    let pop = context.header().and_then(|request: PopMessage| Pop::check(context.broker, &request));
    let pop = match pop {
        Ok(pop) => pop,
        Err(refusal) => return out.now.refuse(to, &refusal),
    };
    match pop.look() {
        Ok(Look::Found(reply)) => {
            pop.pass_on(&reply);
            answer(&mut out.now, to, &reply);
        }
        Ok(Look::Nothing { reply, .. }) if !pop.waits() => answer(&mut out.now, to, &reply),
        Ok(_) => out.later(async move {
            let mut chunk = Chunk::default();
            match pop.serve().await {
                Ok(reply) => answer(&mut chunk, to, &reply),
                Err(refusal) => chunk.refuse(to, &refusal),
            }
            chunk
        }),
        Err(refusal) => out.now.refuse(to, &refusal),
    }
}

fn answer(chunk: &mut Chunk, to: ReplyTo, reply: &PopReply) {
    if to.oneway {
        return;
    }
    let mut head = Head::reply(reply.code, to.opaque, to.encoding);
    head.remark =
        Some(if reply.code == ReplyCode::Success { "FOUND" } else { "NO_MESSAGE_IN_QUEUE" });
    chunk.frame(&head, |sink| Header::write(&reply.header, sink), &reply.slices);
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

/// Code 200055.
pub fn polling_info(context: &Context<'_>) -> Outcome {
    let request: PollingInfo = context.header()?;
    context.broker.topic(&request.topic)?;
    let known = context.broker.pops.find(&request.consumer_group, &request.topic);
    let waiting = known.map_or(0, |consumption| consumption.waiting());
    let polling_num = i32::try_from(waiting).unwrap_or(i32::MAX);
    Ok(Command::reply(&PollingInfoReply { polling_num }))
}
