//! One message to store, to give back, to answer or to recall.

use crate::fields::{FieldError, Fields, Header, Sink, Value};
use crate::header;

/// One message (or batch) to store. Codes 10 and 324 send these fields under their long names, 310,
/// 320 and 325 under one letter each. Read by hand and borrowed, because every message passes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send<'f> {
    pub producer_group: &'f str,
    pub topic: &'f str,
    pub default_topic: &'f str,
    pub default_topic_queue_nums: i32,
    pub queue_id: i32,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub flag: i32,
    pub properties: Option<&'f str>,
    pub reconsume_times: Option<i32>,
    pub unit_mode: bool,
    pub max_reconsume_times: Option<i32>,
    pub batch: bool,
    pub broker_name: Option<&'f str>,
}

/// Letter, long name; the order is that of [`Send`]'s fields.
const NAMES: [(&str, &str); 14] = [
    ("a", "producerGroup"),
    ("b", "topic"),
    ("c", "defaultTopic"),
    ("d", "defaultTopicQueueNums"),
    ("e", "queueId"),
    ("f", "sysFlag"),
    ("g", "bornTimestamp"),
    ("h", "flag"),
    ("i", "properties"),
    ("j", "reconsumeTimes"),
    ("k", "unitMode"),
    ("l", "maxReconsumeTimes"),
    ("m", "batch"),
    ("n", "bname"),
];

impl<'f> Header<'f> for Send<'f> {
    fn read(fields: &'f Fields<'_>) -> Result<Self, FieldError> {
        let mut values: [Option<&'f [u8]>; NAMES.len()] = [None; NAMES.len()];
        for (key, value) in fields.iter() {
            let at = match key {
                [letter @ b'a'..=b'n'] => usize::from(letter - b'a'),
                [_] => continue,
                name => match NAMES.iter().position(|(_, long)| long.as_bytes() == name) {
                    Some(at) => at,
                    None => continue,
                },
            };
            values[at] = Some(value);
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = values;
        Ok(Self {
            producer_group: Value::read("producerGroup", a)?,
            topic: Value::read("topic", b)?,
            default_topic: Value::read("defaultTopic", c)?,
            default_topic_queue_nums: Value::read("defaultTopicQueueNums", d)?,
            queue_id: Value::read("queueId", e)?,
            sys_flag: Value::read("sysFlag", f)?,
            born_timestamp: Value::read("bornTimestamp", g)?,
            flag: Value::read("flag", h)?,
            properties: Value::read("properties", i)?,
            reconsume_times: Value::read("reconsumeTimes", j)?,
            unit_mode: Option::read("unitMode", k)?.unwrap_or(false),
            max_reconsume_times: Value::read("maxReconsumeTimes", l)?,
            batch: Option::read("batch", m)?.unwrap_or(false),
            broker_name: Value::read("bname", n)?,
        })
    }

    fn write(&self, sink: &mut impl Sink) {
        self.put(sink, |(_, long)| long);
    }
}

impl Send<'_> {
    /// Writes the one-letter names of codes 310, 320 and 325.
    pub fn write_letters(&self, sink: &mut impl Sink) {
        self.put(sink, |(letter, _)| letter);
    }

    fn put(
        &self,
        sink: &mut impl Sink,
        name: impl Fn((&'static str, &'static str)) -> &'static str,
    ) {
        let name = |at: usize| name(NAMES[at]);
        self.producer_group.write(name(0), sink);
        self.topic.write(name(1), sink);
        self.default_topic.write(name(2), sink);
        self.default_topic_queue_nums.write(name(3), sink);
        self.queue_id.write(name(4), sink);
        self.sys_flag.write(name(5), sink);
        self.born_timestamp.write(name(6), sink);
        self.flag.write(name(7), sink);
        self.properties.write(name(8), sink);
        self.reconsume_times.write(name(9), sink);
        self.unit_mode.write(name(10), sink);
        self.max_reconsume_times.write(name(11), sink);
        self.batch.write(name(12), sink);
        self.broker_name.write(name(13), sink);
    }
}

header! {
    pub struct ConsumerSendMsgBack {
        pub offset: i64,
        pub group: String,
        pub delay_level: i32,
        pub origin_msg_id: Option<String>,
        pub origin_topic: Option<String>,
        pub unit_mode: bool = false,
        pub max_reconsume_times: Option<i32>,
    }
}

header! {
    pub struct RecallMessage {
        pub producer_group: Option<String>,
        pub topic: String,
        pub recall_handle: String,
    }
}

header! {
    pub struct RecallMessageReply {
        pub msg_id: String,
    }
}

header! {
    pub struct ReplyMessage {
        pub producer_group: String,
        pub topic: String,
        pub default_topic: String,
        pub default_topic_queue_nums: i32,
        pub queue_id: i32,
        pub sys_flag: i32,
        pub born_timestamp: i64,
        pub flag: i32,
        pub properties: Option<String>,
        pub reconsume_times: Option<i32>,
        pub unit_mode: bool = false,
        pub born_host: String,
        pub store_host: String,
        pub store_timestamp: i64,
    }
}

header! {
    pub struct SendMessageReply {
        pub msg_id: String,
        pub queue_id: i32,
        pub queue_offset: i64,
        pub transaction_id: Option<String>,
        pub batch_uniq_id: Option<String>,
        pub recall_handle: Option<String>,
    }
}
