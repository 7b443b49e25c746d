//! Acknowledging many messages at once.

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Acknowledges messages of several deliveries (200151).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckMessageRequestBody {
    pub acks: Vec<BatchAckEntry>,
    pub broker_name: Option<String>,
}

/// Messages of one queue that came with one delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAckEntry {
    /// Bit `n` of byte `m` is the message at `start_offset + 8 m + n`.
    #[serde(rename = "b", alias = "bitSet", with = "bits")]
    pub bit_set: Vec<u8>,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: String,
    #[serde(rename = "it", alias = "invisibleTime")]
    pub invisible_time: i64,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_time: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    #[serde(rename = "rq", alias = "reviveQueueId")]
    pub revive_queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

/// Bytes as base64 text, which is how Java's JSON library writes them; numbers are read, too.
mod bits {
    use super::*;

    /// Bytes one entry may have: the messages of a queue that a group can hold.
    const BYTES_MAX: usize = 1 << 20;
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for group in bytes.chunks(3) {
            let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
            let word = byte(0) << 16 | byte(1) << 8 | byte(2);
            for place in 0..4 {
                let digit = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
                text.push(if place <= group.len() { char::from(digit) } else { '=' });
            }
        }
        out.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
        input.deserialize_any(Bits)
    }

    struct Bits;

    impl<'de> Visitor<'de> for Bits {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes as base64 or as numbers")
        }

        fn visit_unit<E: Error>(self) -> Result<Vec<u8>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
            let (mut word, mut held) = (0u32, 0);
            for digit in text.bytes().filter(|digit| *digit != b'=') {
                let value = ALPHABET.iter().position(|known| *known == digit);
                let value = value.ok_or_else(|| E::custom("this is no base64"))?;
                word = word << 6 | value as u32;
                held += 6;
                if held >= 8 {
                    held -= 8;
                    bytes.push((word >> held) as u8);
                }
            }
            Ok(bytes)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(number) = numbers.next_element::<i16>()? {
                if bytes.len() == BYTES_MAX {
                    return Err(A::Error::custom("more bytes than a group can hold messages"));
                }
                bytes.push(number as u8);
            }
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{self, Dialect};

    #[test]
    fn bits_travel_as_base64_or_as_numbers() {
        for (text, bytes) in [
            ("\"\"", vec![]),
            ("\"/w==\"", vec![255]),
            ("\"AQI=\"", vec![1, 2]),
            ("\"AQID\"", vec![1, 2, 3]),
            ("[1,-1]", vec![1, 255]),
            ("null", vec![]),
        ] {
            let body = format!("{{\"acks\":[{{\"b\":{text},\"c\":\"g\",\"so\":7}}]}}");
            let read: BatchAckMessageRequestBody = json::read(body.as_bytes()).unwrap();
            assert_eq!(read.acks[0].bit_set, bytes, "{text}");
            assert_eq!(read.acks[0].start_offset, 7);
            let again = json::write(&read, Dialect::Standard);
            assert_eq!(json::read::<BatchAckMessageRequestBody>(&again).unwrap(), read);
        }
        let bad = json::read::<BatchAckMessageRequestBody>(b"{\"acks\":[{\"b\":\"?\"}]}");
        assert!(bad.is_err());
    }
}
