//! Delay levels: messages wait in one queue for each level and are stored again when they are due.
//!
//! Within a level everything waits equally long, so each queue is in the order in which it is due.

use std::collections::BTreeMap;
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
use store::{Access, Batch, Entry, Limits, NewMessage, Read, STORE_TIME_LEAD_MAX_MS, Status};
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
/// A clock that is set is noticed within this time.
const LOOK: Duration = Duration::from_secs(60);

/// When messages are due, also after the clock was set back: then their time of delivery may be further away than
/// they are to wait at all, and they wait that long from when this was seen. So they are late, but never early.
#[derive(Debug, Default)]
struct Dues(BTreeMap<i32, Seen>);

/// Of one level: the messages before an offset have been seen to wait at a time.
#[derive(Debug, Clone, Copy)]
struct Seen {
    before: i64,
    at: Duration,
}

/// Two readings of clocks: of the one that may be set, and of one that never goes back.
#[derive(Debug, Clone, Copy)]
struct Now {
    ms: i64,
    steady: Duration,
}

impl Dues {
    /// How long a message of a level has still to wait, whose queue goes on to `end`.
    fn left_ms(&mut self, level: i32, entry: &Entry, end: i64, wait_ms: i64, now: Now) -> i64 {
        let left_ms = entry.tags_code.saturating_sub(now.ms);
        if left_ms <= wait_ms.saturating_add(STORE_TIME_LEAD_MAX_MS) {
            return left_ms.max(0);
        }
        let seen = self.0.entry(level).or_insert(Seen { before: 0, at: now.steady });
        if entry.queue_offset >= seen.before {
            *seen = Seen { before: end, at: now.steady };
        }
        let waited = now.steady.saturating_sub(seen.at).as_millis();
        wait_ms.saturating_sub(i64::try_from(waited).unwrap_or(i64::MAX)).max(0)
    }
}

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
    let started = clock::instant();
    let mut dues = Dues::default();
    loop {
        let arrived = broker.delay_arrived.notified();
        let step = {
            let broker = broker.clone();
            tokio::task::spawn_blocking(move || {
                let wait = deliver_due(&broker, &mut dues, || Now {
                    ms: clock::now_ms(),
                    steady: started.elapsed(),
                });
                (wait, dues)
            })
        };
        let wait_ms;
        (wait_ms, dues) = step.await.unwrap_or_else(|defect| {
            // Whatever it was, the messages of the other levels still have to be delivered.
            error!(%defect, "the delivery of delayed messages met a defect");
            (Some(REST_MS), Dues::default())
        });
        let wait = wait_ms.map_or(LOOK, |ms| Duration::from_millis(ms.unsigned_abs()).min(LOOK));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Messages that come close together are looked at together.
            () = arrived => tokio::time::sleep(GATHER).await,
            () = broker.shutdown.cancelled() => return,
        }
    }
}

/// Delivers every level as far as it is due, in turns; returns in how many milliseconds to come again.
fn deliver_due(broker: &Broker, dues: &mut Dues, now: impl Fn() -> Now) -> Option<i64> {
    let mut levels: Vec<i32> = (1..=broker.config.load().delay_levels_ms.len() as i32).collect();
    let mut next: Option<i64> = None;
    while !levels.is_empty() && !broker.shutdown.is_cancelled() {
        levels.retain(|level| {
            let due = match deliver(broker, *level, dues, now()) {
                Ok(Progress::More) => return true,
                Ok(Progress::DueIn(ms)) => Some(ms),
                Ok(Progress::Empty) => None,
                Err(refusal) => {
                    error!(level, error = %refusal, "cannot deliver delayed messages");
                    Some(REST_MS)
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
    /// In milliseconds.
    DueIn(i64),
    Empty,
}

fn deliver(broker: &Broker, level: i32, dues: &mut Dues, now: Now) -> Result<Progress, Refusal> {
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
    let wait_ms = broker.config.load().delay_levels_ms[(level - 1) as usize];
    let left = |entry| dues.left_ms(level, entry, read.max_offset, wait_ms, now);
    let waits = read.entries.iter().map(left).enumerate().find(|(_, ms)| *ms > 0);
    let ready = waits.map_or(read.entries.len(), |(ready, _)| ready);
    if let Some((0, left_ms)) = waits {
        return Ok(Progress::DueIn(left_ms));
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
    Ok(waits.map_or(Progress::More, |(_, left_ms)| Progress::DueIn(left_ms)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_makes_messages_late_and_never_early() {
        const HOUR: i64 = 3_600_000;
        const WAIT: i64 = 10_000;
        let mut dues = Dues::default();
        let stored_ms = 1_700_000_000_000;
        let mut left = |queue_offset, due_ms, end, ms, steady_ms| {
            let entry = Entry { queue_offset, position: 0, size: 0, tags_code: due_ms };
            let now = Now { ms, steady: Duration::from_millis(steady_ms) };
            dues.left_ms(3, &entry, end, WAIT, now)
        };
        let due_ms = stored_ms + WAIT;
        // As long as the clock is what it was, and a little before.
        assert_eq!(left(0, due_ms, 2, stored_ms, 0), WAIT);
        assert_eq!(left(0, due_ms, 2, stored_ms - 900, 0), WAIT + 900);
        assert_eq!(left(0, due_ms, 2, due_ms, 10_000), 0);
        assert_eq!(left(0, due_ms, 2, due_ms + 5, 10_005), 0);
        // Set back by an hour: it waits as long as it can have to.
        let now_ms = stored_ms - HOUR;
        assert_eq!(left(1, due_ms, 2, now_ms, 20_000), WAIT);
        assert_eq!(left(1, due_ms, 2, now_ms + 4_000, 24_000), WAIT - 4_000);
        assert_eq!(left(1, due_ms, 5, now_ms + 10_000, 30_000), 0);
        // What came later has not been seen before.
        assert_eq!(left(2, due_ms, 5, now_ms + 10_000, 30_000), WAIT);
        assert_eq!(left(4, due_ms, 9, now_ms + 20_000, 40_000), 0);
        assert_eq!(left(5, due_ms, 9, now_ms + 20_000, 40_000), WAIT);
    }
}
