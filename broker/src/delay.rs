//! Delay levels: messages wait in one queue for each level and are stored again when they are due.
//!
//! Within a level everything waits equally long, so each queue is in the order in which it is due.

use std::sync::Arc;
use std::time::Duration;

use protocol::body::DelayOffsetFile;
use protocol::frame::Command;
use protocol::header::Empty;
use protocol::json::{self, Dialect};
use protocol::name;
use protocol::properties::{self, name as property};
use protocol::record::Record;
use protocol::reply::{Refusal, ReplyCode};
use remoting::clock;
use store::{Access, Batch, Entry, Limits, NewMessage, Read, Status};
use tracing::{error, warn};

use crate::answer::{Context, Outcome};
use crate::broker::Broker;
use crate::event::Event;
use crate::offsets::requests::unreadable;
use crate::send::not_pushed;
use crate::transaction::copy;

/// Messages of one level delivered in one step.
const STEP_MESSAGES: usize = 256;
/// How long a message that just came may wait until its due time is looked at.
const GATHER: Duration = Duration::from_millis(10);
/// After a failure a level rests this long.
const REST_MS: i64 = 1000;

/// Code 45.
pub fn offsets(context: &Context<'_>) -> Outcome {
    let body = DelayOffsetFile {
        offset_table: context.broker.delayed.lock().clone(),
        ..DelayOffsetFile::default()
    };
    Ok(Command::reply(&Empty {}).with_body(json::write(&body, Dialect::Standard)))
}

/// Delivers what is due until the process ends.
pub async fn run(broker: Arc<Broker>) {
    loop {
        let arrived = broker.delay_arrived.notified();
        let step = {
            let broker = broker.clone();
            tokio::task::spawn_blocking(move || deliver_due(&broker))
        };
        let next_ms = step.await.unwrap_or_else(|defect| {
            // Whatever it was, the messages of the other levels still have to be delivered.
            error!(%defect, "the delivery of delayed messages met a defect");
            Some(clock::now_ms() + REST_MS)
        });
        let wait = match next_ms {
            Some(at_ms) => Duration::from_millis((at_ms - clock::now_ms()).max(0).unsigned_abs()),
            None => Duration::from_secs(3600),
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Messages that come close together are looked at together.
            () = arrived => tokio::time::sleep(GATHER).await,
            () = broker.shutdown.cancelled() => return,
        }
    }
}

/// Delivers every level as far as it is due, in turns; returns when to come again.
fn deliver_due(broker: &Broker) -> Option<i64> {
    let mut levels: Vec<i32> = (1..=broker.config.load().delay_levels_ms.len() as i32).collect();
    let mut next: Option<i64> = None;
    while !levels.is_empty() && !broker.shutdown.is_cancelled() {
        levels.retain(|level| {
            let due = match deliver(broker, *level) {
                Ok(Progress::More) => return true,
                Ok(Progress::DueAt(at_ms)) => Some(at_ms),
                Ok(Progress::Empty) => None,
                Err(refusal) => {
                    error!(level, error = %refusal, "cannot deliver delayed messages");
                    Some(clock::now_ms() + REST_MS)
                }
            };
            next = [next, due].into_iter().flatten().min();
            false
        });
    }
    next
}

enum Progress {
    /// There may be more that is due.
    More,
    DueAt(i64),
    Empty,
}

fn deliver(broker: &Broker, level: i32) -> Result<Progress, Refusal> {
    let Some(queue) = broker.store.find_queue(name::SCHEDULE_TOPIC, level - 1) else {
        return Ok(Progress::Empty);
    };
    let from = broker.delayed.lock().get(&level).copied().unwrap_or(0);
    let limits = Limits { messages: STEP_MESSAGES, bytes: 1 << 20, scan: STEP_MESSAGES };
    let read = broker.store.read(queue, from, limits, Access::Blocking, store::All);
    let read = read.map_err(unreadable)?;
    match read.status {
        Status::Found => {}
        Status::Empty | Status::AtEnd => return Ok(Progress::Empty),
        // Retention was here, or the offset is from another life of this log.
        _ => {
            broker.record(&[Event::Delayed { level, offset: read.next_offset }])?;
            return Ok(Progress::More);
        }
    }
    let now_ms = clock::now_ms();
    let longest = broker.config.load().delay_levels_ms[(level - 1) as usize];
    // A due time further away than the level is one of a clock that was wrong.
    let due = |at_ms: i64| at_ms <= now_ms || at_ms > now_ms + longest;
    let ready = read.entries.iter().take_while(|entry| due(entry.tags_code)).count();
    if ready == 0 {
        return Ok(Progress::DueAt(read.entries[0].tags_code));
    }
    let mut batch = Batch::new();
    let (done, stuck) = push_all(broker, &mut batch, &read, ready);
    if done > 0 {
        let offset = read.entries[done - 1].queue_offset + 1;
        broker.append_with(&mut batch, &[Event::Delayed { level, offset }])?;
    }
    if let Some(refusal) = stuck {
        return Err(refusal);
    }
    Ok(if ready == read.entries.len() {
        Progress::More
    } else {
        Progress::DueAt(read.entries[ready].tags_code)
    })
}

/// Adds the first `count` messages of `read` for the topics and queues they were sent to; says how many are
/// done with, and why it is not all of them.
fn push_all(
    broker: &Broker,
    batch: &mut Batch,
    read: &Read,
    count: usize,
) -> (usize, Option<Refusal>) {
    let mut slices = read.slices.iter();
    let mut rest: &[u8] = &[];
    for (done, Entry { position, size, .. }) in read.entries[..count].iter().enumerate() {
        if rest.is_empty() {
            rest = slices.next().map(AsRef::as_ref).unwrap_or_default();
        }
        let message;
        (message, rest) = rest.split_at(rest.len().min(*size as usize));
        let record = match Record::decode(message) {
            Ok((record, _)) => record,
            Err(error) => {
                warn!(position, %error, "passing over a delayed message that cannot be read");
                continue;
            }
        };
        if let Err(refusal) = push(broker, batch, &record) {
            // Only what can never be delivered is passed over; the others must not wait for it.
            if !hopeless(&refusal) {
                return (done, Some(refusal));
            }
            warn!(position, error = %refusal, "passing over a delayed message");
        }
    }
    (count, None)
}

/// Whether a message that was refused so will be refused for ever.
fn hopeless(refusal: &Refusal) -> bool {
    matches!(
        refusal.code,
        ReplyCode::TopicNotExist | ReplyCode::MessageIllegal | ReplyCode::InvalidParameter
    )
}

fn push(broker: &Broker, batch: &mut Batch, record: &Record<'_>) -> Result<(), Refusal> {
    let properties = record.properties;
    let topic = properties::get_str(properties, property::REAL_TOPIC).unwrap_or_default();
    let queue_id = properties::get_number(properties, property::REAL_QUEUE_ID).unwrap_or(0);
    let topic = match broker.topics.get(topic) {
        Some(topic) => topic,
        // The retry topic of a group may have been deleted meanwhile.
        None if name::retry_group(topic).is_some() => broker.topic_or_create(topic, 1, 0)?,
        None => return Err(crate::broker::topic_missing(topic)),
    };
    let message = NewMessage { properties: &[properties], ..copy(broker, record) };
    let queue_id = if queue_id < topic.queue_count() { queue_id } else { 0 };
    let queue = topic.queue(&broker.store, queue_id)?;
    broker.store.push(batch, queue, &message).map_err(not_pushed)
}
