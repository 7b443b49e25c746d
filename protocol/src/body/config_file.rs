//! The `config/*.json` files that are no body as well, and the nameserver's `kvConfig.json`.
//!
//! `topics.json` is a [`TopicConfigSerializeWrapper`](super::TopicConfigSerializeWrapper),
//! `subscriptionGroup.json` a [`SubscriptionGroupWrapper`](super::SubscriptionGroupWrapper).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DataVersion, SetMessageRequestModeRequestBody};

/// `consumerOffset.json`, and the answer to 43.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsetFile {
    pub data_version: DataVersion,
    /// Written for people; the groups and topics are those of `offset_table`.
    pub group_topic_map: BTreeMap<String, Vec<String>>,
    /// The next offset by `topic@group` and queue id.
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    /// The next offset that will be pulled, likewise.
    pub pull_offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// `delayOffset.json`, and the answer to 45: the next offset by delay level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelayOffsetFile {
    pub data_version: DataVersion,
    pub offset_table: BTreeMap<i32, i64>,
}

/// `consumerFilter.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerFilterFile {
    pub filter_data_by_topic: BTreeMap<String, FilterDataMapByTopic>,
}

/// The filters of one topic by group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterDataMapByTopic {
    pub group_filter_data: BTreeMap<String, ConsumerFilterData>,
    pub topic: String,
}

/// A group's filter expression on a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerFilterData {
    pub bloom_filter_data: Option<BloomFilterData>,
    pub born_time: i64,
    pub client_version: i64,
    pub consumer_group: String,
    /// Whether `dead_time` is not before `born_time`.
    pub dead: bool,
    pub dead_time: i64,
    pub expression: String,
    pub expression_type: String,
    pub topic: String,
}

/// Which bits of a filter bitmap stand for a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BloomFilterData {
    pub bit_num: i32,
    pub bit_pos: Vec<i32>,
}

/// `consumerOrderInfo.json`: what is in flight of pops in order, by `topic@group` and queue id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOrderInfoFile {
    pub order_info_count: i32,
    pub ordered_consumption_level: String,
    pub table: BTreeMap<String, BTreeMap<i32, OrderInfo>>,
}

impl Default for ConsumerOrderInfoFile {
    fn default() -> Self {
        Self {
            order_info_count: 0,
            ordered_consumption_level: "QUEUE".to_owned(),
            table: BTreeMap::new(),
        }
    }
}

/// One batch that was popped in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OrderInfo {
    #[serde(rename = "a")]
    pub attempt_id: Option<String>,
    /// One bit for each offset that was acked.
    #[serde(rename = "cm")]
    pub commit_offset_bit: i64,
    #[serde(rename = "i")]
    pub invisible_time: Option<i64>,
    #[serde(rename = "l")]
    pub last_consume_timestamp: i64,
    /// The first offset, then the distance of each to the first.
    #[serde(rename = "o")]
    pub offset_list: Option<Vec<i64>>,
    #[serde(rename = "oc")]
    pub offset_consumed_count: Option<BTreeMap<i64, i32>>,
    #[serde(rename = "ot")]
    pub offset_next_visible_time: Option<BTreeMap<i64, i64>>,
    #[serde(rename = "popTime")]
    pub pop_time: i64,
}

/// `messageRequestMode.json`: by topic, then by group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageRequestModeFile {
    pub message_request_mode_map:
        BTreeMap<String, BTreeMap<String, SetMessageRequestModeRequestBody>>,
}

/// The nameserver's `kvConfig.json`: by namespace, then by key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KVConfigFile {
    pub config_table: BTreeMap<String, BTreeMap<String, String>>,
}
