//! Message properties: `name \x01 value \x02`, repeated; read in place, without building a map.

/// Between a name and its value.
pub const NAME_END: u8 = 1;
/// After a value; old writers leave the last one out.
pub const VALUE_END: u8 = 2;
/// Between the keys in the value of [`name::KEYS`].
pub const KEY_SEPARATOR: u8 = b' ';

/// The names the broker and the clients give a meaning to.
pub mod name {
    pub const DUP_INFO: &str = "DUP_INFO";
    pub const BORN_HOST: &str = "__BORNHOST";
    pub const BORN_TIMESTAMP: &str = "BORN_TIMESTAMP";
    pub const BUYER_ID: &str = "BUYER_ID";
    pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const CLUSTER: &str = "CLUSTER";
    pub const CONSUME_START_TIMESTAMP: &str = "CONSUME_START_TIME";
    pub const CORRECTION_FLAG: &str = "CORRECTION_FLAG";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const CRC32: &str = "__CRC32#";
    pub const DELAY_TIME_LEVEL: &str = "DELAY";
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const EXTEND_UNIQ_INFO: &str = "EXTEND_UNIQ_INFO";
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    pub const FORWARD_QUEUE_ID: &str = "PROPERTY_FORWARD_QUEUE_ID";
    pub const INNER_BASE: &str = "INNER_BASE";
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
    pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const INSTANCE_ID: &str = "INSTANCE_ID";
    pub const KEYS: &str = "KEYS";
    pub const LITE_TOPIC: &str = "__LITE_TOPIC";
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const MESSAGE_REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const MESSAGE_TTL: &str = "TTL";
    pub const MESSAGE_TYPE: &str = "MSG_TYPE";
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    pub const MQ2_FLAG: &str = "MQ2_FLAG";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const ORIGIN_GROUP: &str = "ORIGIN_GROUP";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const POP_CK: &str = "POP_CK";
    pub const POP_CK_OFFSET: &str = "POP_CK_OFFSET";
    pub const PRIORITY: &str = "_SYS_MSG_PRIORITY_";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const REDIRECT: &str = "REDIRECT";
    pub const REPLY_MESSAGE_ARRIVE_TIME: &str = "ARRIVE_TIME";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const TAGS: &str = "TAGS";
    pub const TIMER_DELAY_LEVEL: &str = "TIMER_DELAY_LEVEL";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    pub const TIMER_ROLL_LABEL: &str = "TIMER_ROLL_LABEL";
    pub const TIMER_ROLL_TIMES: &str = "TIMER_ROLL_TIMES";
    pub const TRACE_CONTEXT: &str = "TRACE_CONTEXT";
    pub const TRACE_SWITCH: &str = "TRACE_ON";
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub const TRANSACTION_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    pub const TRANSFER_FLAG: &str = "TRANSFER_FLAG";
    pub const TRANSIENT_GROUP_CONFIG: &str = "__RMQ.TRANSIENT.GROUP_SYS_FLAG";
    pub const TRANSIENT_PREFIX: &str = "__RMQ.TRANSIENT.";
    pub const TRANSIENT_TOPIC_CONFIG: &str = "__RMQ.TRANSIENT.TOPIC_SYS_FLAG";
    pub const TRANS_OFFSET: &str = "TRANS_OFFSET";
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    pub const WAIT_STORE_MSG_OK: &str = "WAIT";
    pub const TIMER_ENGINE_TYPE: &str = "E_T";
}

/// Names a user may not set on a message.
pub const RESERVED: &[&str] = &[
    name::TRACE_SWITCH,
    name::MSG_REGION,
    name::KEYS,
    name::TAGS,
    name::WAIT_STORE_MSG_OK,
    name::DELAY_TIME_LEVEL,
    name::RETRY_TOPIC,
    name::REAL_TOPIC,
    name::REAL_QUEUE_ID,
    name::TRANSACTION_PREPARED,
    name::PRODUCER_GROUP,
    name::MIN_OFFSET,
    name::MAX_OFFSET,
    name::BUYER_ID,
    name::ORIGIN_MESSAGE_ID,
    name::TRANSFER_FLAG,
    name::CORRECTION_FLAG,
    name::MQ2_FLAG,
    name::RECONSUME_TIME,
    name::UNIQ_KEY,
    name::MAX_RECONSUME_TIMES,
    name::CONSUME_START_TIMESTAMP,
    name::POP_CK,
    name::POP_CK_OFFSET,
    name::FIRST_POP_TIME,
    name::TRANSACTION_PREPARED_QUEUE_OFFSET,
    name::DUP_INFO,
    name::EXTEND_UNIQ_INFO,
    name::INSTANCE_ID,
    name::CORRELATION_ID,
    name::MESSAGE_REPLY_TO_CLIENT,
    name::MESSAGE_TTL,
    name::REPLY_MESSAGE_ARRIVE_TIME,
    name::PUSH_REPLY_TIME,
    name::CLUSTER,
    name::MESSAGE_TYPE,
    name::INNER_MULTI_QUEUE_OFFSET,
    name::TIMER_DELAY_MS,
    name::TIMER_DELAY_SEC,
    name::TIMER_DELIVER_MS,
    name::TIMER_ENQUEUE_MS,
    name::TIMER_DEQUEUE_MS,
    name::TIMER_ROLL_TIMES,
    name::TIMER_OUT_MS,
    name::TIMER_DEL_UNIQKEY,
    name::TIMER_DELAY_LEVEL,
    name::BORN_HOST,
    name::BORN_TIMESTAMP,
    name::DLQ_ORIGIN_TOPIC,
    name::DLQ_ORIGIN_MESSAGE_ID,
    name::CRC32,
];

pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// The pairs in the order they were written. Pairs without a name or a value are passed over, as stock does.
pub fn pairs(properties: &[u8]) -> Pairs<'_> {
    Pairs { rest: properties }
}

#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let end = position(self.rest, VALUE_END).unwrap_or(self.rest.len());
            let pair = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if let Some(middle) = position(pair, NAME_END)
                && middle > 0
                && middle + 1 < pair.len()
            {
                return Some((&pair[..middle], &pair[middle + 1..]));
            }
        }
        None
    }
}

/// The value of a name. Of several the last counts, so that what is appended overrides.
pub fn get<'a>(properties: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pairs(properties).filter(|(key, _)| *key == name.as_bytes()).last().map(|(_, value)| value)
}

/// As [`get`], for values that are to be text.
pub fn get_str<'a>(properties: &'a [u8], name: &str) -> Option<&'a str> {
    get(properties, name).and_then(|value| std::str::from_utf8(value).ok())
}

/// As [`get`], for values that are to be numbers.
pub fn get_number<N: std::str::FromStr>(properties: &[u8], name: &str) -> Option<N> {
    get_str(properties, name)?.parse().ok()
}

pub fn contains(properties: &[u8], name: &str) -> bool {
    pairs(properties).any(|(key, _)| key == name.as_bytes())
}

/// Adds a pair at the end, closing a last pair that was left open. Does not look for an older value.
pub fn append(properties: &mut Vec<u8>, name: &str, value: &[u8]) {
    if properties.last().is_some_and(|last| *last != VALUE_END) {
        properties.push(VALUE_END);
    }
    properties.extend_from_slice(name.as_bytes());
    properties.push(NAME_END);
    properties.extend_from_slice(value);
    properties.push(VALUE_END);
}

/// Sets a pair, in place of all older ones of this name.
pub fn set(properties: &mut Vec<u8>, name: &str, value: &[u8]) {
    remove(properties, name);
    append(properties, name, value);
}

/// Takes out every pair of this name and says whether there was one.
pub fn remove(properties: &mut Vec<u8>, name: &str) -> bool {
    if !contains(properties, name) {
        return false;
    }
    let mut kept = Vec::with_capacity(properties.len());
    for (key, value) in pairs(properties).filter(|(key, _)| *key != name.as_bytes()) {
        kept.extend_from_slice(key);
        kept.push(NAME_END);
        kept.extend_from_slice(value);
        kept.push(VALUE_END);
    }
    *properties = kept;
    true
}

/// Builds the stored form of some pairs.
pub fn encode<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut properties = Vec::new();
    for (name, value) in pairs {
        append(&mut properties, name, value.as_bytes());
    }
    properties
}

fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_stock_reads_them() {
        for (bytes, expected) in [
            (&b""[..], vec![]),
            (b"a\x01b\x02", vec![("a", "b")]),
            (b"a\x01b", vec![("a", "b")]),
            (b"a\x01b\x02c\x01d", vec![("a", "b"), ("c", "d")]),
            (b"\x01b\x02c\x01d\x02", vec![("c", "d")]),
            (b"a\x01\x02c\x01d\x02", vec![("c", "d")]),
            (b"a\x02\x02c\x01d\x01e\x02", vec![("c", "d\x01e")]),
        ] {
            let read: Vec<_> = pairs(bytes)
                .map(|(n, v)| (std::str::from_utf8(n).unwrap(), std::str::from_utf8(v).unwrap()))
                .collect();
            assert_eq!(read, expected, "{bytes:?}");
        }
    }

    #[test]
    fn the_last_value_of_a_name_counts() {
        let mut properties = b"TAGS\x01a\x02KEYS\x01k1 k2\x02TAGS\x01b".to_vec();
        assert_eq!(get(&properties, name::TAGS), Some(&b"b"[..]));
        append(&mut properties, name::TAGS, b"c");
        assert_eq!(get_str(&properties, name::TAGS), Some("c"));
        set(&mut properties, name::TAGS, b"d");
        assert_eq!(properties, b"KEYS\x01k1 k2\x02TAGS\x01d\x02");
        assert!(remove(&mut properties, name::TAGS));
        assert!(!remove(&mut properties, name::TAGS));
        assert_eq!(properties, b"KEYS\x01k1 k2\x02");
    }

    #[test]
    fn numbers_are_read_or_absent() {
        let properties = encode([(name::DELAY_TIME_LEVEL, "3"), (name::RECONSUME_TIME, "x")]);
        assert_eq!(get_number::<i32>(&properties, name::DELAY_TIME_LEVEL), Some(3));
        assert_eq!(get_number::<i32>(&properties, name::RECONSUME_TIME), None);
    }

    #[test]
    fn users_may_not_set_what_the_broker_sets() {
        assert!(is_reserved("UNIQ_KEY") && is_reserved("__CRC32#"));
        assert!(!is_reserved("colour") && !is_reserved("__SHARDINGKEY"));
    }
}
