//! A message to send, checked when it is built.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use protocol::grpc::{self, Encoding, MessageType};
use protocol::properties::is_reserved;

use crate::body;
use crate::error::Error;
use crate::name::Topic;
use crate::retry;

const PROPERTIES_MAX: usize = 128;
const PROPERTIES_BYTES_MAX: usize = 16 * 1024;
const MESSAGE_GROUP_BYTES_MAX: usize = 63;
const RECOVERY_MAX: Duration = Duration::from_secs(3600);

/// A message to send. Made by [`Message::builder`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Message {
    pub topic: Topic,
    pub body: Bytes,
    pub tag: Option<String>,
    pub keys: Vec<String>,
    pub properties: BTreeMap<String, String>,
    /// Messages of one group are consumed in the order in which they were sent.
    pub message_group: Option<String>,
    /// Delivered no earlier.
    pub delivery_time: Option<SystemTime>,
    pub priority: Option<i32>,
    pub trace_context: Option<String>,
    /// How long the server waits before it asks what became of a transaction.
    pub transaction_recovery: Option<Duration>,
}

/// Builds a [`Message`].
#[derive(Debug)]
pub struct Builder {
    message: Result<Message, Error>,
}

impl Message {
    /// A message to this topic; [`Builder::build`] tells what is wrong with it.
    pub fn builder(topic: &str, body: impl Into<Bytes>) -> Builder {
        let message = Topic::new(topic).map(|topic| Self {
            topic,
            body: body.into(),
            tag: None,
            keys: Vec::new(),
            properties: BTreeMap::new(),
            message_group: None,
            delivery_time: None,
            priority: None,
            trace_context: None,
            transaction_recovery: None,
        });
        Builder { message }
    }

    /// The type the topic must be made for.
    pub(crate) fn kind(&self) -> MessageType {
        match self {
            Self { message_group: Some(_), .. } => MessageType::Fifo,
            Self { delivery_time: Some(_), .. } => MessageType::Delay,
            Self { priority: Some(_), .. } => MessageType::Priority,
            _ => MessageType::Normal,
        }
    }
}

impl Builder {
    fn with(mut self, set: impl FnOnce(&mut Message) -> Result<(), Error>) -> Self {
        self.message = self.message.and_then(|mut message| set(&mut message).map(|()| message));
        self
    }

    /// What consumers can filter by.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.with(|message| {
            let tag = tag.into();
            check_text("the tag", &tag)?;
            if tag.contains('|') {
                return Err(Error::invalid("the tag", "it has a `|`"));
            }
            message.tag = Some(tag);
            Ok(())
        })
    }

    /// A word to find the message by; there may be several.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.with(|message| {
            let key = key.into();
            check_text("the key", &key)?;
            message.keys.push(key);
            Ok(())
        })
    }

    /// A property of the user's own.
    pub fn property(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|message| {
            let (key, value) = (key.into(), value.into());
            check_text("the property", &key)?;
            if value.chars().any(char::is_control) {
                let why = format!("the value of `{key}` has control characters");
                return Err(Error::invalid("the property", why));
            }
            if is_reserved(&key) {
                return Err(Error::invalid("the property", format!("`{key}` is the system's")));
            }
            message.properties.insert(key, value);
            Ok(())
        })
    }

    /// Messages of one group are consumed in the order in which they were sent.
    pub fn message_group(self, group: impl Into<String>) -> Self {
        self.with(|message| {
            let group = group.into();
            check_text("the message group", &group)?;
            if group.len() > MESSAGE_GROUP_BYTES_MAX {
                let why = format!("it is longer than {MESSAGE_GROUP_BYTES_MAX} bytes");
                return Err(Error::invalid("the message group", why));
            }
            message.message_group = Some(group);
            Ok(())
        })
    }

    /// Deliver no earlier than this.
    pub fn deliver_at(self, time: SystemTime) -> Self {
        self.with(|message| {
            message.delivery_time = Some(time);
            Ok(())
        })
    }

    /// Deliver after this time from now.
    pub fn deliver_after(self, delay: Duration) -> Self {
        let now = u64::try_from(remoting::clock::now_ms()).unwrap_or_default();
        self.deliver_at(SystemTime::UNIX_EPOCH + Duration::from_millis(now) + delay)
    }

    /// Higher ones first, on topics made for it.
    pub fn priority(self, priority: i32) -> Self {
        self.with(|message| {
            if priority < 0 {
                return Err(Error::invalid("the priority", "it is negative"));
            }
            message.priority = Some(priority);
            Ok(())
        })
    }

    /// What a tracer wants to travel along.
    pub fn trace_context(self, context: impl Into<String>) -> Self {
        self.with(|message| {
            message.trace_context = Some(context.into());
            Ok(())
        })
    }

    /// How long the server waits before it asks what became of the transaction.
    pub fn transaction_recovery(self, after: Duration) -> Self {
        self.with(|message| {
            if after > RECOVERY_MAX {
                return Err(Error::invalid("the transaction recovery", "it is over an hour"));
            }
            message.transaction_recovery = Some(after);
            Ok(())
        })
    }

    pub fn build(self) -> Result<Message, Error> {
        let message = self.message?;
        let kinds = [
            message.message_group.is_some(),
            message.delivery_time.is_some(),
            message.priority.is_some(),
        ];
        if kinds.into_iter().filter(|given| *given).count() > 1 {
            let why = "only one of message group, delivery time and priority can be given";
            return Err(Error::invalid("the message", why));
        }
        let bytes = message.properties.iter().map(|(key, value)| key.len() + value.len());
        let keys = message.keys.iter().map(String::len);
        let tag = message.tag.iter().map(String::len);
        if message.properties.len() > PROPERTIES_MAX
            || bytes.chain(keys).chain(tag).sum::<usize>() > PROPERTIES_BYTES_MAX
        {
            let why = format!(
                "there are more than {PROPERTIES_MAX}, or more than {PROPERTIES_BYTES_MAX} bytes of them"
            );
            return Err(Error::invalid("the properties", why));
        }
        Ok(message)
    }
}

fn check_text(what: &'static str, text: &str) -> Result<(), Error> {
    if text.trim().is_empty() {
        return Err(Error::invalid(what, "it is blank"));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::invalid(what, "it has control characters"));
    }
    Ok(())
}

/// What sending adds to a message.
#[derive(Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) hostname: &'a str,
    pub(crate) id: String,
    pub(crate) kind: MessageType,
    pub(crate) now_ms: i64,
    /// Bodies of at least so many bytes are compressed.
    pub(crate) compress_from: Option<usize>,
}

impl Envelope<'_> {
    /// The message as it is sent; its queue is set for each attempt.
    pub(crate) fn seal(self, message: &Message) -> grpc::Message {
        let wanted = self.compress_from.is_some_and(|from| message.body.len() >= from);
        let packed = if wanted { body::pack(&message.body) } else { None };
        let encoding = if packed.is_some() { Encoding::Gzip } else { Encoding::Identity };
        let now = Duration::from_millis(u64::try_from(self.now_ms).unwrap_or_default());
        grpc::Message {
            topic: Some(grpc::Resource {
                resource_namespace: self.namespace.to_owned(),
                name: message.topic.as_str().to_owned(),
            }),
            user_properties: message
                .properties
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            system_properties: Some(grpc::SystemProperties {
                tag: message.tag.clone(),
                keys: message.keys.clone(),
                message_id: self.id,
                body_encoding: encoding.into(),
                message_type: self.kind.into(),
                born_timestamp: Some((SystemTime::UNIX_EPOCH + now).into()),
                born_host: self.hostname.to_owned(),
                delivery_timestamp: message.delivery_time.map(prost_types::Timestamp::from),
                message_group: message.message_group.clone(),
                trace_context: message.trace_context.clone(),
                orphaned_transaction_recovery_duration: message
                    .transaction_recovery
                    .map(retry::to_wire),
                priority: message.priority,
                ..Default::default()
            }),
            body: packed.unwrap_or_else(|| message.body.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> Builder {
        Message::builder("orders", "body")
    }

    #[test]
    fn what_the_server_would_refuse_is_refused_when_built() {
        let long = "x".repeat(64);
        for (what, builder) in [
            ("topic", Message::builder("no such/topic", "body")),
            ("blank tag", builder().tag(" ")),
            ("bar in tag", builder().tag("a|b")),
            ("blank key", builder().key("")),
            ("control character", builder().key("a\u{1}")),
            ("reserved property", builder().property("UNIQ_KEY", "x")),
            ("blank property", builder().property("", "x")),
            ("control value", builder().property("a", "\u{2}")),
            ("long group", builder().message_group(long)),
            ("priority", builder().priority(-1)),
            ("recovery", builder().transaction_recovery(Duration::from_secs(3601))),
            ("large", builder().property("a", "x".repeat(17_000))),
            ("two kinds", builder().message_group("g").deliver_after(Duration::from_secs(1))),
            ("many", (0..129).fold(builder(), |b, n| b.property(format!("p{n}"), "x"))),
        ] {
            assert!(matches!(builder.build(), Err(Error::Invalid { .. })), "{what}");
        }
    }

    #[test]
    fn a_message_is_sealed_as_it_was_built() {
        let message = builder().tag("a").key("k").property("p", "v").message_group("g").build();
        let message = message.unwrap();
        let envelope = |compress_from| Envelope {
            namespace: "",
            hostname: "here",
            id: "01".to_owned(),
            kind: message.kind(),
            now_ms: 1500,
            compress_from,
        };
        let sealed = envelope(None).seal(&message);
        let system = sealed.system_properties.clone().unwrap();
        assert_eq!(system.message_type(), MessageType::Fifo);
        assert_eq!(system.born_timestamp.unwrap().nanos, 500_000_000);
        assert_eq!((system.tag.as_deref(), system.keys), (Some("a"), vec!["k".to_owned()]));
        assert_eq!(sealed.user_properties["p"], "v");
        assert_eq!(sealed.body, "body");
        // A body that does not get shorter goes as it is.
        assert_eq!(envelope(Some(1)).seal(&message), sealed);
    }

    #[test]
    fn a_long_body_is_packed_if_wanted() {
        let message = Message::builder("orders", vec![0; 8192]).build().unwrap();
        let (namespace, hostname, id) = ("", "", String::new());
        let (kind, now_ms, compress_from) = (message.kind(), 0, Some(4096));
        let sealed =
            Envelope { namespace, hostname, id, kind, now_ms, compress_from }.seal(&message);
        let encoding = sealed.system_properties.unwrap().body_encoding;
        assert_eq!(encoding, Encoding::Gzip as i32);
        assert_eq!(body::unpack(sealed.body, encoding).unwrap(), message.body);
    }
}
