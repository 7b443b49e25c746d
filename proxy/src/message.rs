//! A message as clients of the gRPC protocol see it, and as it is stored.

use bytes::Bytes;
use md5::{Digest as _, Md5};
use protocol::grpc::{
    DeadLetterQueue, Digest, DigestType, Encoding, Message, MessageType, Resource, SystemProperties,
};
use protocol::properties::{self, name};
use protocol::record::{Record, sys_flag};

use crate::backend::Entry;
use crate::grpc::{check, time};

/// Names that mean something to servers only and are not shown among a message's own properties.
const INTERNAL: [&str; 8] = [
    name::SHARDING_KEY,
    name::TRACE_CONTEXT,
    name::TRANSACTION_ID,
    name::TRANSACTION_CHECK_TIMES,
    name::CHECK_IMMUNITY_TIME_IN_SECONDS,
    name::PRIORITY,
    name::LITE_TOPIC,
    name::REDIRECT,
];

/// The bits a message is stored with.
pub fn sys_flags(message: &Message) -> i32 {
    let Some(system) = &message.system_properties else { return 0 };
    let mut flags = 0;
    if system.body_encoding() == Encoding::Gzip {
        flags |= sys_flag::COMPRESSED;
    }
    if check::kind(message) == MessageType::Transaction {
        flags |= sys_flag::TRANSACTION_PREPARED;
    }
    flags
}

/// The delay levels that delays are rounded up to, if they are.
#[derive(Debug, Clone, Copy)]
pub struct Delays<'a> {
    pub levels_ms: Option<&'a [i64]>,
    pub now_ms: i64,
}

impl Delays<'_> {
    /// The level, from 1, that waits at least until `at_ms`; the longest when none does.
    fn level(&self, at_ms: i64) -> Option<usize> {
        let (levels, delay_ms) = (self.levels_ms?, at_ms - self.now_ms);
        if delay_ms <= 0 {
            return None;
        }
        Some(levels.iter().position(|level| *level >= delay_ms).map_or(levels.len(), |at| at + 1))
    }
}

/// The stored form of a message that passed every check.
pub fn to_entry(message: Message, topic: &str, remote: &str, delays: &Delays<'_>) -> Entry {
    let kind = check::kind(&message);
    let system = message.system_properties.unwrap_or_default();
    let mut stored = Vec::with_capacity(256);
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            properties::append(&mut stored, name, value.as_bytes());
        }
    };
    for (key, value) in &message.user_properties {
        put(key, value);
    }
    put(name::TAGS, system.tag.as_deref().unwrap_or_default());
    if !system.keys.is_empty() {
        put(name::KEYS, system.keys.join(" ").trim());
    }
    put(name::UNIQ_KEY, &system.message_id);
    if kind == MessageType::Transaction {
        put(name::TRANSACTION_PREPARED, "true");
        if let Some(duration) = &system.orphaned_transaction_recovery_duration {
            let seconds = duration.seconds.to_string();
            put(name::CHECK_IMMUNITY_TIME_IN_SECONDS, &seconds);
        }
    }
    if let Some(at) = &system.delivery_timestamp {
        if let Some(level) = delays.level(time::timestamp_ms(at)) {
            put(name::DELAY_TIME_LEVEL, itoa::Buffer::new().format(level));
        }
        put(name::TIMER_DELIVER_MS, itoa::Buffer::new().format(time::timestamp_ms(at)));
    }
    let attempt = system.delivery_attempt.unwrap_or_default();
    put(name::PRODUCER_GROUP, topic);
    put(name::SHARDING_KEY, system.message_group.as_deref().unwrap_or_default());
    put(name::TRACE_CONTEXT, system.trace_context.as_deref().unwrap_or_default());
    put(name::LITE_TOPIC, system.lite_topic.as_deref().unwrap_or_default());
    if let Some(priority) = system.priority {
        put(name::PRIORITY, itoa::Buffer::new().format(priority));
    }
    let born_host = system.born_host.trim();
    put(name::BORN_HOST, if born_host.is_empty() { remote } else { born_host });
    if let Some(born) = &system.born_timestamp {
        put(name::BORN_TIMESTAMP, itoa::Buffer::new().format(time::timestamp_ms(born)));
    }
    Entry { body: message.body, properties: stored, reconsume_times: attempt }
}

/// How a message came to its consumer.
#[derive(Debug, Clone, Default)]
pub struct Delivery {
    /// The topic that was asked for; a retried record may bear another.
    pub topic: Resource,
    pub handle: Option<String>,
    pub attempt: i32,
    pub invisible_ms: Option<i64>,
}

/// The message a consumer gets for a record of `records`.
pub fn from_record(record: &Record<'_>, records: &Bytes, delivery: Delivery) -> Message {
    let mut system = SystemProperties {
        body_digest: Some(Digest { r#type: DigestType::Md5.into(), checksum: md5(record.body) }),
        body_encoding: encoding(record.sys_flag).into(),
        born_timestamp: Some(time::timestamp(record.born_timestamp)),
        store_timestamp: Some(time::timestamp(record.store_timestamp)),
        store_host: record.store_host.to_string(),
        receipt_handle: delivery.handle,
        queue_id: record.queue_id,
        queue_offset: Some(record.queue_offset),
        invisible_duration: delivery.invisible_ms.map(time::duration),
        delivery_attempt: Some(delivery.attempt),
        ..SystemProperties::default()
    };
    let mut message = Message {
        topic: Some(delivery.topic),
        body: records.slice_ref(record.body),
        ..Message::default()
    };
    let mut seen = Seen::default();
    for (name, value) in properties::pairs(record.properties) {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        seen.property(&name, &value, &mut system);
        if !properties::is_reserved(&name) && !INTERNAL.contains(&name.as_ref()) {
            message.user_properties.insert(name.into_owned(), value.into_owned());
        }
    }
    if system.message_id.is_empty() {
        system.message_id =
            protocol::id::encode_offset_id(record.store_host, record.physical_offset);
    }
    if system.born_host.is_empty() {
        system.born_host = record.born_host.ip().to_string();
    }
    system.message_type = seen.kind(&system).into();
    system.dead_letter_queue = match (seen.dead_topic, seen.dead_id) {
        (Some(topic), Some(message_id)) => Some(DeadLetterQueue { topic, message_id }),
        _ => None,
    };
    message.system_properties = Some(system);
    message
}

/// What the properties tell that is not a field by itself.
#[derive(Default)]
struct Seen {
    transaction: bool,
    delayed: bool,
    dead_topic: Option<String>,
    dead_id: Option<String>,
}

impl Seen {
    fn property(&mut self, name: &str, value: &str, system: &mut SystemProperties) {
        match name {
            name::TAGS => system.tag = Some(value.to_owned()),
            name::KEYS => system.keys = value.split(' ').map(str::to_owned).collect(),
            name::UNIQ_KEY => value.clone_into(&mut system.message_id),
            name::TRANSACTION_PREPARED => self.transaction = value == "true",
            name::DELAY_TIME_LEVEL | name::TIMER_DELAY_SEC => self.delayed = true,
            name::TIMER_DELIVER_MS => {
                self.delayed = true;
                system.delivery_timestamp = value.parse().ok().map(time::timestamp);
            }
            name::SHARDING_KEY => system.message_group = Some(value.to_owned()),
            name::TRACE_CONTEXT => system.trace_context = Some(value.to_owned()),
            name::BORN_HOST => value.clone_into(&mut system.born_host),
            name::DLQ_ORIGIN_TOPIC => self.dead_topic = Some(value.to_owned()),
            name::DLQ_ORIGIN_MESSAGE_ID => self.dead_id = Some(value.to_owned()),
            name::LITE_TOPIC => system.lite_topic = Some(value.to_owned()),
            name::PRIORITY => system.priority = value.parse().ok(),
            _ => {}
        }
    }

    fn kind(&self, system: &SystemProperties) -> MessageType {
        if self.transaction {
            MessageType::Transaction
        } else if self.delayed {
            MessageType::Delay
        } else if system.message_group.is_some() {
            MessageType::Fifo
        } else {
            MessageType::Normal
        }
    }
}

/// What consumers decompress: anything compressed is named gzip, as the stock proxy does.
fn encoding(flags: i32) -> Encoding {
    if flags & sys_flag::COMPRESSED == 0 { Encoding::Identity } else { Encoding::Gzip }
}

/// The checksum every client agrees on: MD5 in upper-case hex digits.
fn md5(body: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(32);
    for byte in Md5::digest(body) {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {

    use super::*;

    const NONE: Delays<'_> = Delays { levels_ms: None, now_ms: 0 };

    #[test]
    fn a_delay_is_rounded_up_to_a_level_where_that_is_wanted() {
        let delays = Delays { levels_ms: Some(&[1_000, 5_000]), now_ms: 10_000 };
        for (at_ms, level) in [
            (9_000, None),
            (10_000, None),
            (10_001, Some(1)),
            (11_000, Some(1)),
            (11_001, Some(2)),
            (99_000, Some(2)),
        ] {
            assert_eq!(delays.level(at_ms), level, "{at_ms}");
        }
        assert_eq!(NONE.level(5), None);
    }

    fn sent() -> Message {
        Message {
            topic: Some(Resource { resource_namespace: String::new(), name: "t".to_owned() }),
            user_properties: [("colour".to_owned(), "red".to_owned())].into(),
            system_properties: Some(SystemProperties {
                tag: Some("a".to_owned()),
                keys: vec!["k1".to_owned(), "k2".to_owned()],
                message_id: "01abCD".to_owned(),
                message_group: Some("g".to_owned()),
                trace_context: Some("trace".to_owned()),
                born_timestamp: Some(time::timestamp(1_700_000_000_123)),
                ..SystemProperties::default()
            }),
            body: Bytes::from_static(b"hello"),
        }
    }

    fn stored(entry: &Entry) -> Bytes {
        let host = "127.0.0.1:10911".parse().unwrap();
        let record = Record {
            body_crc: 0,
            queue_id: 3,
            flag: 0,
            queue_offset: 7,
            physical_offset: 99,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_123,
            born_host: host,
            store_timestamp: 5,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &entry.body,
            topic: "t",
            properties: &entry.properties,
        };
        let mut bytes = Vec::new();
        record.encode_into(&mut bytes).unwrap();
        bytes.into()
    }

    #[test]
    fn what_a_producer_says_reaches_the_consumer() {
        let records = stored(&to_entry(sent(), "t", "10.0.0.1:5", &NONE));
        let record = Record::decode(&records).unwrap().0;
        let got = from_record(&record, &records, Delivery { attempt: 1, ..Delivery::default() });
        assert_eq!(got.user_properties, sent().user_properties);
        let (got, sent) = (got.system_properties.unwrap(), sent().system_properties.unwrap());
        assert_eq!((got.tag, got.keys, got.message_id), (sent.tag, sent.keys, sent.message_id));
        assert_eq!(
            (got.message_group, got.trace_context),
            (sent.message_group, sent.trace_context)
        );
        assert_eq!(
            (got.born_timestamp, got.born_host),
            (sent.born_timestamp, "10.0.0.1:5".to_owned())
        );
        assert_eq!((got.message_type, got.queue_id), (MessageType::Fifo.into(), 3));
        assert_eq!((got.queue_offset, got.delivery_attempt), (Some(7), Some(1)));
        let digest = got.body_digest.unwrap();
        assert_eq!(digest.checksum, "5D41402ABC4B2A76B9719D911017C592");
    }

    #[test]
    fn a_body_is_not_copied_on_its_way_out() {
        let records = stored(&to_entry(sent(), "t", "", &NONE));
        let record = Record::decode(&records).unwrap().0;
        let got = from_record(&record, &records, Delivery::default());
        assert_eq!(got.body.as_ptr(), record.body.as_ptr());
    }
}
