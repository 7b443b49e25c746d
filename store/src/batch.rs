//! A group of messages, encoded outside of any lock, that enters the log as a whole.

use std::net::SocketAddr;

use protocol::properties::{self, KEY_SEPARATOR, name};
use protocol::record::{self, Record, at, sys_flag};

use crate::Core;
use crate::error::PushError;
use crate::keys::{mix, tag_key};
use crate::queue::QueueRef;

/// Scratch that shrinks back to this after a group of large messages.
const KEPT_BYTES: usize = 1 << 20;

/// A message as it comes from a client. Queue and log position, store time and checksum are added here.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    pub flag: i32,
    /// The host bits are set from the hosts.
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    /// Written one after another; each but the last must end with the pair separator (`\x02`) or be empty.
    pub properties: &'a [&'a [u8]],
}

/// Reused from group to group; one for each connection.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
    /// Mixed hashes of the keys of all items.
    pub(crate) keys: Vec<u32>,
    /// Log position of the first byte, once appended.
    pub(crate) base: u64,
}

#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) queue: QueueRef,
    pub(crate) at: u32,
    pub(crate) size: u32,
    pub(crate) store_timestamp_at: u16,
    /// Where an inner batch says at which offset it begins; 0 for others.
    pub(crate) inner_base_at: u32,
    /// Offsets the message takes in its queue: 1, or more for an inner batch, or none outside of queues.
    pub(crate) offsets: u16,
    pub(crate) tags: Tags,
    pub(crate) keys_end: u32,
    pub(crate) queue_offset: i64,
}

/// What the unit holds in its last field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    Code(i64),
    /// Scheduled messages: the store time plus this.
    Delay(i64),
}

impl Tags {
    pub(crate) fn code(self, store_timestamp: i64) -> i64 {
        match self {
            Tags::Code(code) => code,
            Tags::Delay(delay) => store_timestamp.saturating_add(delay),
        }
    }
}

/// Where a message of an appended batch came to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub queue: QueueRef,
    pub queue_offset: i64,
    pub position: u64,
    pub size: u32,
}

impl Batch {
    pub fn new() -> Batch {
        Batch::default()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Encoded bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Makes the batch empty for the next group.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.keys.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes.shrink_to(KEPT_BYTES);
        }
    }

    /// Takes back what was pushed after the first `messages`.
    pub fn truncate(&mut self, messages: usize) {
        let Some(item) = self.items.get(messages) else { return };
        self.bytes.truncate(item.at as usize);
        let keys = messages.checked_sub(1).map_or(0, |last| self.items[last].keys_end);
        self.keys.truncate(keys as usize);
        self.items.truncate(messages);
    }

    /// After a successful append: where each message lies, in the order they were pushed.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Stored> + '_ {
        self.items.iter().map(|item| Stored {
            queue: item.queue,
            queue_offset: item.queue_offset,
            position: self.base + u64::from(item.at),
            size: item.size,
        })
    }

    /// After a successful append: the records as they were written, in the order they were pushed.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &[u8]> + '_ {
        self.items.iter().map(|item| &self.bytes[item.at as usize..][..item.size as usize])
    }

    pub(crate) fn push(
        &mut self,
        core: &Core,
        queue_ref: QueueRef,
        message: &NewMessage<'_>,
    ) -> Result<(), PushError> {
        let queue = core.queues.queue(queue_ref);
        let topic = core.queues.topic(queue);
        let at = self.bytes.len();
        let record = Record {
            body_crc: record::body_crc(message.body),
            queue_id: queue.queue_id,
            flag: message.flag,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: message.sys_flag,
            born_timestamp: message.born_timestamp,
            born_host: message.born_host,
            store_timestamp: 0,
            store_host: message.store_host,
            reconsume_times: message.reconsume_times,
            prepared_transaction_offset: message.prepared_transaction_offset,
            body: message.body,
            topic: &topic.name,
            properties: &[],
        };
        // What surely does not fit is refused before it is copied.
        let estimate = record::OVERHEAD + message.body.len() + topic.name.len();
        let size = if estimate > core.config.message_bytes_max {
            estimate
        } else {
            record.encode_with_properties(message.properties, &mut self.bytes)?
        };
        if size > core.config.message_bytes_max {
            self.bytes.truncate(at);
            let max = core.config.message_bytes_max;
            return Err(PushError::MessageTooLarge { bytes: size, max });
        }
        if self.bytes.len() > core.group_bytes_max {
            let (bytes, max) = (self.bytes.len(), core.group_bytes_max);
            self.bytes.truncate(at);
            return Err(PushError::GroupTooLarge { bytes, max });
        }
        let properties_length: usize = message.properties.iter().map(|piece| piece.len()).sum();
        let stored_properties = &self.bytes[at + size - properties_length..];
        let v6 = message.born_host.is_ipv6();
        let inner_base = (message.sys_flag & sys_flag::INNER_BATCH != 0)
            .then(|| inner_base(stored_properties))
            .flatten()
            .map_or(0, |place| size - properties_length + place);
        let meaning = core.meaning(topic, message.sys_flag, stored_properties, &mut self.keys);
        self.items.push(Item {
            queue: queue_ref,
            at: u32::try_from(at).expect("groups are smaller than 4 GiB"),
            size: u32::try_from(size).expect("groups are smaller than 4 GiB"),
            store_timestamp_at: if v6 { 68 } else { 56 },
            inner_base_at: u32::try_from(inner_base).expect("groups are smaller than 4 GiB"),
            offsets: meaning.offsets,
            tags: meaning.tags,
            keys_end: u32::try_from(self.keys.len()).expect("fewer keys than bytes"),
            queue_offset: 0,
        });
        Ok(())
    }

    /// Fills in what only the log knows.
    pub(crate) fn patch(&mut self, index: usize, position: u64, store_timestamp: i64) {
        let item = &self.items[index];
        let record = &mut self.bytes[item.at as usize..][..item.size as usize];
        record[at::QUEUE_OFFSET..][..8].copy_from_slice(&item.queue_offset.to_be_bytes());
        record[at::PHYSICAL_OFFSET..][..8].copy_from_slice(&position.to_be_bytes());
        record[usize::from(item.store_timestamp_at)..][..8]
            .copy_from_slice(&store_timestamp.to_be_bytes());
        if item.inner_base_at > 0 {
            let digits = format!("{:0width$}", item.queue_offset, width = INNER_BASE_BLANK.len());
            record[item.inner_base_at as usize..][..digits.len()]
                .copy_from_slice(digits.as_bytes());
        }
    }
}

/// What an inner batch that is pushed has as its `INNER_BASE`: room for the first of its offsets, without which a
/// stock broker would give it only that one when it builds its queues from the log.
pub const INNER_BASE_BLANK: &str = "0000000000000000000";

/// Where that room is in some properties.
fn inner_base(properties: &[u8]) -> Option<usize> {
    let blank = properties::pairs(properties)
        .find(|(key, _)| *key == name::INNER_BASE.as_bytes())
        .filter(|(_, value)| *value == INNER_BASE_BLANK.as_bytes())?
        .1;
    Some(blank.as_ptr().addr() - properties.as_ptr().addr())
}

/// What the properties of a message mean for the indexes.
#[derive(Debug)]
pub(crate) struct Meaning {
    pub(crate) tags: Tags,
    pub(crate) offsets: u16,
}

impl Core {
    /// Reads the properties once, for live and recovered messages alike; adds the hashes of the keys to `keys`.
    pub(crate) fn meaning(
        &self,
        topic: &crate::queue::Topic,
        flags: i32,
        stored_properties: &[u8],
        keys: &mut Vec<u32>,
    ) -> Meaning {
        let (mut tags, mut key_words, mut unique_key, mut delay_level, mut inner) =
            (None, None, None, None, None);
        for (key, value) in properties::pairs(stored_properties) {
            match key {
                _ if key == name::TAGS.as_bytes() => tags = Some(value),
                _ if key == name::KEYS.as_bytes() => key_words = Some(value),
                _ if key == name::UNIQ_KEY.as_bytes() => unique_key = Some(value),
                _ if key == name::DELAY_TIME_LEVEL.as_bytes() => delay_level = Some(value),
                _ if key == name::INNER_NUM.as_bytes() => inner = Some(value),
                _ => {}
            }
        }
        if sys_flag::transaction(flags) != sys_flag::TRANSACTION_ROLLBACK {
            let words = key_words.unwrap_or_default().split(|byte| *byte == KEY_SEPARATOR);
            for key in unique_key.into_iter().chain(words.filter(|word| !word.is_empty())) {
                keys.push(mix(topic.key_prefix.with(key).for_index()));
            }
            if let Some(tags) = tags {
                keys.push(mix(tag_key(topic.key_prefix, tags).for_index()));
            }
        }
        let delay = delay_level.filter(|_| topic.is_schedule).and_then(|level| self.delay(level));
        let offsets = if !sys_flag::enters_queue(flags) {
            0
        } else if flags & sys_flag::INNER_BATCH != 0 {
            inner.and_then(number).unwrap_or(1).max(1)
        } else {
            1
        };
        let tags = delay.map_or_else(|| Tags::Code(tags.map_or(0, record::tags_code)), Tags::Delay);
        Meaning { tags, offsets }
    }

    fn delay(&self, level: &[u8]) -> Option<i64> {
        let level: usize = number(level)?;
        let levels = &self.config.delay_levels_ms;
        levels.get(level.min(levels.len()).checked_sub(1)?).copied()
    }
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
