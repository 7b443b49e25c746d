//! What a pop brought, message by message, each with its receipt handle.

use std::collections::HashMap;

use protocol::grpc::{Message, Resource};
use protocol::properties::{self, name};
use protocol::record::Record;
use tracing::warn;

use crate::backend::Popped;
use crate::handle::{self, Handle, Retry};
use crate::message::{Delivery, from_record};

/// A message that is now hidden from others.
#[derive(Debug, Clone)]
pub struct Taken {
    pub message: Message,
    pub handle: String,
    /// The how manieth delivery this is, from 1.
    pub attempt: i32,
    pub visible_at_ms: i64,
}

/// Messages one pop may bring.
const MESSAGES_MAX: usize = 1024;

/// Reads the records; one that cannot be read ends its piece, as nothing after it can be found.
pub fn messages(popped: &Popped, broker: &str, topic: &Resource, in_order: bool) -> Vec<Taken> {
    let starts = starts(popped.header.start_offset_info.as_deref().unwrap_or_default());
    let counts = match &popped.header.order_count_info {
        Some(info) if in_order => counts(info),
        _ => HashMap::new(),
    };
    let mut taken = Vec::new();
    for piece in &popped.records {
        read(popped, piece.clone(), &mut taken, |record, records| {
            message(popped, record, records, broker, topic, &starts, &counts)
        });
    }
    taken
}

/// Reads one piece, record by record.
fn read(
    popped: &Popped,
    mut rest: bytes::Bytes,
    taken: &mut Vec<Taken>,
    message: impl Fn(&Record<'_>, &bytes::Bytes) -> Option<Taken>,
) {
    while !rest.is_empty() && taken.len() < MESSAGES_MAX {
        let (record, bytes) = match Record::decode(&rest) {
            Ok(read) => read,
            Err(error) => {
                warn!(pop = ?popped.header, %error, "a popped record cannot be read");
                break;
            }
        };
        taken.extend(message(&record, &rest));
        let next = rest.slice(bytes..);
        rest = next;
    }
}

fn message(
    popped: &Popped,
    record: &Record<'_>,
    records: &bytes::Bytes,
    broker: &str,
    topic: &Resource,
    starts: &HashMap<(&str, i32), i64>,
    counts: &HashMap<(i32, Option<i64>), i32>,
) -> Option<Taken> {
    let header = &popped.header;
    let (queue, offset) = (record.queue_id, record.queue_offset);
    let retry = Retry::of(record.topic, &topic.name);
    // A message that comes again may carry what its broker made for it: stock brokers write it into retries
    // when they give them the name of their topic back; others leave them the name they are stored under.
    let handle = match properties::get_str(record.properties, name::POP_CK) {
        Some(extra_info) => format!("{extra_info} {}", record.physical_offset),
        None => handle::Taken {
            start_offset: starts.get(&(retry.flag(), queue)).copied().unwrap_or(offset),
            pop_time_ms: header.pop_time,
            invisible_ms: header.invisible_time,
            revive_queue_id: header.revive_qid,
            retry,
            broker,
            queue_id: queue,
            offset,
        }
        .handle(record.physical_offset),
    };
    let Ok(read) = Handle::parse(&handle) else {
        warn!(broker, topic = topic.name, handle, "a popped message has no usable handle");
        return None;
    };
    let visible_at_ms = read.visible_at_ms();
    let counted = counts.get(&(queue, Some(offset))).or_else(|| counts.get(&(queue, None)));
    let times = counted.copied().filter(|times| *times > 0).unwrap_or(record.reconsume_times);
    let attempt = times.saturating_add(1);
    let delivery = Delivery {
        topic: topic.clone(),
        handle: Some(handle.clone()),
        attempt,
        invisible_ms: Some(header.invisible_time),
    };
    let message = from_record(record, records, delivery);
    Some(Taken { message, handle, attempt, visible_at_ms })
}

/// `retry queue offset;…` by retry flag and queue.
fn starts(info: &str) -> HashMap<(&str, i32), i64> {
    info.split(';')
        .filter_map(|entry| {
            let mut words = entry.split(' ');
            let retry = words.next()?;
            Some(((retry, words.next()?.parse().ok()?), words.next()?.parse().ok()?))
        })
        .collect()
}

/// `retry queue times;…` for whole queues and `retry qo<queue>%<offset> times` for one message.
fn counts(info: &str) -> HashMap<(i32, Option<i64>), i32> {
    let read = |entry: &str| {
        let mut words = entry.split(' ').skip(1);
        let (place, times) = (words.next()?, words.next()?.parse().ok()?);
        let place = match place.strip_prefix("qo") {
            Some(place) => {
                let (queue, offset) = place.split_once('%')?;
                (queue.parse().ok()?, Some(offset.parse().ok()?))
            }
            None => (place.parse().ok()?, None),
        };
        Some((place, times))
    };
    info.split(';').filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_says_of_queues_and_counts_is_read() {
        let starts = starts("0 3 17;1 0 5;x;0 y 1;");
        assert_eq!(starts.get(&("0", 3)), Some(&17));
        assert_eq!((starts.get(&("1", 0)), starts.len()), (Some(&5), 2));
        let counts = counts("0 3 2;0 qo3%19 4;0 qo3 1;bad");
        assert_eq!(counts.get(&(3, None)), Some(&2));
        assert_eq!((counts.get(&(3, Some(19))), counts.len()), (Some(&4), 2));
    }
}
