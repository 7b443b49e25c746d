//! A message that was received, with what is needed to settle it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use protocol::grpc;

use crate::body;
use crate::endpoints::Address;
use crate::name::Topic;

/// A received message. It comes again unless it is acknowledged before its invisible time ends.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    pub topic: Topic,
    pub message_id: String,
    pub body: Bytes,
    pub tag: Option<String>,
    pub keys: Vec<String>,
    pub properties: BTreeMap<String, String>,
    pub message_group: Option<String>,
    /// When it was to be delivered at the earliest, if it was delayed.
    pub delivery_time: Option<SystemTime>,
    pub trace_context: Option<String>,
    pub born_host: String,
    pub born_time: Option<SystemTime>,
    pub store_time: Option<SystemTime>,
    /// 1 for the first.
    pub attempt: u32,
    pub queue_id: i32,
    pub queue_offset: i64,
    /// What settles it.
    pub receipt_handle: String,
    /// Where it came from; receipts are renewed there.
    pub(crate) proxy: Address,
}

impl Delivery {
    /// The message as it came; if its body is damaged, also why.
    pub(crate) fn open(message: grpc::Message, proxy: &Address) -> (Self, Option<body::BodyError>) {
        let system = message.system_properties.unwrap_or_default();
        let digest = body::verify(&message.body, system.body_digest.as_ref());
        let unpacked =
            digest.and_then(|()| body::unpack(message.body.clone(), system.body_encoding));
        let (body, damage) = match unpacked {
            Ok(body) => (body, None),
            Err(error) => (message.body, Some(error)),
        };
        let topic = message.topic.unwrap_or_default();
        let time =
            |time: Option<prost_types::Timestamp>| time.and_then(|time| time.try_into().ok());
        let delivery = Self {
            topic: Topic::received(&topic.name),
            message_id: system.message_id,
            body,
            tag: system.tag,
            keys: system.keys,
            properties: message.user_properties.into_iter().collect(),
            message_group: system.message_group,
            delivery_time: time(system.delivery_timestamp),
            trace_context: system.trace_context,
            born_host: system.born_host,
            born_time: time(system.born_timestamp),
            store_time: time(system.store_timestamp),
            attempt: system.delivery_attempt.unwrap_or_default().try_into().unwrap_or(1).max(1),
            queue_id: system.queue_id,
            queue_offset: system.queue_offset.unwrap_or_default(),
            receipt_handle: system.receipt_handle.unwrap_or_default(),
            proxy: proxy.clone(),
        };
        (delivery, damage)
    }
}

#[cfg(test)]
mod tests {
    use protocol::grpc::{Digest, DigestType, SystemProperties};

    use super::*;

    fn message(body: &'static [u8], checksum: &str) -> grpc::Message {
        grpc::Message {
            topic: Some(grpc::Resource { name: "orders".to_owned(), ..Default::default() }),
            system_properties: Some(SystemProperties {
                body_digest: Some(Digest {
                    r#type: DigestType::Md5.into(),
                    checksum: checksum.to_owned(),
                }),
                ..Default::default()
            }),
            body: Bytes::from_static(body),
            ..Default::default()
        }
    }

    #[test]
    fn a_damaged_body_is_told_from_a_whole_one() {
        let proxy: Address = "a:1".parse().unwrap();
        let (delivery, damage) =
            Delivery::open(message(b"123456789", "25F9E794323B453885F5181F1B624D0B"), &proxy);
        assert_eq!((delivery.body.as_ref(), damage), (&b"123456789"[..], None));
        assert_eq!((delivery.attempt, delivery.topic.as_str()), (1, "orders"));
        let (delivery, damage) = Delivery::open(message(b"12345678", "25"), &proxy);
        assert_eq!(delivery.body, "12345678");
        assert!(damage.is_some());
        Delivery::open(grpc::Message::default(), &proxy);
    }
}
