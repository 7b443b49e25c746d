//! What a broker tells the nameserver about its topics (103), plain or compressed.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use super::{TopicConfig, TopicConfigAndMappingSerializeWrapper, TopicQueueMappingInfo};
use crate::json::{self, Dialect, JsonError};

/// How many bytes a compressed body may unfold to: room for half a million topics.
pub const INFLATED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// All topics of a broker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// Addresses of filter servers; they no longer exist.
    pub filter_server_list: Vec<String>,
    pub topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RegisterBrokerError {
    #[error("the body of the registration is unreadable: {0}")]
    Json(#[from] JsonError),
    #[error("the compressed body of the registration is damaged: {0}")]
    Zlib(#[from] io::Error),
    #[error(
        "the compressed body of the registration unfolds to more than {INFLATED_BYTES_MAX} bytes"
    )]
    TooLarge,
    #[error("the body of the registration holds a topic that is none: {0:?}")]
    Topic(String),
}

/// The header's `bodyCrc32` for a body as it is sent.
pub fn body_crc32(body: &[u8]) -> i32 {
    i32::try_from(crc32fast::hash(body) & 0x7fff_ffff).expect("the sign bit was cleared")
}

impl RegisterBrokerBody {
    /// Reads a body in the form that the header names.
    pub fn decode(body: &[u8], compressed: bool) -> Result<Self, RegisterBrokerError> {
        if !compressed {
            return Ok(json::read(body)?);
        }
        let mut input = Inflated { zlib: ZlibDecoder::new(body).take(INFLATED_BYTES_MAX) };
        let mut result = Self::default();
        let wrapper = &mut result.topic_config_serialize_wrapper;
        wrapper.data_version = json::read(&input.block()?)?;
        for _ in 0..input.count()? {
            let topic = topic_from_line(&input.block()?)?;
            wrapper.topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        // Stock goes on without them when they are unreadable.
        result.filter_server_list = json::read(&input.block()?).unwrap_or_default();
        // A 4.x broker knows no static topics and ends here.
        for _ in 0..input.count_if_any()?.unwrap_or(0) {
            let mapping: TopicQueueMappingInfo = json::read(&input.block()?)?;
            wrapper.topic_queue_mapping_info_map.insert(mapping.topic.clone(), mapping);
        }
        Ok(result)
    }

    /// Writes a body. The compressed form has no room for a topic's `order` and `topic_sys_flag`,
    /// nor for the details and the version of the mappings.
    pub fn encode(&self, compressed: bool) -> Vec<u8> {
        if !compressed {
            return json::write(self, Dialect::Fastjson);
        }
        let wrapper = &self.topic_config_serialize_wrapper;
        let mut plain = Vec::new();
        put_block(&mut plain, &json::write(&wrapper.data_version, Dialect::Fastjson));
        put_length(&mut plain, wrapper.topic_config_table.len());
        for topic in wrapper.topic_config_table.values() {
            put_block(&mut plain, &topic_to_line(topic));
        }
        put_block(&mut plain, &json::write(&self.filter_server_list, Dialect::Fastjson));
        put_length(&mut plain, wrapper.topic_queue_mapping_info_map.len());
        for mapping in wrapper.topic_queue_mapping_info_map.values() {
            put_block(&mut plain, &json::write(mapping, Dialect::Fastjson));
        }
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&plain)
            .and_then(|()| zlib.finish())
            .expect("writing to memory does not fail")
    }
}

struct Inflated<'a> {
    zlib: io::Take<ZlibDecoder<&'a [u8]>>,
}

impl Inflated<'_> {
    fn bytes_up_to(&mut self, length: u64) -> Result<Vec<u8>, RegisterBrokerError> {
        if length > self.zlib.limit() {
            return Err(RegisterBrokerError::TooLarge);
        }
        // Grows with what is really there, whatever the length claims.
        let mut bytes = Vec::new();
        self.zlib.by_ref().take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, RegisterBrokerError> {
        let bytes = self.bytes_up_to(length)?;
        if bytes.len() as u64 == length {
            Ok(bytes)
        } else {
            Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
        }
    }

    fn count(&mut self) -> Result<u32, RegisterBrokerError> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes were asked for")))
    }

    fn block(&mut self) -> Result<Vec<u8>, RegisterBrokerError> {
        let length = self.count()?;
        self.bytes(u64::from(length))
    }

    /// A count, unless everything has been read.
    fn count_if_any(&mut self) -> Result<Option<u32>, RegisterBrokerError> {
        match self.bytes_up_to(4)?.try_into() {
            Ok(bytes) => Ok(Some(u32::from_be_bytes(bytes))),
            Err(bytes) if bytes.is_empty() => Ok(None),
            Err(_) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = i32::try_from(length).expect("a table of topics is far smaller than 2 GiB");
    out.extend_from_slice(&length.to_be_bytes());
}

fn put_block(out: &mut Vec<u8>, block: &[u8]) {
    put_length(out, block.len());
    out.extend_from_slice(block);
}

/// `name readQueues writeQueues perm filterType attributes`, one blank between each.
fn topic_to_line(topic: &TopicConfig) -> Vec<u8> {
    let mut line = format!(
        "{} {} {} {} {} ",
        topic.topic_name,
        topic.read_queue_nums,
        topic.write_queue_nums,
        topic.perm,
        topic.topic_filter_type.name(),
    )
    .into_bytes();
    line.extend_from_slice(&json::write(&topic.attributes, Dialect::Fastjson));
    line
}

fn topic_from_line(line: &[u8]) -> Result<TopicConfig, RegisterBrokerError> {
    let refused =
        || RegisterBrokerError::Topic(String::from_utf8_lossy(line).chars().take(200).collect());
    let text = std::str::from_utf8(line).map_err(|_| refused())?;
    let mut words = text.split(' ');
    let mut next = || words.next().ok_or_else(refused);
    let number = |word: &str| word.parse::<i32>().map_err(|_| refused());
    Ok(TopicConfig {
        topic_name: next()?.to_owned(),
        read_queue_nums: number(next()?)?,
        write_queue_nums: number(next()?)?,
        perm: number(next()?)?,
        topic_filter_type: match next()? {
            "SINGLE_TAG" => super::TopicFilterType::SingleTag,
            "MULTI_TAG" => super::TopicFilterType::MultiTag,
            _ => return Err(refused()),
        },
        // An attribute may itself hold a blank; stock then drops them all, we need not.
        attributes: text
            .splitn(6, ' ')
            .nth(5)
            .and_then(|attributes| json::read(attributes.as_bytes()).ok())
            .unwrap_or_default(),
        ..TopicConfig::default()
    })
}
